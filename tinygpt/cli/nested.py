"""What must not lie in a folder that a pipeline reads: another repository. `check(Paths())` refuses it, and a `data`
that leads out of the project.

DVC takes such a folder as it is: it hashes all that is in it, and `dvc exp run` adds to git what git does not track.
"""

import os
from pathlib import Path

from tinygpt import config
from tinygpt.files.paths import Paths, home

REFUSED = {  # name → what DVC does with it
    ".git": "`dvc exp run` would add it to git file by file, and git could no longer read its own index",
    ".dvc": "DVC does not look into another repository, and would not see edits there",
    ".dvcignore": "DVC refuses to read a folder that holds one",
    "dvc.yaml": "DVC would take its stages for this project's, and run them",
}


def check(pipeline: Paths) -> None:
    """ValueError, as a sentence, where a folder that dvc.yaml names by a parameter holds such a thing, or `data` is a
    link to elsewhere.
    """
    file = pipeline.folder / "dvc.yaml"
    if not file.is_file():
        return  # a params.yaml alone: DVC runs nothing of it
    if pipeline.folder.resolve() not in (data := pipeline.folder / "data").resolve().parents:
        raise ValueError(
            f"{data} leads to {data.resolve()}, and DVC keeps no results outside the repository: it would refuse them "
            "after all the work. Make it a folder again, and keep what is large on the other disk: `dvc cache dir "
            "--local FOLDER` and `dvc config --local cache.type symlink`."
        )
    values = config.read_yaml(pipeline.params)
    deps = {dep for stage in config.read_stages(file) for dep in stage.get("deps") or () if isinstance(dep, str)}
    for name in sorted(dep.removeprefix("${").removesuffix("}") for dep in deps if dep.startswith("${")):
        section, _, key = name.partition(".")
        keys = values.get(section)
        if isinstance(keys, dict) and isinstance(folder := keys.get(key), str):
            _check_folder(name, Path(folder))


def _check_folder(key: str, folder: Path) -> None:
    """A folder elsewhere may hold what it likes: DVC hashes it, and git never hears of it."""
    if home().resolve() not in folder.resolve().parents:
        return
    for parent, folders, names in os.walk(folder):
        found = next((name for name in REFUSED if name in folders + names), None)
        if found is not None:
            raise ValueError(
                f"{Path(parent, found)} must not lie in {key}: {REFUSED[found]}. Move {parent} out of this repository "
                f"and set {key} to its new place; or delete {Path(parent, found)}, if you do not need it."
            )

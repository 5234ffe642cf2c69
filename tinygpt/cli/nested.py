"""Refuse nested repositories in a pipeline's input folders, and a `data` link out of the project: `check(Paths())`.

DVC does not treat a nested repository specially: it hashes all of its files, and `dvc exp run` adds untracked ones to
git.
"""

import os
from pathlib import Path

from tinygpt import yaml_files
from tinygpt.files.paths import Paths, home

REFUSED = {  # name → what DVC does with it
    ".git": "`dvc exp run` would add its files to git and corrupt git's index",
    ".dvc": "DVC ignores another repository, and would not notice edits there",
    ".dvcignore": "DVC refuses to read a folder that contains one",
    "dvc.yaml": "DVC would run its stages as part of this project",
}


def check(pipeline: Paths) -> None:
    """Raise ValueError if an input folder contains one of REFUSED, or if `data` links out of the project."""
    file = pipeline.folder / "dvc.yaml"
    if not file.is_file():
        return  # a params.yaml without a pipeline
    if pipeline.folder.resolve() not in (data := pipeline.folder / "data").resolve().parents:
        raise ValueError(
            f"{data} links to {data.resolve()}. DVC refuses outputs outside the repository, but only after the stage "
            "has run. Make it a folder again. To keep large files on another disk: `dvc cache dir --local FOLDER` and "
            "`dvc config --local cache.type symlink`."
        )
    values = yaml_files.read_yaml(pipeline.params)
    deps = {dep for stage in yaml_files.read_stages(file) for dep in stage.get("deps") or () if isinstance(dep, str)}
    for name in sorted(dep.removeprefix("${").removesuffix("}") for dep in deps if dep.startswith("${")):
        section, _, key = name.partition(".")
        keys = values.get(section)
        if isinstance(keys, dict) and isinstance(folder := keys.get(key), str):
            _check_folder(name, Path(folder))


def _check_folder(key: str, folder: Path) -> None:
    if home().resolve() not in folder.resolve().parents:
        return  # DVC only hashes a folder outside the repository; git never touches it
    for parent, folders, names in os.walk(folder):
        found = next((name for name in REFUSED if name in folders + names), None)
        if found is not None:
            raise ValueError(
                f"{Path(parent, found)} must not be in {key}: {REFUSED[found]}. Move {parent} out of this repository "
                f"and set {key} to the new path; or delete {Path(parent, found)} if you do not need it."
            )

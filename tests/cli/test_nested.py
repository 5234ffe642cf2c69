"""A folder that a pipeline reads holds no other repository: DVC would hide its text, or break git's index with it."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.conftest import ROOT
from tinygpt.cli import main, nested
from tinygpt.files.paths import Paths


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The project's pipelines, with an empty data/own and no modules."""
    for name in ("dvc.yaml", "params.yaml", "finetune/dvc.yaml", "finetune/params.yaml"):
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "project" / name)
    (tmp_path / "project/data/own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.mark.parametrize(
    "found", ["clone/.git/HEAD", "a/worktree/.git", ".git/HEAD", "other/.dvc/config", "a/dvc.yaml", ".dvcignore"]
)
def test_check_refuses_another_repository_in_the_text_and_names_it(project: Path, found: str) -> None:
    own = project / "data/own"
    (own / found).parent.mkdir(parents=True, exist_ok=True)
    (own / found).write_text("gitdir: /elsewhere")
    result = CliRunner().invoke(main.app, ["check"])
    place = Path("data/own", found.removesuffix("/HEAD").removesuffix("/config"))
    assert isinstance(result.exception, ValueError)
    assert str(result.exception).startswith(f"{place} must not be in download.path: ")
    assert str(result.exception).endswith(
        f"Move {place.parent} out of this repository and set download.path to the new path; "
        f"or delete {place} if you do not need it."
    )


def test_results_on_another_disk_are_refused_before_any_work(project: Path) -> None:
    (project / "data").rename(project.parent / "disk")
    (project / "data").symlink_to(project.parent / "disk")
    with pytest.raises(ValueError, match=r"^data links to .*/disk. DVC refuses outputs outside the repository"):
        nested.check(Paths())


def test_a_clone_elsewhere_a_plain_folder_and_what_dvc_added_itself_are_no_matter(project: Path) -> None:
    for folder in (project / "data/own/notes", project.parent / "clone/.git"):
        folder.mkdir(parents=True)
    (project / "data/own/notes.dvc").touch()  # `dvc add data/own/notes`
    (project / "data/own/.gitignore").write_text("/notes\n")
    nested.check(Paths())
    text = (
        (project / "params.yaml")
        .read_text(encoding="utf-8")
        .replace("path: data/own ", f"path: {project.parent}/clone ")
    )
    (project / "params.yaml").write_text(text, encoding="utf-8")
    nested.check(Paths())


def test_a_model_cloned_from_the_hub_is_refused_where_dvc_reads_it(project: Path) -> None:
    (project / "data/gpt2/.git").mkdir(parents=True)
    for pipeline in ("", "finetune"):
        file = project / pipeline / "params.yaml"
        text = file.read_text(encoding="utf-8").replace("init_from:           ", "init_from: data/gpt2")
        file.write_text(text.replace("init_from: data/model", "init_from: data/gpt2"), encoding="utf-8")
    nested.check(Paths())  # the top-level dvc.yaml does not name it
    with pytest.raises(ValueError, match=r"^data/gpt2/\.git must not be in train\.init_from"):
        nested.check(Paths(Path("finetune")))


def test_stages_of_your_own_may_lack_deps_and_repeat_for_items(project: Path) -> None:
    (project / "data/mine/.git").mkdir(parents=True)
    stages = """
  begun:
  mine: {cmd: echo hi}
  also: {foreach: [a, b], do: {cmd: "cat ${item}", deps: ["${item}", "${seed}", "${nothing.there}"]}}
"""
    dvc = (project / "dvc.yaml").read_text(encoding="utf-8").replace("stages:", f"stages:{stages.rstrip()}", 1)
    (project / "dvc.yaml").write_text(dvc, encoding="utf-8")
    nested.check(Paths())
    changed = (project / "params.yaml").read_text(encoding="utf-8").replace("path: data/own ", "path: data/mine ")
    (project / "params.yaml").write_text(changed, encoding="utf-8")
    dvc = dvc.replace("      - ${download.path}\n", "").replace('["${item}"', '["${download.path}"')
    (project / "dvc.yaml").write_text(dvc, encoding="utf-8")
    with pytest.raises(ValueError, match=r"^data/mine/\.git must not be in download\.path"):
        nested.check(Paths())

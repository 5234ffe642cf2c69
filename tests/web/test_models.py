"""The models that can be chosen: those that are there, by name, a few at a time; the workspace is left alone."""

import os
import shutil
from pathlib import Path

import pytest

from tests.checkpoints.test_hf_model import write
from tests.project import Project
from tinygpt.files.paths import Paths, hidden
from tinygpt.web import models
from tinygpt.web.models import ModelRegistry, found_below


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a model in data/model."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, tmp_path / "data/model")
    return model_folder


def test_model_folders_below_are_found_the_pipelines_own_first(folder: Path) -> None:
    for place in ("a/b/c/d", "a/b/c/d/e", ".hidden/model", "x/site-packages/model", "finetune/data/model"):
        shutil.copytree(folder, place)
    Path("broken").mkdir()
    shutil.copy(folder / "config.json", "broken")
    assert [str(found) for found in found_below(Path())] == ["data/model", "a/b/c/d", "finetune/data/model"]


def test_folders_that_are_named_come_first_and_must_hold_a_model(folder: Path) -> None:
    assert list(ModelRegistry([folder]).find()) == [str(folder), "data/model"]
    with pytest.raises(FileNotFoundError, match="There is no model in data"):
        ModelRegistry([Path("data")])
    shutil.rmtree("data")
    with pytest.raises(FileNotFoundError, match="There is no model below this folder"):
        ModelRegistry()


def test_only_a_few_models_are_held_in_memory(folder: Path) -> None:
    for place in ("b", "c"):
        shutil.copytree(folder, place)
    ours = ModelRegistry()
    first = ours.load("data/model")
    assert ours.load("data/model") is first
    for name in ("b", "c"):
        ours.load(name)
    assert len(ours._open) == models.LOADED
    assert ours.load("data/model") is not first


def test_a_model_trained_anew_is_opened_anew_and_a_damaged_one_refused(folder: Path) -> None:
    ours = ModelRegistry()
    before = ours.load("data/model")
    os.utime("data/model/model.safetensors", ns=(1, 1))
    assert ours.load("data/model") is not before
    Path("data/model/model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"is damaged: model\.safetensors does not match"):
        ours.load("data/model")


def test_a_model_in_several_files_is_found(folder: Path) -> None:
    write(Path("sharded"), "llama")
    assert ModelRegistry([Path("sharded")]).load("sharded").model.config.n_layer == 2


def test_what_is_there_is_looked_for_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = ModelRegistry()
    shutil.copytree(folder, "new")
    assert "new" not in ours.find()  # so soon
    monkeypatch.setattr(ours, "_until", 0.0)
    assert "new" in ours.find()


@pytest.mark.slow
def test_an_experiments_model_comes_out_of_the_cache_and_the_workspace_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(project.folder)
    project.dvc("exp", "run", "--name", "other", "-S", "seed=2", "evaluate")
    expected = Path("data/model/model.safetensors").read_bytes()
    project.restore()
    before = project.results()
    ours = ModelRegistry()
    (name,) = [name for name in ours.find() if "experiment" in name]
    assert name.startswith("other (experiment, ")
    opened = ours.load(name)
    assert (opened.book.folder / "model.safetensors").read_bytes() == expected
    assert Paths().model / "model.safetensors" != opened.book.folder / "model.safetensors"
    assert project.results() == before
    for old in range(5):
        (hidden("experiments") / f"old {old}").mkdir()
    shutil.rmtree(opened.book.folder)
    ours._open.clear()
    ours.load(name)
    assert len(list(hidden("experiments").iterdir())) == models.KEPT
    with pytest.raises(ValueError, match="is not in DVC's cache"):
        models.bring_out(project.run("git", "rev-list", "--max-parents=0", "HEAD").strip(), Path("nowhere"))
    assert not Path("nowhere").exists()

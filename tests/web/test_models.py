"""The model registry finds models by name, keeps a few loaded, and leaves the workspace alone."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.test_hf_model import write
from tests.project import Project
from tinygpt.files.paths import Paths, hidden
from tinygpt.web import models
from tinygpt.web.models import ModelRegistry, find_folders


@pytest.fixture
def folder(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, with a model in data/model."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, tmp_path / "data/model")
    return model_folder


def test_model_folders_are_found_the_pipelines_own_first(folder: Path) -> None:
    for place in (
        "a/b/c/d",
        "a/b/c/d/e",
        ".hidden/model",
        "x/site-packages/model",
        "finetune/data/model",
        "chat/data/model",
    ):
        shutil.copytree(folder, place)
    Path("broken").mkdir()
    shutil.copy(folder / "config.json", "broken")
    assert [str(found) for found in find_folders(Path())] == [
        *("data/model", "a/b/c/d", "chat/data/model", "finetune/data/model")
    ]


def test_given_folders_come_first_and_must_hold_a_model(folder: Path) -> None:
    assert list(ModelRegistry([folder]).find()) == [str(folder), "data/model"]
    with pytest.raises(FileNotFoundError, match="There is no model in data"):
        ModelRegistry([Path("data")])
    shutil.rmtree("data")
    with pytest.raises(FileNotFoundError, match="There is no model below this folder"):
        ModelRegistry()


def test_the_number_of_loaded_models_is_limited(folder: Path) -> None:
    for place in ("b", "c"):
        shutil.copytree(folder, place)
    registry = ModelRegistry()
    first = registry.load("data/model")
    assert registry.load("data/model") is first
    for name in ("b", "c"):
        registry.load(name)
    assert len(registry._loaded) == models.MAX_LOADED
    assert registry.load("data/model") is not first


@pytest.mark.parametrize(("weights", "kind"), [("fp32", torch.float32), ("int8", torch.int8)])
def test_models_are_loaded_with_the_weights_that_were_asked_for(folder: Path, weights: Any, kind: torch.dtype) -> None:
    loaded = ModelRegistry([folder], weights=weights).load(str(folder))
    assert loaded.model.head.weight.dtype == kind


def test_a_retrained_model_is_loaded_again_and_a_damaged_one_refused(folder: Path) -> None:
    registry = ModelRegistry()
    before = registry.load("data/model")
    os.utime("data/model/model.safetensors", ns=(1, 1))
    assert registry.load("data/model") is not before
    Path("data/model/model.safetensors").write_bytes(b"x" * 99)
    with pytest.raises(ValueError, match=r"is damaged: model\.safetensors does not match"):
        registry.load("data/model")


def test_a_model_in_several_files_is_found(folder: Path) -> None:
    write(Path("sharded"), "llama")
    assert ModelRegistry([Path("sharded")]).load("sharded").model.config.n_layer == 2


def test_new_models_are_found_after_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ModelRegistry()
    shutil.copytree(folder, "new")
    assert "new" not in registry.find()  # not yet
    monkeypatch.setattr(registry, "_next_search", 0.0)
    assert "new" in registry.find()


@pytest.mark.slow
def test_an_experiments_model_is_copied_from_the_cache_and_the_workspace_stays(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(project.folder)
    project.dvc("exp", "run", "--name", "other", "-S", "seed=2", "evaluate")
    expected = Path("data/model/model.safetensors").read_bytes()
    project.restore()
    before = project.results()
    registry = ModelRegistry()
    (name,) = [name for name in registry.find() if "experiment" in name]
    assert name.startswith("other (experiment, ")
    loaded = registry.load(name)
    assert (loaded.entry.folder / "model.safetensors").read_bytes() == expected
    assert Paths().model / "model.safetensors" != loaded.entry.folder / "model.safetensors"
    assert project.results() == before
    for old in range(5):
        (hidden("experiments") / f"old {old}").mkdir()
    shutil.rmtree(loaded.entry.folder)
    registry._loaded.clear()
    registry.load(name)
    assert len(list(hidden("experiments").iterdir())) == models.MAX_COPIES
    with pytest.raises(ValueError, match="is not in DVC's cache"):
        models.copy_experiment(project.run("git", "rev-list", "--max-parents=0", "HEAD").strip(), Path("nowhere"))
    assert not Path("nowhere").exists()

"""scratch/ under DVC: the reference implementation trains end to end on the tokens of the top-level pipeline."""

import json
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.project import STAGES, Project
from tinygpt.checkpoints.model_folder import load
from tinygpt.files.checksums import verify

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose two pipelines have run, with the same parameters."""
    project = Project(tmp_path_factory.mktemp("reference"))
    assert project.dvc("repro") == STAGES  # and not those of scratch/
    assert project.dvc("repro", "scratch/dvc.yaml") == [f"scratch/dvc.yaml:{stage}" for stage in STAGES]
    return project


def read(project: Project, name: str) -> Any:
    return json.loads((project.folder / name).read_text(encoding="utf-8"))


def test_it_learns_from_the_same_tokens(project: Project) -> None:
    for name in ("tokenizer/tokenizer.json", "tokens/train.npy", "tokens/validation.npy"):
        assert (project.folder / "scratch/data" / name).read_bytes() == (project.folder / "data" / name).read_bytes()


def test_it_ends_where_the_fast_path_ends(project: Project) -> None:
    ours, theirs = (read(project, f"{folder}data/evaluation/metrics.json") for folder in ("scratch/", ""))
    assert ours["bits_per_byte"] == pytest.approx(theirs["bits_per_byte"], rel=1e-3)
    ours, theirs = (read(project, f"{folder}data/training/metrics.json") for folder in ("scratch/", ""))
    assert ours == {name: pytest.approx(value, rel=1e-3) for name, value in theirs.items()}


def test_its_model_folder_is_whole_and_opens_as_any_other(project: Project) -> None:
    folder = project.folder / "scratch/data/model"
    verify(folder)
    assert sorted(file.name for file in folder.iterdir()) == sorted(
        file.name for file in (project.folder / "data/model").iterdir()
    )
    model, tokenizer = load(folder)
    assert model.config.vocab_size == tokenizer.vocab_size
    assert project.run("tinygpt", "generate", "ROMEO:", "--model", "scratch/data/model", "--max-new-tokens", "9")
    assert "the same" in project.run("tinygpt", "info", "scratch/data/model", "--folder", "scratch")


def test_running_it_again_gives_the_same_bytes(project: Project) -> None:
    lock = (project.folder / "scratch/dvc.lock").read_bytes()
    project.dvc("repro", "-f", "-s", "scratch/dvc.yaml:train")
    assert (project.folder / "scratch/dvc.lock").read_bytes() == lock


def test_what_it_cannot_follow_is_refused_before_any_work(project: Project) -> None:
    file = project.folder / "scratch/params.yaml"
    before = file.read_text(encoding="utf-8")
    file.write_text(before.replace("precision: fp32", "precision: bf16"), encoding="utf-8")
    told = project.run("python", "-m", "tinygpt.scratch.train", "scratch", code=1)
    file.write_text(before, encoding="utf-8")
    assert "train.precision is 'bf16'; the reference implementation takes 'auto' or 'fp32'" in told
    assert "Traceback" not in told


def test_its_parameters_are_those_of_the_top_level() -> None:
    ours, theirs = (
        yaml.safe_load((ROOT / folder / "params.yaml").read_text(encoding="utf-8")) for folder in ("scratch", "")
    )
    assert ours.pop("train") == theirs.pop("train") | {
        "steps": 1000,
        "device": "cpu",
        "precision": "fp32",
        "compile": False,
    }
    assert ours == theirs

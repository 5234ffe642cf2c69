"""A run's saves survive being cut short, and its name changes with all that can change its result."""

import importlib
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.checkpoints.test_model_folder import LINEAGE
from tinygpt.checkpoints import hf_names
from tinygpt.training.run_folder import RunFolder, fingerprint


def save(run: RunFolder, step: int) -> None:
    run.save(step, {"x": torch.full((3,), float(step))}, {"step": step})


def test_a_run_hands_back_its_newest_save_and_keeps_the_last_two(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", keep=2) as run:
        assert run.latest() is None
        for step in (10, 20, 100):
            save(run, step)
        assert sorted(folder.name for folder in (tmp_path / "run").glob("step-*")) == [
            "step-000000020",
            "step-000000100",
        ]
        tensors, metadata = run.latest() or ({}, {})
        assert metadata == {"step": 100}
        assert tensors["x"].tolist() == [100.0] * 3


@pytest.mark.parametrize("name", ["state.safetensors", "metadata.json", "SHA256SUMS"])
def test_a_damaged_save_is_named_and_the_one_before_it_used(tmp_path: Path, name: str) -> None:
    with RunFolder(tmp_path / "run", keep=2) as run:
        save(run, 1)
        save(run, 2)
        newest = tmp_path / "run/step-000000002" / name
        newest.write_bytes(newest.read_bytes()[:-3])
        _, metadata = run.latest() or ({}, {})
        assert metadata == {"step": 1}
        assert "step-000000002" in run.damaged[0]


@pytest.mark.parametrize("keep", [1, 2])
def test_damaged_saves_of_later_steps_do_not_push_out_a_new_one(tmp_path: Path, keep: int) -> None:
    with RunFolder(tmp_path / "run", keep) as run:
        for step in (100, 200):
            save(run, step)
        for folder in (tmp_path / "run").glob("step-*"):
            (folder / "metadata.json").write_text("{}")
        assert run.latest() is None
        assert run.damaged[-1].endswith("There is none before it: starting over.")
        for step in (10, 20):
            save(run, step)
            assert (run.latest() or ({}, {}))[1] == {"step": step}
        assert [folder.name for folder in (tmp_path / "run").glob("step-*2*")] == ["step-000000020"]


def test_a_second_process_is_told_who_trains_this_run(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", keep=2), pytest.raises(ValueError, match=r"Process \d+ is training this very run"):
        RunFolder(tmp_path / "run", keep=2).__enter__()
    with RunFolder(tmp_path / "run", keep=2):  # and it is free again
        pass


def test_a_finished_run_leaves_nothing(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", keep=2) as run:
        save(run, 1)
        run.finish()
    assert list(tmp_path.iterdir()) == []


def test_the_fingerprint_changes_with_everything_that_can_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(LINEAGE, "cpu")
    assert first == fingerprint(dict(reversed(LINEAGE.items())), "cpu")
    assert first != fingerprint(LINEAGE | {"tokenizer": "other"}, "cpu")
    assert first != fingerprint(LINEAGE, "cuda")
    monkeypatch.setattr(torch, "__version__", "0.0.0")
    assert first != fingerprint(LINEAGE, "cpu")


def test_the_fingerprint_changes_with_the_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fingerprint(LINEAGE, "cpu")
    edited = shutil.copy(str(hf_names.__file__), tmp_path)
    Path(edited).write_text(Path(edited).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    monkeypatch.setattr(hf_names, "__file__", edited)
    assert first != fingerprint(LINEAGE, "cpu")


@pytest.mark.parametrize("name", ["config", "console", "errors", "hf_errors", "yaml_files"])
def test_a_reworded_message_orphans_no_unfinished_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module: Any = importlib.import_module(f"tinygpt.{name}")
    first = fingerprint(LINEAGE, "cpu")
    edited = tmp_path / f"{name}.py"
    edited.write_text(Path(module.__file__).read_text(encoding="utf-8") + "\n", encoding="utf-8")
    monkeypatch.setattr(module, "__file__", str(edited))
    assert module in sys.modules.values()
    assert first == fingerprint(LINEAGE, "cpu")

"""Several processes under torchrun learn what one would, speak and write as one, stop as one, and resume to the bit."""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file

from tests import together
from tests.conftest import ROOT
from tests.pipeline.test_faults import wait_for
from tests.project import Project
from tests.small_training import Data, settings, start
from tinygpt.files.text import read_table
from tinygpt.training import distributed
from tinygpt.training.state import weights

TORCHRUN = ("torchrun", "--standalone", "--nproc_per_node=2", "-m", "stages.train")


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, tokens: dict[str, np.ndarray]) -> Path:
    """What three processes ended with: of three or more, a sum depends on its order."""
    folder = tmp_path_factory.mktemp("three")
    for split, ids in tokens.items():
        np.save(folder / f"{split}.npy", ids)
    command = ["torchrun", "--standalone", "--nproc_per_node=3", "-m", "tests.together", str(folder)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout == "the first process prints\n"
    return folder


def metadata(folder: Path, rank: int) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"metadata {rank}").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("case", together.CASES)
def test_three_processes_learn_what_one_does(three: Path, data: Data, case: str) -> None:
    alone, found = together.trained(data, case), metadata(three, 0)[case]
    assert [row["step"] for row in found["looks"]] == [0, 3, 6]
    for mine, theirs in zip(alone.train_rows + alone.validation_rows, found["rows"] + found["looks"], strict=True):
        assert theirs == pytest.approx(mine, rel=1e-5)
    before, expected = weights(start(data, settings(**together.CASES[case])).model), weights(alone.model)
    for name, tensor in load_file(three / f"{case} 0").items():
        # AdamW takes a step of full size even along a gradient that is only rounding: single numbers may part ways
        apart, way = (tensor - expected[name]).norm(), (expected[name] - before[name]).norm()
        assert apart < 1e-4 * way, name


@pytest.mark.parametrize("case", together.CASES)
def test_all_processes_hold_the_same_bits(three: Path, case: str) -> None:
    first = (three / f"{case} 0").read_bytes()
    assert all((three / f"{case} {rank}").read_bytes() == first for rank in (1, 2))
    assert all(metadata(three, rank)[case]["rows"] == metadata(three, 0)[case]["rows"] for rank in (1, 2))


def test_three_processes_that_were_stopped_go_on_to_the_same_bits(three: Path) -> None:
    assert (three / "resumed 0").read_bytes() == (three / "muon 0").read_bytes()


def test_dropout_differs_between_processes_and_is_as_ever_in_the_first(three: Path) -> None:
    seeds = [metadata(three, rank)["seed"] % 2**32 for rank in range(3)]  # a CPU's generator takes 32 bits
    assert seeds[0] == 3 * 1_000_003 + 5
    assert len(set(seeds)) == 3


def test_averaged_gradients_stay_where_recorded_work_looks_for_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 2)
    monkeypatch.setattr(distributed, "_reduce", lambda vector, _: vector.mul_(3))  # another process has twice as much
    tensors = [torch.ones(2, 3), torch.tensor(2.0)]
    places = [tensor.data_ptr() for tensor in tensors]
    distributed.average(tensors)
    assert [tensor.tolist() for tensor in tensors] == [[[1.5] * 3] * 2, 3.0]
    assert [tensor.data_ptr() for tensor in tensors] == places


def test_what_diverges_in_one_process_stops_all_with_the_same_words(three: Path) -> None:
    words = {metadata(three, rank)["diverged"] for rank in range(3)}
    assert len(words) == 1
    assert "Training diverged at step 0" in words.pop()


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulation", "even"), [(2, 15, 1, 14), (4, 6, 2, 6), (4, 5, 2, 4), (3, 1, 4, 3)]
)
def test_a_batch_that_cannot_be_shared_evenly_is_refused_with_one_that_can(
    monkeypatch: pytest.MonkeyPatch, size: int, batch_size: int, accumulation: int, even: int
) -> None:
    monkeypatch.setattr(distributed, "size", lambda: size)
    distributed.check(settings(batch_size=even, accumulation=accumulation))
    if even != batch_size:
        with pytest.raises(
            ValueError, match=rf"{size} processes cannot share evenly; set train\.batch_size to {even}\."
        ):
            distributed.check(settings(batch_size=batch_size, accumulation=accumulation))


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "size", lambda: 4)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda _: None)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(ValueError, match=r"use --nproc_per_node=2, or train\.device=cpu"):
        distributed.local_device(torch.device("cuda"))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert distributed.local_device(torch.device("cuda")) == torch.device("cuda", 1)
    assert distributed.local_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.slow
def test_two_processes_train_the_project_as_one_does(project: Project) -> None:
    curves = {name: read_table(project.folder / f"data/training/{name}.tsv") for name in ("train", "validation")}
    printed = project.run(*TORCHRUN)
    assert printed.count("parameters, ") == printed.count("best validation loss") == printed.count("step 20/20") == 1
    assert "of memory in each process" in printed
    for name, rows in curves.items():
        for mine, theirs in zip(rows, read_table(project.folder / f"data/training/{name}.tsv"), strict=True):
            assert theirs == pytest.approx(mine, rel=1e-4)
    assert not list((project.folder / ".tinygpt/runs").iterdir())


@pytest.mark.slow
def test_results_of_torchrun_are_committed_to_dvc_and_the_pipeline_goes_on(project: Project) -> None:
    project.set("train", steps=24)
    project.run(*TORCHRUN)
    project.run("dvc", "commit", "-f", "train")
    assert project.dvc("repro") == ["evaluate", "sample"]
    assert project.dvc("repro") == []


@pytest.mark.slow
def test_torchrun_as_the_command_in_dvc_yaml_serves_experiments_too(project: Project) -> None:
    file = project.folder / "dvc.yaml"
    changed = file.read_text(encoding="utf-8").replace("cmd: python -m stages.train", "cmd: " + " ".join(TORCHRUN))
    file.write_text(changed, encoding="utf-8")
    assert project.dvc("repro") == ["train", "evaluate", "sample"]
    assert project.dvc("exp", "run", "-S", "train.steps=22") == ["train", "evaluate", "sample"]
    assert len(read_table(project.folder / "data/training/train.tsv")) == 22


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"batch_size": 5}, "2 processes cannot share evenly; set train.batch_size to 4."),
        ({"learning_rate": 1e30, "gradient_clip": 0.0, "warmup_steps": 0}, "Training diverged at step"),
    ],
)
def test_all_processes_stop_with_one_sentence(project: Project, changes: dict[str, Any], words: str) -> None:
    project.set("train", **changes)
    printed = project.run(*TORCHRUN, code=1)
    assert printed.count(words) == 1
    assert "Traceback" not in printed.split(words)[0]  # after it torchrun adds its own


class Started:
    """A training in two processes, started as a terminal would."""

    def __init__(self, project: Project) -> None:
        self.folder = project.folder
        with (self.folder / ".tinygpt/printed").open("w", encoding="utf-8") as out:
            self.torchrun = subprocess.Popen(TORCHRUN, cwd=self.folder, stdout=out, stderr=out, start_new_session=True)
        wait_for(lambda: [*self.folder.glob(".tinygpt/runs/*/step-00000000[3-9]")], "a save")
        self.processes = psutil.Process(self.torchrun.pid).children(recursive=True)

    def process(self, rank: int) -> psutil.Process:
        return next(process for process in self.processes if process.environ().get("RANK") == str(rank))

    def ended(self) -> str:
        """What was printed, once all processes have ended with an error."""
        assert self.torchrun.wait(60) != 0
        assert not psutil.wait_procs(self.processes, timeout=10)[1]
        return (self.folder / ".tinygpt/printed").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def long(finished: Project) -> Iterator[tuple[Project, dict[str, bytes]]]:
    """A project with more steps, and its bytes of two processes that were left alone."""
    finished.set("train", steps=150)
    finished.set("runtime", checkpoint_every=3)
    finished.run(*TORCHRUN)
    yield finished, finished.results()
    finished.restore()


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_is_killed_ends_all_and_they_go_on_to_the_same_bytes(
    long: tuple[Project, dict[str, bytes]], rank: int
) -> None:
    project, expected = long
    started = Started(project)
    started.process(rank).kill()
    assert started.ended().count("Another process of this training has ended") <= 1  # unless torchrun was quicker
    assert "going on after step" in project.run(*TORCHRUN)
    assert project.results() == expected


@pytest.mark.slow
@pytest.mark.parametrize("way", ["Ctrl-C", "SIGTERM to torchrun", "SIGTERM to one process"])
def test_an_interrupt_stops_all_after_the_same_step_and_they_go_on_to_the_same_bytes(
    long: tuple[Project, dict[str, bytes]], way: str
) -> None:
    project, expected = long
    started = Started(project)
    if way == "Ctrl-C":
        os.killpg(started.torchrun.pid, signal.SIGINT)  # which torchrun hands on: its processes are no terminal's
    elif way == "SIGTERM to torchrun":
        started.torchrun.terminate()
    else:
        started.process(1).terminate()
    [step] = re.findall(r"stopped after step (\d+); all is saved", started.ended())
    assert f"going on after step {step}," in project.run(*TORCHRUN)
    assert project.results() == expected

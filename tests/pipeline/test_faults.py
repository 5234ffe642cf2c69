"""Killed at any moment, refused by the disk at any write: the results end in the same bytes, and nothing is lost."""

import contextlib
import errno
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import torch

from tests.project import Project
from tinygpt.checkpoints import tensors as written
from tinygpt.training.run_folder import RunFolder

Found = TypeVar("Found")
WAYS = ("dvc repro", "dvc exp run", "dvc exp run --temp", "dvc queue start")
VICTIMS = ("trainer", "everything", "dvc")


def wait_for(look: Callable[[], Found | None], what: str, seconds: float = 90) -> Found:
    """What `look` finds, as soon as it finds something."""
    until = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < until, f"{what}: not within {seconds} seconds"
        time.sleep(0.001)
    return found


class Harness:
    """Starts the training of a project in one of four ways, and kills it."""

    def __init__(self, project: Project, seed: int, steps: int) -> None:
        self.project = project
        self.runs = project.folder / ".tinygpt/runs"
        self.random, self.steps = random.Random(seed), steps
        self.hits: list[str] = []  # what each kill left: "inside a save", "a save", "no save"
        project.set("train", steps=steps, eval_every=10)
        project.set("runtime", checkpoint_every=1)
        self.params = (project.folder / "params.yaml").read_bytes()
        project.run(sys.executable, "-m", "stages.train")
        self.expected = self.results()

    def results(self) -> dict[str, bytes]:
        """What training makes: the model, the last weights, the curves and the metrics."""
        made = self.project.results().items()
        return {name: data for name, data in made if name.startswith(("data/model/", "data/training/"))}

    def start(self, way: str, name: str) -> "subprocess.Popen[str]":
        """Start training; what it prints goes to a file."""
        options = ["-f", "-s", "train", *(["-n", name] if way != "dvc repro" else [])]
        command = ["dvc", *way.split()[1:], *options]
        if way == "dvc queue start":
            self.project.run("dvc", "exp", "run", "--queue", *options)
            command = way.split()
        with (self.project.folder / ".tinygpt/printed").open("w", encoding="utf-8") as out:
            return subprocess.Popen(
                command, cwd=self.project.folder, stdout=out, stderr=out, text=True, start_new_session=True
            )

    def printed(self) -> str:
        return (self.project.folder / ".tinygpt/printed").read_text(encoding="utf-8", errors="replace")

    def trainer(self) -> psutil.Process | None:
        """The process that holds the lock of a run, if one does."""
        for holder in self.runs.glob("*/holder.json"):
            try:
                process = psutil.Process(json.loads(holder.read_text())["pid"])
                if "stages.train" in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE:
                    return process
            except (OSError, ValueError, psutil.Error):
                continue  # that of a process that is gone
        return None

    def await_moment(self) -> psutil.Process:
        """Let training begin and take some of the steps that are left; every other time, until it is inside a save."""
        process = wait_for(self.trainer, "a trainer")
        first = wait_for(self.saved, "a save")
        last = self.random.randint(first, first + (self.steps - first) // 2)
        wait_for(lambda: self.saved() >= last, f"step {last}")
        if self.random.random() < 0.5:
            wait_for(self.inside_a_save, "a save that is being written")
        else:
            time.sleep(self.random.uniform(0, 0.02))
        return process

    def saved(self) -> int:
        """The last step that is saved; 0 where none is."""
        return max((int(save.name[5:]) for save in self.runs.glob("*/step-*")), default=0)

    def inside_a_save(self) -> bool:
        return any(self.runs.glob("*/.step-*.partial"))

    def kill(self, process: psutil.Process, victim: str) -> None:
        """SIGKILL to the trainer alone, to dvc alone (in a queue: with its worker), or to them and the whole group."""
        ours = {parent.pid for parent in psutil.Process().parents()} | {os.getpid()}
        above = [parent for parent in process.parents() if parent.pid not in ours and "dvc" in names(parent)]
        assert above, "no dvc runs this trainer"
        if victim != "trainer":
            for parent in above:
                parent.kill()
        if victim == "everything":
            group = os.getpgid(process.pid)
            assert group != os.getpgrp()
            os.killpg(group, signal.SIGKILL)
        if victim != "dvc":
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
            psutil.wait_procs([process], 10)
        left = "inside a save" if self.inside_a_save() else "a save" if any(self.runs.glob("*/step-*")) else "no save"
        self.hits.append(left)

    def round(self, way: str, victim: str, name: str) -> None:
        """One start, one kill, and the project put in order as a person would.

        Where dvc alone was killed, the trainer that it left is asked about by a second start, and then ends in peace.
        """
        with self.start(way, name) as started:
            process = self.await_moment()
            if victim == "dvc":
                process.suspend()  # so that it lives until it was asked about
            self.kill(process, victim)
            if victim != "trainer" or way == "dvc queue start":
                started.wait(60)
            else:
                assert started.wait(60) != 0  # dvc says that its stage failed
        self.tidy()
        if victim == "dvc":
            try:
                refusal = self.project.run("dvc", "repro", "-f", "-s", "train", code=255)
            finally:
                process.resume()
            assert f"Process {process.pid} is training this very run" in refusal
            assert "Traceback" not in refusal
            psutil.wait_procs([process], 60)

    def tidy(self) -> None:
        """Back to the branch that an `exp run` had left, with the parameters as they were."""
        self.project.run("git", "checkout", "-q", "-f", "main")
        (self.project.folder / "params.yaml").write_bytes(self.params)

    def finish(self, way: str, name: str) -> str:
        """Start once more, let it end, and bring its results to the workspace; what it printed."""
        with self.start(way, name) as started:
            assert started.wait(120) == 0, self.printed()
        if way == "dvc queue start":
            wait_for(lambda: f"{name} " in self.succeeded(), "the queued task", 120)
        if way in ("dvc exp run --temp", "dvc queue start"):
            self.project.run("git", "checkout", "-q", "-f", "main")
            self.project.run("dvc", "exp", "apply", name)
        return self.printed()

    def succeeded(self) -> str:
        lines = self.project.run("dvc", "queue", "status").splitlines()
        return "\n".join(line for line in lines if "Success" in line)


def names(process: psutil.Process) -> list[str]:
    """The names of a process's program and script."""
    return [Path(word).name for word in process.cmdline()[:2]]


@pytest.mark.slow
def test_training_killed_at_random_moments_ends_in_the_same_bytes(project: Project) -> None:
    harness = Harness(project, seed=2, steps=150)
    for way in WAYS:
        for number in range(5):
            victim = VICTIMS[number % 3]
            harness.round(way, victim, f"x{number}-{way.split()[-1].strip('-')}")
            if (way, victim) == ("dvc repro", "dvc"):
                assert harness.results() == harness.expected  # the orphan's
        printed = harness.finish(way, f"end-{way.split()[-1].strip('-')}")
        assert "going on after step" in printed or way == "dvc queue start"  # whose worker prints elsewhere
        assert harness.results() == harness.expected, way
    print(harness.hits)
    assert len(harness.hits) == 20
    assert harness.hits.count("inside a save") >= 5
    assert harness.hits.count("no save") <= 5


def test_a_second_trainer_says_who_holds_the_run_and_leaves(project: Project) -> None:
    command = [sys.executable, "-m", "stages.train"]
    before = project.results()
    with subprocess.Popen(command, cwd=project.folder, stdout=subprocess.PIPE, text=True) as first:
        holder = wait_for(lambda: next(project.folder.glob(".tinygpt/runs/*/holder.json"), None), "a holder")
        assert json.loads(holder.read_text()) == {"pid": first.pid}
        first.send_signal(signal.SIGSTOP)
        try:
            told = project.run(*command, code=1)
        finally:
            first.send_signal(signal.SIGCONT)
        assert first.stdout is not None
        assert "best validation loss" in first.stdout.read()
    assert f"Process {first.pid} is training this very run" in told
    assert "Traceback" not in told
    assert project.results() == before


def test_a_save_that_fails_at_any_of_its_steps_leaves_the_one_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call to the system that a save makes fails once: the first, the second, … until a save needs no more."""
    state = {"x": torch.arange(1000.0)}
    failed = 0
    with RunFolder(tmp_path / "run", keep=2) as run:
        run.save(1, state, {"step": 1})
        for owner, name in ((os, "fsync"), (Path, "replace"), (written, "save_file"), (Path, "write_text")):
            for number in range(1, 100):
                with monkeypatch.context() as patched:
                    fail_at(patched, owner, name, number)
                    try:
                        run.save(2, state, {"step": 2})
                        break
                    except OSError:
                        failed += 1
                tensors, metadata = run.latest() or ({}, {})
                assert metadata["step"] in (1, 2)
                assert torch.equal(tensors["x"], state["x"])
                assert run.damaged == []
                assert not list(tmp_path.rglob("*.partial"))
                shutil.rmtree(tmp_path / "run/step-000000002", ignore_errors=True)
            assert (run.latest() or ({}, {}))[1] == {"step": 2}
            shutil.rmtree(tmp_path / "run/step-000000002")
    assert failed > 10


def fail_at(patched: pytest.MonkeyPatch, owner: Any, name: str, number: int) -> None:
    """Let the call of this number raise "No space left on device"."""
    real, calls = getattr(owner, name), itertools.count(1)

    def call(*args: Any, **options: Any) -> Any:
        if next(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args, **options)

    patched.setattr(owner, name, call)


LIMITED = """
import resource, runpy, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
stage = sys.argv[2]
del sys.argv[1:]
runpy.run_module(f"stages.{stage}", run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("stage", "fits", "fails"),
    [
        pytest.param("download", None, "data/corpus/validation.parquet", marks=pytest.mark.slow),
        ("tokenize", None, "data/tokenizer/tokenizer.json"),
        ("train", "data/training/train.tsv", None),  # a save
        ("train", "data/training/train.tsv", "data/training/last.safetensors"),
        pytest.param(
            "evaluate", "data/evaluation/metrics.json", "data/evaluation/figures/loss.png", marks=pytest.mark.slow
        ),
        pytest.param("sample", None, "data/samples/samples.jsonl", marks=pytest.mark.slow),
    ],
)
def test_a_full_disk_is_told_in_a_sentence_and_spoils_nothing(
    project: Project, stage: str, fits: str | None, fails: str | None
) -> None:
    """No file may grow beyond a limit, under which `fits` fits, and `fails` (or a save) does not."""
    project.set("runtime", checkpoint_every=1000 if fails else 3)
    before = project.results()
    limit = len(before[fails]) - 1 if fails else len(before["data/training/last.safetensors"]) // 2
    assert fits is None or len(before[fits]) <= limit
    printed = project.run(sys.executable, "-c", LIMITED, str(limit), stage, code=1)
    assert f"{stage}: The disk is full" in printed
    assert "Finished results are intact" in printed
    assert "Traceback" not in printed
    assert project.results() == before
    assert not list(project.folder.rglob("*.partial"))
    project.run(sys.executable, "-m", f"stages.{stage}")
    assert project.results() == before

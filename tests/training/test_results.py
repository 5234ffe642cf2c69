"""The seconds of a run go on counting when it is stopped, lie where dvc.lock leads to, and touch no output."""

import hashlib
from pathlib import Path

import pytest

from tests.project import Project
from tinygpt.training.results import Clock, seconds_of_curve


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock shows."""
    found = [100.0]
    monkeypatch.setattr("time.perf_counter", lambda: found[0])
    return found


def test_a_run_that_was_stopped_goes_on_counting_and_steps_taken_again_count_once(here: Path, now: list[float]) -> None:
    clock = Clock(here / "times.tsv", 0)
    for step, reading in ((2, 105.0), (4, 110.0), (6, 125.0)):
        now[0] = reading
        clock.note(step)
    now[0] = 1000.0  # killed, and started again from what was saved after step 4
    clock = Clock(here / "times.tsv", 4)
    now[0] = 1002.0
    clock.note(6)
    curve = here / "train.tsv"
    curve.write_text("step\tloss\n1\t5\n")
    clock.keep(curve)
    assert seconds_of_curve(hashlib.md5(curve.read_bytes()).hexdigest()) == {2: 5.0, 4: 10.0, 6: 12.0}
    assert seconds_of_curve("0" * 32) == {}


def test_the_pipeline_keeps_the_seconds_of_the_curve_that_dvc_lock_names(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(project.folder)
    lock = (project.folder / "dvc.lock").read_text()
    md5 = hashlib.md5((project.folder / "data/training/train.tsv").read_bytes()).hexdigest()
    assert md5 in lock
    seconds = seconds_of_curve(md5)
    assert {10, 20} <= set(seconds)
    assert list(seconds.values()) == sorted(seconds.values())
    assert project.run("git", "status", "--porcelain") == ""

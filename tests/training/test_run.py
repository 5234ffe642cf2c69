"""What a run says of itself, and how it takes signals."""

import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.conftest import ROOT
from tinygpt import config
from tinygpt.training.run import interruptible, report


@pytest.mark.parametrize(("steps", "left"), [(100, "0:00"), (41, "0:59"), (40.4, "1:00"), (40, "1:00"), (0, "1:40")])
def test_time_left_never_shows_sixty_seconds(steps: float, left: str) -> None:
    params = config.load(ROOT / "params.yaml")
    settings = params.train.model_copy(update={"steps": 100})
    state = SimpleNamespace(
        step=steps,
        train_rows=[{"loss": 1.0}],
        validation_rows=[{"loss": 1.0}],
        model=SimpleNamespace(config=SimpleNamespace(context_length=128)),
    )
    assert report(cast(Any, state), settings, speed=1.0).endswith(f"{left} left")


def test_a_terminal_that_closes_asks_for_a_stop_and_does_not_kill() -> None:
    with interruptible() as interrupted:
        signal.raise_signal(signal.SIGHUP)  # by the shell
        signal.raise_signal(signal.SIGHUP)  # by the system
        assert interrupted() == signal.SIGHUP
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_DFL


def test_under_nohup_a_closed_terminal_stops_nothing() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interruptible() as interrupted:
            signal.raise_signal(signal.SIGHUP)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGHUP, before)

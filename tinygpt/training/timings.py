"""How long a run has taken, kept in .tinygpt/times: outside all that DVC tracks, so that timings enter no output.

`clock = Clock(file, step)`; `clock.note(step)` while it trains; `clock.keep(curve)` at the end files the seconds under
the MD5 of the run's train.tsv, by which dvc.lock names that curve, too, and `of_curve(md5)` finds them, where the run
was made on this machine. A run that was stopped goes on counting; steps that were lost and taken again count once.
"""

import hashlib
import time
from pathlib import Path

from tinygpt.files.paths import hidden
from tinygpt.files.text import write_text


class Clock:
    """Seconds since training began, by step; `file` is where they outlive a run that is stopped."""

    def __init__(self, file: Path, step: int) -> None:
        self.file = file
        self.seconds = {at: value for at, value in _read(file).items() if at <= step}
        self._begin = time.perf_counter() - max(self.seconds.values(), default=0.0)

    def note(self, step: int) -> None:
        """So many steps have been taken."""
        self.seconds[step] = time.perf_counter() - self._begin
        write_text(self.file, _written(self.seconds))

    def keep(self, curve: Path) -> None:
        """File the seconds for good, under the curve that they belong to."""
        write_text(_place(hashlib.md5(curve.read_bytes(), usedforsecurity=False).hexdigest()), _written(self.seconds))


def of_curve(md5: str) -> dict[int, float]:
    """Step → seconds of the run whose train.tsv has this MD5; empty where this machine has not made it."""
    return _read(_place(md5))


def _place(md5: str) -> Path:
    return hidden("times") / f"{md5}.tsv"


def _read(file: Path) -> dict[int, float]:
    if not file.is_file():
        return {}
    rows = (line.split("\t") for line in file.read_text(encoding="utf-8").splitlines()[1:])
    return {int(step): float(seconds) for step, seconds in rows}


def _written(seconds: dict[int, float]) -> str:
    return "step\tseconds\n" + "".join(f"{step}\t{value:.3f}\n" for step, value in sorted(seconds.items()))

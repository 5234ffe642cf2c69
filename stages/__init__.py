"""The five scripts of the pipeline, in order: download, tokenize, train, evaluate, sample.

Each is run by `dvc repro`, or by hand as `python -m stages.train [folder]`, where folder holds another pipeline's
params.yaml. Here is what they share: parameters checked before any work, problems told as sentences, progress bars.
"""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from tqdm import tqdm

from tinygpt import config, streams
from tinygpt.files import Paths, explain

Stage = Callable[[config.Params, Paths], None]


def run(stage: Stage) -> None:
    """Run a stage on the pipeline that the command line names; leave with a sentence and code 1 where it cannot."""
    paths = Paths(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    try:
        with streams.prepared(ignore_write_errors=True):
            stage(config.load(paths.params), paths)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        text = explain(problem)
        if text is None:
            raise  # not foreseen: whoever mends it wants the traceback
        sys.exit(f"\n{Path(sys.argv[0]).stem}: {text}")


def progress(total: float | None, unit: str, what: str, show: bool) -> "tqdm[Any]":
    """A progress bar with the time left; only in a terminal."""
    scale = total is None or total >= 1000  # 1.2M, but 7 and not 7.00
    return tqdm(total=total, unit=unit, unit_scale=scale, desc=what, disable=None if show else True, leave=False)


def thousands(number: float) -> str:
    """5300000 → 5.3M, for people."""
    rounded = float(f"{number:.3g}")
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{rounded / size:.3g}{letter}"
    return f"{rounded:.3g}"


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Turn Ctrl-C, SIGTERM and a closed terminal into a question, asked when it suits: the signal's number, or 0.

    A second Ctrl-C or SIGTERM kills. Where SIGHUP is ignored, as nohup asks for, it stays so.
    """
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hangup = getattr(signal, "SIGHUP", None)  # of a closed terminal; Windows has none
    if hangup and signal.getsignal(hangup) != signal.SIG_IGN:
        before[hangup] = signal.getsignal(hangup)

    def note(number: int, _: FrameType | None) -> None:
        caught.append(number)
        if number != hangup:  # the shell and the system both send it
            signal.signal(number, signal.SIG_DFL)

    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: caught[0] if caught else 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

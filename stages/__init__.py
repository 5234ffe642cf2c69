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

from tinygpt import config, console
from tinygpt.errors import explain
from tinygpt.files.paths import Paths

Stage = Callable[[config.Params, Paths], None]


def run(stage: Stage) -> None:
    """Run a stage on the pipeline that the command line names; leave with a sentence and code 1 where it cannot."""
    paths = Paths(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    try:
        with console.prepared(ignore_write_errors=True):
            stage(config.load(paths.params), paths)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        text = explain(problem)
        if text is None:
            raise  # not foreseen: whoever mends it wants the traceback
        sys.exit(f"\n{Path(sys.argv[0]).stem}: {text}")


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

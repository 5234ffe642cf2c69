"""Ctrl-C and its like, turned into a question: `with interruptible() as interrupted:`, then `interrupted()`."""

import contextlib
import signal
from collections.abc import Callable, Iterator
from types import FrameType


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

"""Terminal input and output: robust standard streams, progress bars, prompts and number formats.

`with prepared():` around a command, `with prepared(ignore_write_errors=True):` around what writes its results into
files: printing then never fails for an encoding, and never costs a stage its work. A character that the encoding lacks
(ASCII, cp1252, gbk; half a character in UTF-8) is printed as its escape, \\u2014. A stream that was closed leads
nowhere. `progress`, `working` and `ticking` show what takes its time.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from tqdm import tqdm

Item = TypeVar("Item")
BROKEN_PIPE = 128 + 13  # the exit status that shells give a process that SIGPIPE ends


@contextlib.contextmanager
def prepared(ignore_write_errors: bool = False) -> Iterator[None]:
    """Prepare the standard streams, for good; at the end of the block all that was printed is written.

    Where it cannot be written: a reader that has left (`| head -1`) ends the process without a word, with BROKEN_PIPE,
    anything else is an OSError; or, if the work goes on, the rest is dropped.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):  # in the order of their descriptors
        stream = getattr(sys, name)
        if stream is None:  # it was closed; else the next file that is opened would take its descriptor
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8", errors="backslashreplace"))  # noqa: PTH123, SIM115
        elif mode == "w" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
            if stream is getattr(sys, f"__{name}__"):  # no stand-in, such as a test's
                setattr(sys, name, _tolerant(stream, ignore_write_errors or name == "stderr"))
    try:
        yield
    finally:
        sys.stdout.flush()


class TolerantOutput(io.FileIO):
    """The file descriptor of a stream; after a write that failed it takes all that comes, and drops it."""

    def __init__(self, descriptor: int, ignore_write_errors: bool) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.ignore_write_errors, self.lost = ignore_write_errors, False

    def write(self, data: Any) -> int:
        if self.lost:
            return len(data)
        try:
            return super().write(data)
        except OSError as problem:
            self.lost = True
            if self.ignore_write_errors:
                return len(data)
            if isinstance(problem, BrokenPipeError):
                sys.exit(BROKEN_PIPE)
            raise


def ignore_write_errors() -> None:
    """From now on drop what standard output does not take: a command whose results go into files asks for that."""
    raw = getattr(sys.stdout.buffer, "raw", sys.stdout.buffer)
    if isinstance(raw, TolerantOutput):
        raw.ignore_write_errors = True


def _tolerant(stream: io.TextIOWrapper, ignore_write_errors: bool) -> io.TextIOWrapper:
    """The same stream over a TolerantOutput; as it is where it writes to no file descriptor (a console of Windows)."""
    raw = getattr(stream.buffer, "raw", stream.buffer)
    if not isinstance(raw, io.FileIO):
        return stream
    stream.flush()
    output = TolerantOutput(raw.fileno(), ignore_write_errors)
    return io.TextIOWrapper(
        output if stream.write_through else io.BufferedWriter(output),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def json_line(value: Any) -> str:
    """A value as a line of JSON that standard output can say: Python's escapes would be no JSON."""
    return json.dumps(value, ensure_ascii=sys.stdout.encoding.lower() not in ("utf-8", "utf8"))


def typed(text: str) -> str:
    """A text as people type it in a shell: \\n is a new line, - stands for standard input."""
    if text != "-":
        return text.replace("\\n", "\n")
    try:
        given = sys.stdin.buffer.read().decode("utf-8")  # whatever this machine's own encoding is
    except UnicodeDecodeError as problem:
        raise ValueError(
            f"Standard input is not UTF-8 text (byte {problem.start}). Convert it first, for instance with "
            "`iconv -f latin1 -t utf-8`."
        ) from None
    return given.replace("\r\n", "\n")


def working(what: str, total: float | None = None, unit: str = "", shape: str = "{desc} …") -> "tqdm[Any]":
    """Say what takes its time, on standard error and only in a terminal, and leave no trace of it.

    With a `total` a bar with the time left; without one a line alone, of this shape, where nothing can be counted.
    """
    from tqdm import tqdm

    form, scale = None if total else shape, bool(total and total >= 1000)
    return tqdm(total=total, unit=unit, unit_scale=scale, desc=what, bar_format=form, disable=None, leave=False)


@contextlib.contextmanager
def ticking(what: str) -> "Iterator[tqdm[Any]]":
    """The same for what takes minutes and tells nothing before it ends: with the seconds, which go on by themselves."""
    from threading import Event, Thread

    done = Event()

    def tick() -> None:
        while not done.wait(1):
            bar.refresh()

    with working(what, shape="{desc} … {elapsed}") as bar:
        ticker = Thread(target=tick, daemon=True)
        if not bar.disable:
            ticker.start()
        try:
            yield bar
        finally:
            done.set()
            if not bar.disable:
                ticker.join()


def above(bar: "tqdm[Any]", text: str) -> None:
    """Print a line on standard output while a bar stands; it moves below the line."""
    with bar.external_write_mode():
        print(text, flush=True)


def wants_colour(stream: TextIO) -> bool:
    """Whether this stream is a terminal, and nobody has asked for no colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def styled(stream: TextIO) -> "Console":
    """A stream on which rich prints text as it stands, with colours and faint or bold only where they are wanted.

    rich itself drops colours alone where NO_COLOR is set.
    """
    from rich.console import Console

    system: Any = "auto" if wants_colour(stream) else None
    return Console(file=stream, color_system=system, markup=False, emoji=False, highlight=False)


def progress(total: float | None, unit: str, what: str, show: bool) -> "tqdm[Any]":
    """A progress bar with the time left; only in a terminal."""
    from tqdm import tqdm

    scale = total is None or total >= 1000  # 1.2M, but 7 and not 7.00
    return tqdm(total=total, unit=unit, unit_scale=scale, desc=what, disable=None if show else True, leave=False)


def thousands(number: float) -> str:
    """5300000 → 5.3M, for people."""
    rounded = float(f"{number:.3g}")
    for size, letter in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{rounded / size:.3g}{letter}"
    return f"{rounded:.3g}"


def duration(seconds: float) -> str:
    """For people: seconds up to a minute and a half, then minutes."""
    whole = max(1, round(seconds))
    return f"{whole} second{'s' * (whole > 1)}" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def counted(items: Iterable[Item], advance: Callable[[Item], object]) -> Iterator[Item]:
    """The items; `advance` hears each once the next is asked for, when the work on it is done."""
    for item in items:
        yield item
        advance(item)

"""Standard streams on which printing never fails for an encoding, and never costs a stage its work.

`with streams.prepared():` around a command, `with streams.prepared(ignore_write_errors=True):` around what writes its
results into files. A character that the encoding lacks (ASCII, cp1252, gbk; half a character in UTF-8) is printed as
its escape, \\u2014. A stream that was closed leads nowhere.
"""

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from typing import Any

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

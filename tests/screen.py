"""A pseudo-terminal of 24 lines and 80 columns, in which tests run a command as people do."""

import codecs
import errno
import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.conftest import ROOT

LAST_SPACE = "\x08\x1b[2C"  # how prompt_toolkit writes the space at the end of a prompt
STEERING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
CTRL_C, CTRL_D = "\x03", "\x04"


class Screen:
    """`with Screen(command) as screen`: type into it, wait for what appears; killed at the end if it still runs."""

    def __init__(self, *command: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> None:
        self.raw = ""  # all that appeared
        self.seen = 0  # how much of its text was waited for
        self.command, self.cwd = command, cwd
        self.env = (
            os.environ
            | {"PYTHONPATH": str(cwd if (cwd / "tinygpt").is_dir() else ROOT), "TERM": "xterm"}
            | {"PROMPT_TOOLKIT_NO_CPR": "1"}  # nobody here answers where the cursor stands
            | (env or {})
        )
        if "NO_COLOR" not in (env or {}):
            self.env.pop("NO_COLOR", None)

    def __enter__(self) -> Self:
        self.pid, self.terminal = pty.fork()
        if self.pid == 0:
            signal.signal(
                signal.SIGINT, signal.SIG_DFL
            )  # as a terminal has it; a test run in the background ignores it
            os.chdir(self.cwd)
            os.execvpe(self.command[0], self.command, self.env)
        fcntl.ioctl(self.terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
        self.status: int | None = None
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a read may end within a character
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        os.close(self.terminal)
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)

    def type(self, text: str) -> None:
        os.write(self.terminal, text.encode())

    def wait_for(self, text: str, seconds: float = 120) -> str:
        """What appeared since the last wait, up to and with `text`; without escape sequences."""
        until = time.monotonic() + seconds
        while text not in (new := self.text[self.seen :]):
            assert self._more(until - time.monotonic()), f"{text!r} did not appear, but {new!r}"
        place = new.index(text) + len(text)
        self.seen += place
        return new[:place]

    def press(self, key: str, text: str) -> str:
        """Press a key, again if need be, until `text` appears: a Ctrl-C that comes just before readline begins to wait
        is seen at the next key only (CPython looks for signals when the wait ends).
        """
        for _ in range(39):
            self.type(key)
            try:
                return self.wait_for(text, seconds=3)
            except AssertionError:
                continue
        self.type(key)
        return self.wait_for(text)

    def end(self, seconds: float = 120) -> tuple[int, str]:
        """Wait until the program has left: (its exit status, all that appeared since the last wait)."""
        until = time.monotonic() + seconds
        while self._more(until - time.monotonic()):
            pass
        self.status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.status, self.text[self.seen :]

    @property
    def text(self) -> str:
        """All that appeared, without escape sequences."""
        return STEERING.sub("", self.raw.replace(LAST_SPACE, " ")).replace("\r", "")

    def _more(self, seconds: float) -> bool:
        """Take what appears next; False where the program has closed the terminal."""
        ready, _, _ = select.select([self.terminal], [], [], max(0.0, seconds))
        assert ready, f"nothing appeared any more; all there is: {self.raw[-2000:]!r}"
        try:
            data = os.read(self.terminal, 65536)
        except OSError as problem:
            if problem.errno != errno.EIO:
                raise
            return False
        self.raw += self.decoder.decode(data)
        return bool(data)


def tinygpt(*words: str, **env: str) -> Screen:
    """The project's command in a terminal."""
    return Screen(sys.executable, "-m", "tinygpt", *words, env=env)

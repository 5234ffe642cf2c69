"""Writing whole or not at all: `with writing(path) as partial:`, make a file or folder there, and it becomes `path`."""

import contextlib
import errno
import glob
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psutil


@contextlib.contextmanager
def writing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`, which becomes `path` when the block ends without an error.

    The block makes a file or a folder there. It is flushed to the disk before it is renamed, and replaces what
    was at `path`; after an error it is removed and `path` is as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        middle = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if middle.isdecimal() and (int(middle) == os.getpid() or not psutil.pid_exists(int(middle))):
            _remove(left)  # by a process that was killed
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        for file in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            _flush(file)
        if partial.is_dir() and (path.is_dir() or path.is_symlink()):  # a file in a folder's place: IsADirectoryError
            _remove(path)  # a folder, or a link to one, cannot be replaced in one move
        partial.replace(path)
        _flush(path.parent)
    finally:
        _remove(partial)


def _flush(path: Path) -> None:
    """Ask the system to put a file or folder on the disk itself, so that a rename never outruns its content."""
    with contextlib.suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:  # some shares (CIFS, VirtualBox) flush no folders
            if problem.errno != errno.EINVAL or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

"""Atomic writes: inside `with writing(path) as partial:`, create a file or folder at `partial`; it becomes `path`."""

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
    """A temporary path next to `path`, renamed to `path` if the block ends without an error.

    The block creates a file or a folder there. It is flushed to disk before the rename, and replaces what is at
    `path`. After an error it is removed and `path` is unchanged.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        middle = left.name.removeprefix(f".{path.name}.").removesuffix(".partial")
        if middle.isdecimal() and (int(middle) == os.getpid() or not psutil.pid_exists(int(middle))):
            _remove(left)  # left by a killed process
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        yield partial
        for file in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            _flush(file)
        if partial.is_dir() and (path.is_dir() or path.is_symlink()):  # a file over a folder stays an IsADirectoryError
            _remove(path)  # a rename cannot replace a folder, or a link to one
        partial.replace(path)
        _flush(path.parent)
    finally:
        _remove(partial)


def _flush(path: Path) -> None:
    """Sync a file or folder to disk, so that the rename does not happen before its content is written."""
    with contextlib.suppress(PermissionError):  # Windows cannot open folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as problem:  # some network file systems (CIFS, VirtualBox) cannot sync folders
            if problem.errno != errno.EINVAL or not path.is_dir():
                raise
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

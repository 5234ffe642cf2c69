"""Compile loops with numba, and keep what was compiled on the disk.

`@entry` is for functions that Python calls, `@helper` for those that they call. Numba's own cache is tied to a file's
path and time. Here its folder is named by the code's content, in the user's cache (or in .tinygpt, where that cannot be
written), so temporary copies, queued runs and fresh clones share it. Numba adds the processor, its own version and
Python's.
"""

import hashlib
import os
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

os.environ.setdefault(
    "NUMBA_DISABLE_ERROR_MESSAGE_HIGHLIGHTING", "1"
)  # else it writes to the terminal when Python ends

import numba
from llvmlite import ir
from numba.core.caching import CompileResultCacheImpl, FunctionCache
from numba.extending import intrinsic

from tinygpt.files.paths import hidden

# Sums may be reordered, so that they use vector instructions; NaN and infinity stay what they are.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def helper(function: Any) -> Any:
    """Compile a function that only compiled functions call."""
    # A division that checks for zero, as Python's does, could not be vectorized
    return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)


def entry(function: Any) -> Any:
    """Compile a function at its first call, or load what was compiled before."""
    dispatcher = helper(function)
    if cache_folder(Path(function.__code__.co_filename)):
        dispatcher._cache = Kept(function)
    return dispatcher


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer, of which numba.carray makes an array."""

    def generate(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return numba.types.voidptr(address), generate


@cache
def cache_folder(source: Path) -> Path | None:
    """Where what is compiled of a file is kept; None where nothing can be written."""
    here = Path(__file__)
    parts = (source, here, here.with_name("vectors.py"))
    content = hashlib.sha256(b"".join(part.read_bytes() for part in parts)).hexdigest()[:16]
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tinygpt/compiled"
    for place in (user, hidden("compiled").absolute()):
        try:
            (place / content).mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place / content).close()
            return place / content
        except OSError:
            continue
    return None


def is_kept(function: Any, *arguments: Any) -> bool:
    """Whether an entry was compiled before for arguments of these types, on a processor like this one."""
    cache, signature = function._cache, tuple(function.typeof_pyval(argument) for argument in arguments)
    if not isinstance(cache, Kept):
        return bool(function.overloads)
    try:
        return cache._index_key(signature, function.targetctx.codegen()) in cache._cache_file._load_index()
    except Exception:  # as in Kept: damage
        return False


class Locator:
    """Tells numba where a function's compiled code is kept; its methods are those that numba.core.caching calls."""

    def __init__(self, function: Any, file: str) -> None:
        self._py_file, self._line = file, function.__code__.co_firstlineno
        self._folder = cache_folder(Path(file))

    @classmethod
    def from_function(cls, function: Any, file: str) -> "Locator":
        return cls(function, file)

    def get_cache_path(self) -> str:
        return str(self._folder)

    def ensure_cache_path(self) -> None:
        Path(self.get_cache_path()).mkdir(parents=True, exist_ok=True)

    def get_source_stamp(self) -> str:
        return "the folder's name says it"

    def get_disambiguator(self) -> str:
        return str(self._line)


class Kept(FunctionCache):  # type: ignore[misc]
    """Numba's cache of a function; what is damaged is compiled anew."""

    class _impl_class(CompileResultCacheImpl):  # type: ignore[misc]  # noqa: N801
        _locator_classes = (Locator,)

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except Exception:  # what unpickling damaged bytes raises can be anything
            shutil.rmtree(self.cache_path, ignore_errors=True)
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except OSError:  # a full disk; it is compiled again next time
            return

"""Text → token files: `write_tokens(rows, tokenizer, path)`.

A token file is a NumPy .npy array of ids, written as the text is read, so that a longer text takes no more memory.
<|endoftext|> stands before each document: its first token is predicted from that, and generation can begin from
nothing.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tinygpt.files.atomic import writing
from tinygpt.tokenizer.base import Tokenizer

Task = list[tuple[bool, str]]  # rows: whether a document begins there, and the text
Done = tuple[npt.NDArray[Any], int]  # its ids, and the bytes of its text
TASK_CHARACTERS = 2**18  # text that one core encodes at a time: many short rows, or one long one


def write_tokens(
    rows: Iterable[tuple[str, str]],
    tokenizer: Tokenizer,
    path: Path,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Encode rows of (document, text) into a file of ids, and return how many there are.

    Rows of one document come one after another; each is encoded by itself, so no token crosses from row to row.
    `advance` is told the bytes of text (UTF-8) done since it was last told. The file holds uint16, or uint32 for more
    than 65,535 entries, (number of tokens,). ValueError where there is no text.
    """
    dtype = np.dtype("<u2" if tokenizer.vocab_size <= 65_535 else "<u4")
    count = 0
    with writing(path) as partial, partial.open("wb") as file:
        start = _write_header(file, dtype, 0)
        for ids, size in _in_threads(lambda task: _encoded(task, tokenizer, dtype), _tasks(rows)):
            file.write(ids.data)
            count += len(ids)
            advance(size)
        if not count:
            raise ValueError(f"There is no text to make {path} of. Run `dvc repro download`.")
        file.seek(0)
        if _write_header(file, dtype, count) != start:
            raise AssertionError("NumPy made room for the final length in the header, but not enough.")
    return count


def _encoded(task: Task, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> Done:
    """The ids of a task, <|endoftext|> before each beginning, and the bytes of its text."""
    end = np.array([tokenizer.end_of_text], dtype=dtype)
    parts = []
    for begins, text in task:
        parts += [end] * begins + [tokenizer.encode_array(text).astype(dtype)]
    return np.concatenate(parts), sum(len(text.encode()) for _, text in task)


def _tasks(rows: Iterable[tuple[str, str]]) -> Iterator[Task]:
    """The rows in groups, each enough work for a core to be worth the handing over."""
    task, size, previous = [], 0, None
    for document, text in rows:
        task.append((document != previous, text))
        previous = document
        size += len(text)
        if size >= TASK_CHARACTERS:
            yield task
            task, size = [], 0
    if task:
        yield task


def _in_threads(work: Callable[[Task], Done], tasks: Iterable[Task]) -> Iterator[Done]:
    """The results of all tasks in their order, by all cores, few enough at once that memory stays constant.

    Threads do, since the tokenizers let go of Python's lock where they work.
    """
    cores = os.cpu_count() or 1
    waiting: deque[Future[Done]] = deque()
    with ThreadPoolExecutor(cores) as pool:
        for task in tasks:
            waiting.append(pool.submit(work, task))
            if len(waiting) > 2 * cores:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _write_header(file: BinaryIO, dtype: np.dtype[Any], count: int) -> int:
    """Write the .npy header of `count` ids, which NumPy pads so that any count takes as much; return its length."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()

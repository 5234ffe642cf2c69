"""Text → token files: `write_tokens(rows, tokenizer, path)`, and for conversations `write_conversations`.

A token file is a NumPy .npy array of ids, written while the text is read, so that memory does not grow with the text.
<|endoftext|> precedes each document: its first token is predicted from that, and generation can start from an empty
prompt. For conversations, a second file of equal length is the mask: 1 for each token that the assistant writes.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from tinygpt.files.atomic import writing
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Messages, answers

Task = list[tuple[bool, str]]  # rows: whether a document begins there, and the text
Done = tuple[npt.NDArray[Any], int]  # a task's ids, and the bytes of its text
TASK_CHARACTERS = 2**18  # of one task: many short rows, or one long one


def write_tokens(
    rows: Iterable[tuple[str, str]],
    tokenizer: Tokenizer,
    path: Path,
    advance: Callable[[int], object] = lambda _: None,
) -> int:
    """Encode rows of (document, text) into a file of ids, and return their number.

    Rows of a document are consecutive; each is encoded separately, so no token crosses rows. The file has shape
    (number of tokens,), uint16, or uint32 for a vocabulary above 65,535. `advance` is called with the bytes of text
    (UTF-8) of each finished task. Raises ValueError if there is no text.
    """
    dtype, count = id_type(tokenizer), 0
    with array_file(path, dtype) as append:
        for ids, size in _in_threads(lambda task: _encoded(task, tokenizer, dtype), _tasks(rows)):
            append(ids)
            count += len(ids)
            advance(size)
    return count


def write_conversations(
    conversations: Iterable[tuple[str, Messages]],
    tokenizer: Tokenizer,
    path: Path,
    mask_path: Path,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[int, int]:
    """Encode conversations (document, messages) into a file of ids and one of the mask, uint8; return the number of ids
    and of those that the assistant writes. `advance` is called with the bytes (UTF-8) of what it says.
    """
    count = counted = 0
    with array_file(path, id_type(tokenizer)) as append_ids, array_file(mask_path, np.dtype("u1")) as append_mask:
        for _, messages in conversations:
            ids, mask = tokenizer.encode_messages(messages)
            append_ids(np.array(ids))
            append_mask(np.array(mask))
            count += len(ids)
            counted += sum(mask)
            advance(sum(len(answer.encode()) + 1 for answer in answers(messages)))
    return count, counted


def id_type(tokenizer: Tokenizer) -> np.dtype[Any]:
    """The dtype of a token file."""
    return np.dtype("<u2" if tokenizer.vocab_size <= 65_535 else "<u4")


@contextmanager
def array_file(path: Path, dtype: np.dtype[Any]) -> Iterator[Callable[[npt.NDArray[Any]], None]]:
    """Write a .npy file of one dimension in parts, atomically: yields a function that appends an array, (length,).

    Raises ValueError if nothing was appended.
    """
    count = 0
    with writing(path) as partial, partial.open("wb") as file:
        start = _write_header(file, dtype, 0)

        def append(values: npt.NDArray[Any]) -> None:
            nonlocal count
            file.write(values.astype(dtype, copy=False).data)
            count += len(values)

        yield append
        if not count:
            raise ValueError(f"There is no text for {path}. Run `dvc repro download`.")
        file.seek(0)
        if _write_header(file, dtype, count) != start:
            raise AssertionError("The .npy header with the final length is longer than the space reserved for it.")


def _encoded(task: Task, tokenizer: Tokenizer, dtype: np.dtype[Any]) -> Done:
    """The ids of a task, <|endoftext|> before each document, and the bytes of its text."""
    end = np.array([tokenizer.end_of_text], dtype=dtype)
    parts = []
    for begins, text in task:
        parts += [end] * begins + [tokenizer.encode_array(text).astype(dtype)]
    return np.concatenate(parts), sum(len(text.encode()) for _, text in task)


def _tasks(rows: Iterable[tuple[str, str]]) -> Iterator[Task]:
    """The rows in groups large enough for a thread."""
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
    """The results of all tasks in order, using all cores; a bounded number in flight keeps memory constant.

    Threads suffice, because the tokenizers release the GIL.
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
    """Write the .npy header of `count` ids, which NumPy pads to the same length for any count; return its length."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": (count,)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()

"""Conversations → batches: `PackedDataset(tokens, mask, context_length, tokenizer)`; `open_examples` opens any split.

Records of a token file differ in length, so several are packed into one row of the context's length, each whole; what
is left of a row is padding. A record longer than that is cut at a turn: every part begins with the system message and a
user's turn. Where the mask is 0, the target is IGNORED, so that only the assistant's words count.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset

from tinygpt.data.dataset import Batch, Examples, TokenDataset, Tokens, open_array, open_tokens
from tinygpt.model.loss import IGNORED
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import USER

Span = tuple[int, int]  # positions in the token file: the first, and the one after the last


def open_examples(ids: Path, mask: Path, context_length: int, tokenizer: Tokenizer) -> Examples:
    """The examples of a split: windows of a text, or packed conversations if the file of a mask is there.

    Raises FileNotFoundError or ValueError for a missing or damaged file, ValueError if there is too little for a model
    of this context.
    """
    tokens = open_tokens(ids)
    if not mask.exists():
        return TokenDataset(tokens, context_length, ids.stem)
    counted = open_array(mask, (np.dtype("u1"),))
    if len(counted) != len(tokens):
        raise ValueError(f"{mask} is damaged: it does not fit {ids}. Run `dvc repro tokenize`.")
    return PackedDataset(tokens, counted, context_length, tokenizer)


class PackedDataset(Dataset[Batch]):
    """Rows of packed records, by number: `inputs, targets = dataset[row]`, int64 (T,) each.

    tokens: ids, (number of tokens,). mask: 1 where the assistant writes, (number of tokens,). Every counted token is in
    exactly one row; a turn longer than a row is cut off. ValueError if no answer fits.
    """

    def __init__(self, tokens: Tokens, mask: npt.NDArray[Any], context_length: int, tokenizer: Tokenizer) -> None:
        self.context_length, self.separator = context_length, tokenizer.end_of_text
        self._tokens, self._mask = tokens, mask
        parts = (part for record in _records(tokens, self.separator) for part in self._fitting(record, tokenizer))
        self._rows = list(packed(parts, context_length + 1))
        if not self._rows:
            raise ValueError(
                f"No answer of the conversations fits into a context of {context_length} tokens. Raise "
                "model.context_length, up to that of the base model."
            )

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, row: int) -> Batch:
        inputs, targets = self.__getitems__([range(len(self))[row]])
        return inputs[0], targets[0]

    def __getitems__(self, rows: list[int]) -> Batch:
        """A batch of rows: inputs and targets, int64 (B, T) each; targets are IGNORED where nothing counts."""
        ids = np.full((len(rows), self.context_length + 1), self.separator, dtype=np.int64)
        counted = np.zeros(ids.shape, dtype=bool)
        for i, row in enumerate(rows):
            at = np.concatenate([np.arange(*span) for span in self._rows[row]])
            ids[i, : len(at)], counted[i, : len(at)] = self._tokens[at], self._mask[at]
        targets = np.where(counted, ids, IGNORED)[:, 1:]
        return torch.from_numpy(ids[:, :-1].copy()), torch.from_numpy(targets.copy())

    @property
    def tokens(self) -> int:
        return len(self) * self.context_length

    @property
    def windows(self) -> int:
        return len(self)

    def epoch(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """All rows in random order: (rows,) int64."""
        return random.permutation(len(self))

    def evaluation(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """All rows in order; with a `limit`, rows of at most so many tokens, spread evenly, at least one."""
        number = len(self) if limit is None else min(len(self), max(1, limit // self.context_length))
        rows = np.arange(number) * len(self) // number
        return (self.__getitems__(rows[i : i + batch_size].tolist()) for i in range(0, number, batch_size))

    def _fitting(self, record: Span, tokenizer: Tokenizer) -> Iterator[list[Span]]:
        """A record in parts of at most T + 1 tokens with something counted: the system message, then whole turns."""
        start, end = record
        limit = self.context_length + 1
        if end - start <= limit:
            if self._mask[start:end].any():
                yield [record]
            return
        ids = self._tokens[start:end]
        users = (start + np.flatnonzero(ids == tokenizer.role_token(USER))).tolist()
        head = (start, users[0])  # <|endoftext|>, and the system message if there is one
        room = limit - (head[1] - head[0])
        first = users[0]
        for user, following in itertools.pairwise([*users, end]):
            if following - first > room:
                if user > first:
                    yield from self._part(head, (first, user))
                first = user
        yield from self._part(head, (first, min(end, first + max(0, room))))

    def _part(self, head: Span, body: Span) -> Iterator[list[Span]]:
        limit = self.context_length + 1
        body = (body[0], min(body[1], body[0] + max(0, limit - (head[1] - head[0]))))
        if self._mask[slice(*body)].any():
            yield [head, body]


def _records(tokens: Tokens, separator: int) -> Iterator[Span]:
    starts = np.flatnonzero(tokens == separator).tolist()
    return itertools.pairwise([*starts, len(tokens)])


def packed(parts: Iterator[list[Span]], size: int) -> Iterator[list[Span]]:
    """Rows of whole parts, in order; a row ends where the next part does not fit (next-fit)."""
    row: list[Span] = []
    used = 0
    for part in parts:
        length = sum(end - start for start, end in part)
        if used + length > size:
            yield row
            row, used = [], 0
        row += part
        used += length
    if row:
        yield row

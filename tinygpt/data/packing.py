"""Conversations → batches: `PackedDataset(tokens, mask, context_length, tokenizer)`; `open_examples` opens any split.

Records of a token file differ in length, so several are packed into one row, each whole; what is left of a row is
padding. A record longer than a row is cut before a user's message, and every part begins with the system message. Where
the mask is 0, the target is IGNORED, so that only the assistant's words count. scratch/chat.py is the
readable reference implementation.
"""

from collections.abc import Iterator, Sequence
from itertools import chain, pairwise
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
Part = list[Span]  # a record, or what is kept together of it


def open_examples(ids: Path, mask: Path, context_length: int, tokenizer: Tokenizer) -> Examples:
    """The examples of a split: windows of a text, or packed conversations if the file of a mask is there.

    Raises FileNotFoundError or ValueError for a missing or damaged file, the mask of conversations included;
    ValueError if there is too little for a model of this context.
    """
    tokens = open_tokens(ids)
    if not mask.exists():
        if tokenizer.has_roles and (tokens == tokenizer.role_token(USER)).any():  # no text contains it
            raise FileNotFoundError(f"{ids} holds conversations, but there is no {mask}. Run `dvc repro tokenize`.")
        return TokenDataset(tokens, context_length, ids.stem)
    counted = open_array(mask, (np.dtype("u1"),))
    if len(counted) != len(tokens):
        raise ValueError(f"{mask} is damaged: it does not fit {ids}. Run `dvc repro tokenize`.")
    return PackedDataset(tokens, counted, context_length, tokenizer)


class PackedDataset(Dataset[Batch]):
    """Rows of packed records, by number: `inputs, targets = dataset[row]`, int64 (T,) each.

    tokens: ids, (number of tokens,). mask: 1 where the assistant writes, (number of tokens,). Every counted token is in
    one row, once, except those at the end of a turn that alone is longer than a row: `left_out` is their number.
    ValueError if no answer fits.
    """

    def __init__(self, tokens: Tokens, mask: npt.NDArray[Any], context_length: int, tokenizer: Tokenizer) -> None:
        self.context_length, self.separator = context_length, tokenizer.end_of_text
        self._tokens, self._mask, self._user = tokens, mask, tokenizer.role_token(USER)
        starts = np.flatnonzero(tokens == self.separator).tolist()
        parts = [part for record in pairwise([*starts, len(tokens)]) for part in self._parts(*record)]
        groups = next_fit([_length(part) for part in parts], context_length + 1)
        self._rows = [[*chain.from_iterable(parts[group])] for group in groups]
        if not self._rows:
            raise ValueError(
                f"No answer of the conversations fits into a context of {context_length} tokens. Raise "
                "model.context_length, up to that of the base model."
            )
        spans = chain.from_iterable(self._rows)
        self.left_out = int(mask.sum()) - sum(int(mask[slice(*span)].sum()) for span in spans)

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
        inputs, targets = torch.from_numpy(ids[:, :-1].copy()), np.where(counted, ids, IGNORED)
        return inputs, torch.from_numpy(targets[:, 1:].copy())

    @property
    def tokens(self) -> int:
        """Positions in all rows, padding included."""
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

    def _parts(self, start: int, end: int) -> list[Part]:
        """The record from `start` to `end` in parts of at most T + 1 tokens, without those in which nothing counts.

        Whole if it fits; else the beginning, up to the first user's message, and as many turns as fit, again and again.
        """
        room = self.context_length + 1
        if end - start <= room:
            parts = [[(start, end)]]
        else:
            users = start + np.flatnonzero(self._tokens[start:end] == self._user)
            turns = [*users.tolist(), end]  # a turn lasts until the next one begins
            room = max(0, room - (turns[0] - start))
            groups = next_fit([after - turn for turn, after in pairwise(turns)], room)
            bodies = [(turns[group.start], turns[group.stop]) for group in groups]
            parts = [[(start, turns[0]), (first, min(after, first + room))] for first, after in bodies]
        return [part for part in parts if any(self._mask[slice(*span)].any() for span in part)]


def next_fit(lengths: Sequence[int], room: int) -> Iterator[slice]:
    """Items of these lengths in groups of neighbours: a group ends where the next item does not fit into `room`.

    An item longer than `room` is a group of its own.
    """
    first = used = 0
    for number, length in enumerate(lengths):
        if number > first and used + length > room:
            yield slice(first, number)
            first, used = number, 0
        used += length
    if lengths:
        yield slice(first, len(lengths))


def _length(part: Part) -> int:
    return sum(end - start for start, end in part)

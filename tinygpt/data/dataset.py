"""Token files → batches: `training_batches(TokenDataset(open_tokens(path), T), …)`, `evaluation_windows(…)`.

A token file is a NumPy .npy array of ids (written by encode.py), opened memory-mapped, so that memory does not grow
with the text. The windows of a training step depend only on (seed, step), so a resumed run continues with the same
batches. Conversations are packed instead (packing.py). Left out: shuffling of documents, worker processes (indexing a
mapped file takes microseconds).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]  # (number of tokens,)
Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, each (B, T) int64


def open_tokens(path: Path) -> Tokens:
    """The ids of a token file: (number of tokens,) uint16 or uint32, memory-mapped and read-only.

    Raises FileNotFoundError if there is none, ValueError if it is damaged.
    """
    return open_array(path, (np.dtype(np.uint16), np.dtype(np.uint32)))


def open_array(path: Path, dtypes: tuple[np.dtype[Any], ...]) -> npt.NDArray[Any]:
    """A .npy file of one dimension, (length,), and one of these dtypes, memory-mapped and read-only.

    Raises FileNotFoundError if there is none, ValueError if it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No tokens at {path}. Run `dvc repro tokenize`.")
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = tokens.offset + tokens.nbytes == path.stat().st_size
    except (AttributeError, EOFError, OSError, ValueError) as problem:
        raise ValueError(f"{path} is damaged: it is not a token file. Run `dvc repro tokenize`.") from problem
    if tokens.ndim != 1 or tokens.dtype not in dtypes or not whole:
        raise ValueError(f"{path} is damaged: {tokens.dtype} of shape {tokens.shape}. Run `dvc repro tokenize`.")
    return np.asarray(tokens)


class Examples(Protocol):
    """What a run trains on or is evaluated on: a TokenDataset, or a PackedDataset of conversations (packing.py)."""

    @property
    def separator(self) -> int | None:
        """The id that begins a document, if documents are evaluated apart from each other."""

    @property
    def left_out(self) -> int:
        """The number of tokens that ought to count, but fit into no example."""

    @property
    def tokens(self) -> int:
        """The number of tokens in an epoch."""

    @property
    def windows(self) -> int:
        """The number of examples in an epoch."""

    def epoch(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """The examples of an epoch in the order visited, as `__getitems__` takes them: (windows,)."""

    def evaluation(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """Batches, (B, T) each, in which each token is predicted once; with a `limit`, about so many, spread evenly."""

    def __getitems__(self, examples: list[int]) -> Batch:
        """A batch: inputs and targets, int64 (B, T) each."""


class TokenDataset(Dataset[Batch]):
    """Every window of `context_length` (T) tokens, by its first position: `inputs, targets = dataset[start]`.

    Targets are the inputs shifted by one; both int64 (T,). DataLoader requests a whole batch through `__getitems__`.
    Raises ValueError for a text too short for one window, IndexError for a position past the end.
    """

    def __init__(self, tokens: Tokens, context_length: int, split: str = "train") -> None:
        if len(tokens) <= context_length:
            raise ValueError(
                f"The {split} split has {len(tokens)} tokens; a model.context_length of {context_length} needs at "
                f"least {context_length + 1}. Set model.context_length lower or add text; for the validation split, a "
                "larger download.validation_fraction helps too."
            )
        self.context_length, self.separator, self.left_out = context_length, None, 0
        self._tokens = tokens
        self._window = np.arange(context_length + 1)

    def __len__(self) -> int:
        return len(self._tokens) - self.context_length

    def __getitem__(self, start: int) -> Batch:
        """One window: inputs and targets, each (T,) int64."""
        inputs, targets = self.__getitems__([range(len(self))[start]])  # raises IndexError past the end
        return inputs[0], targets[0]

    def __getitems__(self, starts: list[int]) -> Batch:
        """A batch of windows: inputs and targets, each (B, T) int64."""
        positions = np.array(starts, dtype=np.int64)[:, None] + self._window  # (B, T + 1)
        windows = torch.from_numpy(self._tokens[positions].astype(np.int64))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()

    @property
    def tokens(self) -> int:
        return len(self._tokens)

    @property
    def windows(self) -> int:
        """The number of windows in an epoch, for any offset."""
        return max(1, len(self) // self.context_length)

    def epoch(self, random: np.random.Generator) -> npt.NDArray[np.int64]:
        """Adjacent windows from a random offset in [0, T), in random order: (windows,) int64."""
        offset = random.integers(min(self.context_length, len(self)))  # below T in a short text
        return np.asarray(offset + self.context_length * random.permutation(self.windows))

    def evaluation(self, batch_size: int, limit: int | None = None) -> Iterator[Batch]:
        """`evaluation_windows` of the text."""
        return evaluation_windows(self._tokens, self.context_length, batch_size, limit)


class StepSampler(Sampler[list[int]]):
    """The batches of steps `start` up to `stop`, each as `batch_size` examples of the dataset.

    An epoch visits each example once, in an order that depends on (seed, epoch). An epoch may begin in the middle of a
    batch, so no batch is short. `batch_size` counts the sequences of one optimizer step, over all accumulated passes;
    `shard` is one process's part of it.
    """

    def __init__(
        self, dataset: Examples, batch_size: int, seed: int, start: int, stop: int, shard: slice = slice(None)
    ) -> None:
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._steps, self._shard = range(start, stop), shard
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))  # the last one computed

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batch(step)[self._shard] for step in self._steps)

    def batch(self, step: int) -> list[int]:
        """The examples of a step; depends on (seed, step) only."""
        first = step * self._batch_size
        indices = [divmod(index, self._dataset.windows) for index in range(first, first + self._batch_size)]
        return [int(self._order(epoch)[index]) for epoch, index in indices]

    def _order(self, epoch: int) -> npt.NDArray[np.int64]:
        """The examples of an epoch, in the order visited: (windows,) int64."""
        if self._epoch[0] != epoch:
            self._epoch = (epoch, self._dataset.epoch(np.random.default_rng([self._seed, epoch])))
        return self._epoch[1]


def training_batches(
    dataset: Examples,
    batch_size: int,
    *,
    seed: int,
    start: int,
    stop: int,
    shard: slice = slice(None),
    pin: bool = False,
) -> DataLoader[Any]:
    """A DataLoader of the batches (inputs, targets) of steps `start` up to `stop`, each (batch_size, T) int64.

    shard: one process's part of each batch. pin: use page-locked memory, which allows asynchronous copies to a GPU.
    """
    return DataLoader(
        dataset,  # type: ignore[arg-type]  # a protocol
        batch_sampler=StepSampler(dataset, batch_size, seed, start, stop, shard),
        collate_fn=_unchanged,
        pin_memory=pin,
        generator=torch.Generator(),  # otherwise each iteration would advance PyTorch's global generator
    )


def evaluation_windows(
    tokens: Tokens, context_length: int, batch_size: int, limit: int | None = None
) -> Iterator[Batch]:
    """Adjacent windows in order, in batches of (inputs, targets), each (up to batch_size, up to T) int64.

    Every token except the first is predicted once; the rest at the end is a shorter window in its own batch. With a
    `limit`, at most so many tokens are predicted, in at least one whole window, spread evenly over the text. Raises
    ValueError for fewer than two tokens.
    """
    windows, rest = divmod(max(0, len(tokens) - 1), context_length)
    chosen = np.arange(windows)
    if limit is not None and limit < len(tokens) - 1 and windows:
        number = min(windows, max(1, limit // context_length))
        chosen, rest = np.arange(number) * windows // number, 0
    for batch in range(0, len(chosen), batch_size):
        starts = chosen[batch : batch + batch_size] * context_length
        yield TokenDataset(tokens, context_length).__getitems__(starts.tolist())
    if rest or not windows:
        yield TokenDataset(tokens, max(1, rest)).__getitems__([windows * context_length])


def _unchanged(batch: Any) -> Any:
    return batch  # __getitems__ already returns a batch

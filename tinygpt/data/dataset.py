"""Token files → batches: `training_batches(open_tokens(path), …)`, `evaluation_windows(…)`.

A token file is a NumPy .npy array of ids (encode.py writes it), opened memory-mapped, so that reading takes no more
memory for a longer text. Which windows a training step sees is a pure function of (seed, step), so a run that was
stopped goes on with the very batch it would have seen. Left out: shuffling of documents, packing, worker processes
(indexing a mapped file takes microseconds).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Tokens = npt.NDArray[np.uint16] | npt.NDArray[np.uint32]  # (number of tokens,)
Batch = tuple[torch.Tensor, torch.Tensor]  # inputs and targets, each (B, T) int64


def open_tokens(path: Path) -> Tokens:
    """The ids of a token file: (number of tokens,) uint16 or uint32, memory-mapped and read-only.

    Raises FileNotFoundError where there is none, ValueError where it is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"No tokens at {path}. Run `dvc repro tokenize`.")
    try:
        tokens = np.load(path, mmap_mode="r", allow_pickle=False)
        whole = tokens.offset + tokens.nbytes == path.stat().st_size
    except (AttributeError, EOFError, OSError, ValueError) as problem:
        raise ValueError(f"{path} is damaged: it is not a token file. Run `dvc repro tokenize`.") from problem
    if tokens.ndim != 1 or tokens.dtype not in (np.uint16, np.uint32) or not whole:
        raise ValueError(f"{path} is damaged: {tokens.dtype} of shape {tokens.shape}. Run `dvc repro tokenize`.")
    return np.asarray(tokens)


class TokenDataset(Dataset[Batch]):
    """Every window of `context_length` (T) tokens, by the place of its first: `inputs, targets = dataset[start]`.

    Targets are the inputs shifted by one; both int64 (T,). DataLoader asks for a whole batch at once, through
    `__getitems__`. ValueError, in a sentence, for a text too short for one window; IndexError for a place past the end.
    """

    def __init__(self, tokens: Tokens, context_length: int, split: str = "train") -> None:
        if len(tokens) <= context_length:
            raise ValueError(
                f"The {split} split has {len(tokens)} tokens; a model.context_length of {context_length} needs at "
                f"least {context_length + 1}. Set model.context_length lower or add text; for the validation split, a "
                "larger download.validation_fraction helps too."
            )
        self.context_length = context_length
        self._tokens = tokens
        self._window = np.arange(context_length + 1)

    def __len__(self) -> int:
        return len(self._tokens) - self.context_length

    def __getitem__(self, start: int) -> Batch:
        """One window: inputs and targets, each (T,) int64."""
        inputs, targets = self.__getitems__([range(len(self))[start]])  # range refuses a start past the end
        return inputs[0], targets[0]

    def __getitems__(self, starts: list[int]) -> Batch:
        """A batch of windows: inputs and targets, each (B, T) int64."""
        places = np.array(starts, dtype=np.int64)[:, None] + self._window  # (B, T + 1)
        windows = torch.from_numpy(self._tokens[places].astype(np.int64))
        return windows[:, :-1].contiguous(), windows[:, 1:].contiguous()


class StepSampler(Sampler[list[int]]):
    """The batches of steps `start` up to `stop`, each as the places where its `batch_size` windows begin.

    An epoch lays windows side by side, from a random place in [0, T), and visits each once, in random order; both
    come from (seed, epoch). The next epoch begins in the middle of a batch if need be, so no batch is short.
    `batch_size` counts the sequences of one whole step, all its accumulated parts together; `shard` is what one of
    several processes takes of it.
    """

    def __init__(
        self, dataset: TokenDataset, batch_size: int, seed: int, start: int, stop: int, shard: slice = slice(None)
    ) -> None:
        self.windows = max(1, len(dataset) // dataset.context_length)  # in an epoch, wherever it begins
        self._dataset, self._batch_size, self._seed = dataset, batch_size, seed
        self._steps, self._shard = range(start, stop), shard
        self._epoch: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, dtype=np.int64))  # the last one asked for

    def __len__(self) -> int:
        return len(self._steps)

    def __iter__(self) -> Iterator[list[int]]:
        return (self.batch(step)[self._shard] for step in self._steps)

    def batch(self, step: int) -> list[int]:
        """Where all windows of a step begin: a function of (seed, step) alone."""
        first = step * self._batch_size
        turns = [divmod(turn, self.windows) for turn in range(first, first + self._batch_size)]
        return [int(self._places(epoch)[turn]) for epoch, turn in turns]

    def _places(self, epoch: int) -> npt.NDArray[np.int64]:
        """Where each window of an epoch begins, in the order of their turns: (windows,) int64."""
        if self._epoch[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            step = self._dataset.context_length
            origin = random.integers(min(step, len(self._dataset)))  # less than T where the text is short
            self._epoch = (epoch, origin + step * random.permutation(self.windows))
        return self._epoch[1]


def training_batches(
    tokens: Tokens,
    context_length: int,
    batch_size: int,
    *,
    seed: int,
    start: int,
    stop: int,
    shard: slice = slice(None),
    pin: bool = False,
) -> DataLoader[Any]:
    """A DataLoader of the batches (inputs, targets) of steps `start` up to `stop`, each (batch_size, T) int64.

    ValueError where `tokens`, (number of tokens,), are too few for one window. `shard` takes a part of each batch only,
    for one of several processes. `pin` puts them in page-locked memory, from where a GPU copies them without waiting.
    """
    dataset = TokenDataset(tokens, context_length)
    return DataLoader(
        dataset,
        batch_sampler=StepSampler(dataset, batch_size, seed, start, stop, shard),
        collate_fn=_as_it_is,
        pin_memory=pin,
        generator=torch.Generator(),  # else each loop over it would draw a number from PyTorch's own
    )


def evaluation_windows(
    tokens: Tokens, context_length: int, batch_size: int, limit: int | None = None
) -> Iterator[Batch]:
    """Windows side by side, in order, in batches of (inputs, targets), each (up to batch_size, up to T) int64.

    Every token but the first is predicted once: what is left at the end comes as a shorter window by itself. With a
    `limit`, at most so many are predicted, in whole windows spread evenly over the text; but at least one window.
    ValueError for fewer than two tokens, of which none is predicted.
    """
    windows, left = divmod(max(0, len(tokens) - 1), context_length)
    chosen = np.arange(windows)
    if limit is not None and limit < len(tokens) - 1 and windows:
        number = min(windows, max(1, limit // context_length))
        chosen, left = np.arange(number) * windows // number, 0
    for batch in range(0, len(chosen), batch_size):
        places = chosen[batch : batch + batch_size] * context_length
        yield TokenDataset(tokens, context_length).__getitems__(places.tolist())
    if left or not windows:
        yield TokenDataset(tokens, max(1, left)).__getitems__([windows * context_length])


def _as_it_is(batch: Any) -> Any:
    return batch  # __getitems__ made a batch of it already

"""Baselines: seven simple predictors of the same text, in bits per byte. A good model beats them.

`measure(train, validation)` reads the two parquet files, `bits_per_byte(train, validation)` takes bytes. They go
from knowing only which bytes occur (uniform), over counts of one, two and five bytes, to compressors that learn as
they read: bz2, xz and PPMd, charged for what validation adds, (size(train + validation) − size(train)) ÷ validation.

The counts are smoothed by interpolated modified Kneser–Ney (Chen & Goodman 1998, section 3), which on Shakespeare beats
Kneser–Ney's one discount and Witten–Bell. They learn from the training text alone; the first validation bytes see the
last training bytes as their context, as the compressors do. Left out: anything that takes longer than a coffee, and
texts beyond 16 MiB a part, whose beginnings stand for them.
"""

import bz2
import lzma
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyppmd

from tinygpt.data.corpus import read_rows

NAMES = ("uniform", "unigram", "bigram", "five_gram", "bz2", "xz", "ppmd")
SAMPLE = 2**24  # bytes read of each part
PPMD_MEMORY = 2**28  # bytes it may use; more than it needs, since it forgets everything when they run out

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Table = tuple[Ints, Ints]  # n-grams packed into integers, sorted; how often each was counted


def measure(train: Path, validation: Path, advance: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
    """The baselines of two parquet files, and how many bytes they have and were measured on."""
    train_text, train_bytes = _beginning(train)
    validation_text, validation_bytes = _beginning(validation)
    return {
        "train_bytes": train_bytes,
        "validation_bytes": validation_bytes,
        "sampled_train_bytes": len(train_text),
        "sampled_validation_bytes": len(validation_text),
        "bits_per_byte": bits_per_byte(train_text, validation_text, advance),
    }


def bits_per_byte(
    train: bytes, validation: bytes, advance: Callable[[int], object] = lambda done: None
) -> dict[str, float]:
    """Bits per byte of `validation`, by name; `advance` hears 1 as each of NAMES is done."""
    if not train or not validation:
        raise ValueError("A baseline needs text to learn from and text to predict. Run `dvc repro download`.")
    found = {"uniform": float(np.log2(len(set(train + validation))))}
    advance(1)
    for name, order in (("unigram", 1), ("bigram", 2), ("five_gram", 5)):
        found[name] = ngram_bits(train, validation, order)
        advance(1)
    # After the counts and not beside them, so that the memory of both never adds up. Compressors leave Python's lock
    # free while they run; but PPMd, beside itself, takes five times as long
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as alone:
        tools = {"bz2": (_bz2, pool), "xz": (_xz, pool), "ppmd": (_ppmd, alone)}
        waits = {name: _added(compress, train, validation, workers) for name, (compress, workers) in tools.items()}
        for name, wait in waits.items():
            found[name] = wait()
            advance(1)
    return found


def ngram_bits(train: bytes, validation: bytes, order: int) -> float:
    """Bits per byte of `validation` where each byte is predicted from the order − 1 before it."""
    text = (bytes(order - 1) + train)[-(order - 1) :] + validation if order > 1 else validation
    # Equal n-grams have equal probabilities, so each is priced once
    grams, times = np.unique(pack(text, order), return_counts=True)
    return float(-(times * np.log2(ngram_probabilities(train, grams, order))).sum() / len(validation))


def ngram_probabilities(train: bytes, grams: Ints, order: int) -> Floats:
    """P(last byte | the bytes before it) of packed n-grams, shape (n,); over the 256 last bytes it sums to one.

    Each order takes a discount off its counts, and what it saved goes to the next lower order; under the lowest
    stands 1/256. An order has its own distribution for each context, or, where the context is new, the lower one.
    """
    probabilities = np.full(len(grams), 1 / 256)
    for size, table in enumerate(_tables(train, order), 1):
        probabilities = _interpolate(table, grams & (256**size - 1), probabilities)
    return probabilities


def pack(text: bytes, size: int) -> Ints:
    """Every run of `size` ≤ 7 bytes as an integer, the last byte lowest; shape (len(text) − size + 1,)."""
    values = np.frombuffer(text, np.uint8)
    packed = np.zeros(len(text) - size + 1, np.int64)
    for start in range(size):
        packed = packed << 8 | values[start : start + len(packed)]
    return packed


def _tables(train: bytes, order: int) -> list[Table]:
    """Counts for the orders 1 to `order`; zero bytes stand before the text, so that each byte ends an n-gram.

    Below the highest order, an n-gram counts as often as different bytes come before it: "Francisco" is frequent, but
    follows only "San", and says little about other contexts.
    """
    tables = [np.unique(pack(bytes(order - 1) + train, order), return_counts=True)]
    for size in range(order - 1, 0, -1):
        tables.insert(0, np.unique(tables[0][0] & (256**size - 1), return_counts=True))
    return tables


def _interpolate(table: Table, grams: Ints, lower: Floats) -> Floats:
    """(count − discount + discounts of the whole context × lower) ÷ counts of the whole context."""
    known, counts = table
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts, starts = np.unique(known >> 8, return_index=True)
    totals, saved = np.add.reduceat(counts, starts), np.add.reduceat(discounts, starts)
    gram, gram_found = _find(known, grams)
    context, context_found = _find(contexts, grams >> 8)
    kept = np.where(gram_found, (counts - discounts)[gram], 0.0)
    return np.where(context_found, (kept + saved[context] * lower) / totals[context], lower)


def _discounts(counts: Ints) -> Floats:
    """What to take off counts of 0, 1, 2, and 3 or more: Chen & Goodman's estimate from how many counts are 1 to 4."""
    ones, twos, threes, fours = (max(1, int((counts == value).sum())) for value in (1, 2, 3, 4))
    share = ones / (ones + 2 * twos)
    estimates = [0, 1 - 2 * share * twos / ones, 2 - 3 * share * threes / twos, 3 - 4 * share * fours / threes]
    # A small text can put an estimate out of range; within it, every byte keeps a chance
    return np.clip(estimates, [0, 0.1, 0.1, 0.1], [0, 0.9, 1.9, 2.9])


def _find(known: Ints, wanted: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """Where each wanted value stands in the sorted `known`, and whether it does."""
    index = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return index, known[index] == wanted


def _added(
    compress: Callable[[bytes], int], train: bytes, validation: bytes, workers: ThreadPoolExecutor
) -> Callable[[], float]:
    """Start compressing; the function handed back waits, and says the bits that each validation byte added."""
    both, alone = (workers.submit(compress, text) for text in (train + validation, train))
    return lambda: (both.result() - alone.result()) * 8 / len(validation)


def _xz(text: bytes) -> int:
    return len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME))


def _bz2(text: bytes) -> int:
    return len(bz2.compress(text, 9))


def _ppmd(text: bytes) -> int:
    encoder = pyppmd.Ppmd7Encoder(6, PPMD_MEMORY)
    return len(encoder.encode(text)) + len(encoder.flush())


def _beginning(path: Path) -> tuple[bytes, int]:
    """The first SAMPLE bytes of a parquet file's text, and how many bytes there are in all."""
    kept, total = bytearray(), 0
    for _, text in read_rows(path):
        data = text.encode()
        kept += data[: SAMPLE - len(kept)]
        total += len(data)
    return bytes(kept), total

"""Baselines: seven simple predictors of the same text, in bits per byte. A good model beats them.

`measure(train, validation)` reads two parquet files, of conversations only the answers; `bits_per_byte(train,
validation)` takes bytes. The predictors: the set of bytes that occur (uniform), n-gram counts of one, two and five
bytes, and three compressors: bz2, xz and PPMd. A compressor's score is (size(train + validation) − size(train)) ÷
validation bytes.

The n-grams use interpolated modified Kneser–Ney smoothing (Chen & Goodman 1998, section 3), which on Shakespeare beats
Kneser–Ney with one discount, and Witten–Bell. They are counted on the training text only; the first validation bytes
have the last training bytes as context. Only the first 16 MiB of each split are used. Left out: slow predictors.
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

from tinygpt.data.corpus import read_scored

NAMES = ("uniform", "unigram", "bigram", "five_gram", "bz2", "xz", "ppmd")
SAMPLE = 2**24  # bytes read of each split
PPMD_MEMORY = 2**28  # bytes; more than needed, because PPMd discards its model when they run out

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Table = tuple[Ints, Ints]  # n-grams packed into integers, sorted, and their counts


def measure(train: Path, validation: Path, advance: Callable[[int], object] = lambda done: None) -> dict[str, Any]:
    """The baselines of two parquet files, the bytes in them, and the bytes measured on."""
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
    """Bits per byte of `validation`, by name; `advance` is called with 1 after each of NAMES."""
    if not train or not validation:
        raise ValueError("A baseline needs text to learn from and text to predict. Run `dvc repro download`.")
    found = {"uniform": float(np.log2(len(set(train + validation))))}
    advance(1)
    for name, order in (("unigram", 1), ("bigram", 2), ("five_gram", 5)):
        found[name] = ngram_bits(train, validation, order)
        advance(1)
    # The compressors run after the counts, so that their peak memory does not add up. They release the GIL; but two
    # PPMd encoders at once take five times as long, so PPMd has one worker.
    with ThreadPoolExecutor(2) as pool, ThreadPoolExecutor(1) as alone:
        compressors = {"bz2": (_bz2, pool), "xz": (_xz, pool), "ppmd": (_ppmd, alone)}
        started = {name: _start(compress, train, validation, at) for name, (compress, at) in compressors.items()}
        for name, result in started.items():
            found[name] = result()
            advance(1)
    return found


def ngram_bits(train: bytes, validation: bytes, order: int) -> float:
    """Bits per byte of `validation`, each byte predicted from the `order` − 1 bytes before it."""
    text = (bytes(order - 1) + train)[-(order - 1) :] + validation if order > 1 else validation
    # Equal n-grams have equal probabilities, so each is computed once.
    grams, counts = np.unique(pack(text, order), return_counts=True)
    return float(-(counts * np.log2(ngram_probabilities(train, grams, order))).sum() / len(validation))


def ngram_probabilities(train: bytes, grams: Ints, order: int) -> Floats:
    """P(last byte | the bytes before it) of packed n-grams, shape (n,); over the 256 last bytes it sums to one.

    Each order subtracts a discount from its counts and gives the mass to the next lower order; below the lowest is
    1/256. For a context that did not occur, an order uses the lower order's distribution.
    """
    probabilities = np.full(len(grams), 1 / 256)
    for size, table in enumerate(_tables(train, order), 1):
        probabilities = _interpolate(table, grams & (256**size - 1), probabilities)
    return probabilities


def pack(text: bytes, size: int) -> Ints:
    """Every run of `size` ≤ 7 bytes as an integer, big-endian; shape (len(text) − size + 1,)."""
    values = np.frombuffer(text, np.uint8)
    packed = np.zeros(len(text) - size + 1, np.int64)
    for start in range(size):
        packed = packed << 8 | values[start : start + len(packed)]
    return packed


def _tables(train: bytes, order: int) -> list[Table]:
    """Counts for the orders 1 to `order`; the text is padded with leading zero bytes, so that each byte ends an n-gram.

    Below the highest order, the count of an n-gram is the number of different bytes before it (Kneser–Ney):
    "Francisco" is frequent but follows only "San", and is unlikely in other contexts.
    """
    tables = [np.unique(pack(bytes(order - 1) + train, order), return_counts=True)]
    for size in range(order - 1, 0, -1):
        tables.insert(0, np.unique(tables[0][0] & (256**size - 1), return_counts=True))
    return tables


def _interpolate(table: Table, grams: Ints, lower: Floats) -> Floats:
    """(count − discount + sum of the context's discounts × lower) ÷ sum of the context's counts."""
    known, counts = table
    discounts = _discounts(counts)[np.minimum(counts, 3)]
    contexts, starts = np.unique(known >> 8, return_index=True)
    totals, discounted = np.add.reduceat(counts, starts), np.add.reduceat(discounts, starts)
    gram, gram_found = _find(known, grams)
    context, context_found = _find(contexts, grams >> 8)
    rest = np.where(gram_found, (counts - discounts)[gram], 0.0)
    return np.where(context_found, (rest + discounted[context] * lower) / totals[context], lower)


def _discounts(counts: Ints) -> Floats:
    """The discounts of counts of 0, 1, 2, and 3 or more: Chen & Goodman's estimate from counts of counts."""
    ones, twos, threes, fours = (max(1, int((counts == value).sum())) for value in (1, 2, 3, 4))
    Y = ones / (ones + 2 * twos)
    estimates = [0, 1 - 2 * Y * twos / ones, 2 - 3 * Y * threes / twos, 3 - 4 * Y * fours / threes]
    # In a small text an estimate can be out of range; the bounds keep every probability positive.
    return np.clip(estimates, [0, 0.1, 0.1, 0.1], [0, 0.9, 1.9, 2.9])


def _find(known: Ints, wanted: Ints) -> tuple[Ints, npt.NDArray[np.bool_]]:
    """The index of each wanted value in the sorted `known`, and whether it is there."""
    index = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
    return index, known[index] == wanted


def _start(
    compress: Callable[[bytes], int], train: bytes, validation: bytes, workers: ThreadPoolExecutor
) -> Callable[[], float]:
    """Start compressing; the returned function waits for the bits added per validation byte."""
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
    """The first SAMPLE bytes of a parquet file's text, and its total number of bytes."""
    kept, total = bytearray(), 0
    for _, text in read_scored(path):
        data = text.encode()
        kept += data[: SAMPLE - len(kept)]
        total += len(data)
    return bytes(kept), total

"""Duplicates among texts: `near_duplicates(chunks, count)` and `copied(train, held)`.

`near_duplicates` groups documents that share much of their text, so that a split keeps them on one side; `copied`
measures the held-out text that still occurs in the training text. Both compare hashes of every run of `width`
characters, in one pass and bounded memory. Left out: paraphrases.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

COPY = 50  # characters in a copied passage, as in the GPT-4 technical report (OpenAI 2023, appendix C)
TOO_MUCH = 0.05  # fraction of the held-out text; 4% is common in published datasets (Lee et al. 2021, arXiv 2107.06499)
HELD = 2**20  # characters of the held-out text that are checked, from its beginning
SHINGLE = 24  # characters, about the five words of Lee et al.'s near-duplicates (appendix A)
ALIKE = 0.3  # fraction of the shorter document's shingles that two near-duplicates share
LEAST_SHARED = 4  # fewest shared shingles; fewer can be a common phrase
SKETCH = 2**22  # shingles kept of all documents together, or SKETCH_EACH per document if that is more
SKETCH_EACH = 8
NEIGHBOURS = 8  # documents with the same shingle that each is compared with; chains of pairs connect the others
BLOCK = 2**18  # characters hashed at a time, about
TABLE = 24  # bits of a hash that index the prefilter
MIXER = 0x9E3779B97F4A7C15  # 2⁶⁴ ÷ golden ratio: odd, no pattern (Knuth, The Art of Computer Programming 3, 6.4)

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Chunks = Iterable[tuple[int, str]]  # number of a document, and its text in consecutive chunks
Rows = Iterable[tuple[str, str]]  # document, text


def hashes(text: str, width: int) -> Hashes:
    """A hash of each run of `width` characters of a text: (N − width + 1,) uint64; empty if it is shorter.

    A polynomial of the characters modulo 2⁶⁴, computed by doubling the width: 1, 2, 4, …, `width`.
    """
    found = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    done, power = 1, MIXER
    while done < width:
        step = min(done, width - done)
        found = found[:-step] + found[step:] * np.uint64(power)
        done, power = done + step, power * power % 2**64
    return found * np.uint64(MIXER)


def near_duplicates(chunks: Chunks, count: int) -> Ints:
    """The group of each of `count` documents, (count,): the number of one of its near-duplicates, or its own."""
    runs, sums = np.zeros(count, np.int64), np.zeros(count, np.uint64)  # shingles per document, and its fingerprint
    shingles, documents = _sketches(_recorded(chunks, runs, sums), max(SKETCH, SKETCH_EACH * count))
    kept = np.bincount(documents, minlength=count)
    pairs = [
        documents[:-step][same] * count + documents[step:][same]
        for step in range(1, NEIGHBOURS + 1)
        for same in [shingles[:-step] == shingles[step:]]
    ]
    found, shared = np.unique(np.concatenate(pairs), return_counts=True)
    one, other = np.divmod(found, count)
    shorter = np.minimum(kept[one], kept[other])
    least = np.minimum(LEAST_SHARED, np.minimum(runs[one], runs[other]))  # even if the sketch kept few of them
    near = shared >= np.maximum(ALIKE * shorter, least)
    order = np.argsort(sums, kind="stable")
    same = sums[order[:-1]] == sums[order[1:]]  # exact copies, of which a sketch may hold almost nothing
    ones, others = np.append(one[near], order[:-1][same]), np.append(other[near], order[1:][same])
    return _joined(ones.tolist(), others.tolist(), count)


def copied(
    train: Rows, held: Rows, advance: Callable[[int], object] = lambda characters: None
) -> dict[str, tuple[int, int]]:
    """Held-out document → (characters in passages of COPY or more that occur in the training text, all characters).

    A document shorter than COPY counts if it is a training document, too. Only the first HELD characters are checked.
    `advance` is called with the characters of training text read.
    """
    beginning = _beginning(held)
    wanted = np.unique(np.concatenate([hashes(_padded(text, COPY), COPY) for text in beginning.values()]))
    table = np.zeros(2**TABLE, dtype=bool)
    table[wanted >> np.uint64(64 - TABLE)] = True
    seen = np.zeros(len(wanted), dtype=bool)
    for found, _ in _windows(_numbered(train), COPY):
        likely = found[table[found >> np.uint64(64 - TABLE)]]
        index = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        seen[index[wanted[index] == likely]] = True
        advance(len(found))
    return {
        name: (_covered(seen[np.searchsorted(wanted, hashes(_padded(text, COPY), COPY))], len(text)), len(text))
        for name, text in beginning.items()
    }


def verdict(copies: dict[str, tuple[int, int]]) -> str:
    """The result of `copied` in one line, with a second line of warning above TOO_MUCH."""
    total = sum(size for _, size in copies.values())
    fraction = sum(part for part, _ in copies.values()) / total
    what = "the held-out text stands" if total < HELD else f"the first {total:,} held-out characters stand"
    found = f"copies: {fraction:.1%} of {what} word for word in the training text"
    line = f"{found}, in passages of {COPY} characters or more"
    if fraction <= TOO_MUCH:
        return line
    most = sorted(copies, key=lambda name: -copies[name][0])[:3]
    names = ", ".join(f"{name} ({copies[name][0] / copies[name][1]:.0%})" for name in most)
    return (
        f"{line}\nwarning: this is a lot. Memorizing it makes a model look better than it is. Most copies are in "
        f"{names}. Remove the duplicates from the text."
    )


def _covered(starts: npt.NDArray[np.bool_], length: int) -> int:
    """The number of characters (of `length`) in passages of COPY characters whose first is marked in `starts`."""
    before = np.concatenate(([0], np.cumsum(starts)))  # number of starts before each character
    i = np.arange(length)
    return int((before[np.minimum(i + 1, len(starts))] > before[np.maximum(i + 1 - COPY, 0)]).sum())


def _beginning(rows: Rows) -> dict[str, str]:
    """The first HELD characters of a text, by document."""
    parts: dict[str, list[str]] = {}
    size = 0
    for name, text in rows:
        parts.setdefault(name, []).append(text[: HELD - size])
        size += len(text)
        if size >= HELD:
            break
    return {name: "".join(texts) for name, texts in parts.items()}


def _numbered(rows: Rows) -> Iterator[tuple[int, str]]:
    """Rows as chunks; a new name begins a new document."""
    for number, (_, group) in enumerate(itertools.groupby(rows, lambda row: row[0])):
        yield from ((number, text) for _, text in group)


def _recorded(chunks: Chunks, runs: Ints, sums: Hashes) -> Iterator[tuple[Hashes, Ints]]:
    """The shingles from `_windows`; adds each document's number of shingles to `runs`, and their hashes to `sums`."""
    for shingles, documents in _windows(chunks, SHINGLE):
        starts = np.flatnonzero(np.diff(documents, prepend=-1))
        runs[documents[starts]] += np.diff(starts, append=len(documents))
        sums[documents[starts]] += np.add.reduceat(shingles, starts)
        yield shingles, documents


def _sketches(windows: Iterable[tuple[Hashes, Ints]], most: int) -> tuple[Hashes, Ints]:
    """The distinct shingles of each document, sorted, with the documents' numbers: all, or the `most` with the lowest
    hashes, so that two documents keep the same shared shingles (Broder 1997).
    """
    found, owners, limit, size = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], np.uint64(2**64 - 1), 0
    for shingles, documents in windows:
        low = shingles <= limit
        found, owners = [*found, shingles[low]], [*owners, documents[low]]
        size += len(found[-1])
        while size > most:
            limit //= np.uint64(2)
            all_, them = np.concatenate(found), np.concatenate(owners)
            found, owners = [all_[all_ <= limit]], [them[all_ <= limit]]
            size = len(found[0])
    shingles, documents = np.concatenate(found), np.concatenate(owners)
    order = np.argsort(shingles, kind="stable")
    shingles, documents = shingles[order], documents[order]
    new = np.ones(len(shingles), dtype=bool)
    new[1:] = (shingles[1:] != shingles[:-1]) | (documents[1:] != documents[:-1])
    return shingles[new], documents[new]


def _windows(chunks: Chunks, width: int) -> Iterator[tuple[Hashes, Ints]]:
    """The hash of each run of `width` characters in a document, and the document's number, in blocks."""
    block: list[tuple[int, str]] = []
    size, before, end = 0, -1, ""
    for number, chunk in chunks:
        text = (end if number == before else "") + chunk
        before, end = number, text[1 - width :]
        block.append((number, _padded(text, width)))
        size += len(block[-1][1])
        if size >= BLOCK:
            yield _hashed(block, width)
            block, size = [], 0
    if block:
        yield _hashed(block, width)


def _hashed(block: list[tuple[int, str]], width: int) -> tuple[Hashes, Ints]:
    texts = [text for _, text in block]
    owner = np.repeat(np.arange(len(block)), [len(text) for text in texts])
    inside = owner[: 1 - width] == owner[width - 1 :]  # runs that do not cross two texts
    return hashes("".join(texts), width)[inside], np.array([number for number, _ in block])[owner[: 1 - width][inside]]


def _padded(text: str, width: int) -> str:
    """A text padded to at least one run; different short texts stay different."""
    return text.ljust(width, "\0")


def _joined(ones: list[int], others: list[int], count: int) -> Ints:
    """Union-find: documents connected by pairs get the same number, (count,)."""
    root = list(range(count))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    for one, other in zip(ones, others, strict=True):
        root[find(one)] = find(other)
    return np.array([find(number) for number in range(count)])

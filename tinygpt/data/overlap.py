"""Copies among texts: `near_duplicates(pieces, count)` groups documents that share much of their text, so that a split
can keep them on one side; `copied(train, held)` says how much of the held-out text stands in training all the same.

Both compare hashes of every run of so many characters, in one pass and in bounded memory. Left out: copies in other
words, which no hash of characters sees.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import numpy.typing as npt

COPY = 50  # characters that are no coincidence; OpenAI 2023 (GPT-4 technical report, appendix C) looked for as many
TOO_MUCH = 0.05  # of a held-out text; 4% are common in the field's own datasets (Lee et al. 2021, arXiv 2107.06499)
HELD = 2**20  # characters of a held-out text that are looked at, from its beginning
SHINGLE = 24  # characters, about the five words of Lee et al.'s near-duplicates (appendix A)
ALIKE = 0.3  # the share of the shorter document's shingles that makes two documents near-duplicates
LEAST_SHARED = 4  # shingles, below which two documents share a phrase by chance
SKETCH = 2**22  # shingles kept of all documents together, or SKETCH_EACH of each where that is more
SKETCH_EACH = 8
NEIGHBOURS = 8  # documents with the same shingle that each is compared with; a chain of such pairs joins them all
BLOCK = 2**18  # characters that are hashed at a time, rows allowing
TABLE = 24  # bits of a hash that are looked at first
MIXER = 0x9E3779B97F4A7C15  # odd, and without pattern (Knuth, The Art of Computer Programming, volume 3, 6.4)

Hashes = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]
Pieces = Iterable[tuple[int, str]]  # number of a document, and its text in pieces, one after the other
Rows = Iterable[tuple[str, str]]  # document, text


def hashes(text: str, width: int) -> Hashes:
    """A hash of each run of `width` characters of a text: (N − width + 1,) uint64; empty where it is shorter.

    A polynomial of the characters, modulo 2⁶⁴, by doubling: of one character, two, four … and the last two overlap.
    """
    found = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32).astype(np.uint64)
    done, power = 1, MIXER
    while done < width:
        step = min(done, width - done)
        found = found[:-step] + found[step:] * np.uint64(power)
        done, power = done + step, power * power % 2**64
    return found * np.uint64(MIXER)


def near_duplicates(pieces: Pieces, count: int) -> Ints:
    """The group of each of `count` documents, (count,): of near-duplicates the number of one of them, else its own."""
    runs, sums = np.zeros(count, np.int64), np.zeros(count, np.uint64)  # a document's shingles, and its fingerprint
    shingles, documents = _sketches(_noted(pieces, runs, sums), max(SKETCH, SKETCH_EACH * count))
    kept = np.bincount(documents, minlength=count)
    pairs = [
        documents[:-step][same] * count + documents[step:][same]
        for step in range(1, NEIGHBOURS + 1)
        for same in [shingles[:-step] == shingles[step:]]
    ]
    found, shared = np.unique(np.concatenate(pairs), return_counts=True)
    one, other = np.divmod(found, count)
    shorter = np.minimum(kept[one], kept[other])
    least = np.minimum(LEAST_SHARED, np.minimum(runs[one], runs[other]))  # however few of them a sketch kept
    near = shared >= np.maximum(ALIKE * shorter, least)
    order = np.argsort(sums, kind="stable")
    same = sums[order[:-1]] == sums[order[1:]]  # copies, of which a sketch may have kept next to nothing
    ones, others = np.append(one[near], order[:-1][same]), np.append(other[near], order[1:][same])
    return _joined(ones.tolist(), others.tolist(), count)


def copied(
    train: Rows, held: Rows, advance: Callable[[int], object] = lambda characters: None
) -> dict[str, tuple[int, int]]:
    """Held-out document → its characters in passages of COPY and more that stand in the training text, and all its
    characters. One shorter than that is copied where it is a document there, too. Of a long held-out text, the first
    HELD. `advance` hears the characters of the training text as they are read.
    """
    beginning = _beginning(held)
    wanted = np.unique(np.concatenate([hashes(_padded(text, COPY), COPY) for text in beginning.values()]))
    table = np.zeros(2**TABLE, dtype=bool)
    table[wanted >> np.uint64(64 - TABLE)] = True
    seen = np.zeros(len(wanted), dtype=bool)
    for found, _ in _windows(_numbered(train), COPY):
        likely = found[table[found >> np.uint64(64 - TABLE)]]
        place = np.minimum(np.searchsorted(wanted, likely), len(wanted) - 1)
        seen[place[wanted[place] == likely]] = True
        advance(len(found))
    return {
        name: (_covered(seen[np.searchsorted(wanted, hashes(_padded(text, COPY), COPY))], len(text)), len(text))
        for name, text in beginning.items()
    }


def verdict(copies: dict[str, tuple[int, int]]) -> str:
    """What `copied` found, in a line, or two where it is too much."""
    total = sum(size for _, size in copies.values())
    share = sum(part for part, _ in copies.values()) / total
    what = "the held-out text stands" if total < HELD else f"the first {total:,} held-out characters stand"
    line = f"copies: {share:.1%} of {what} word for word in the training text, in passages of {COPY} characters or more"
    if share <= TOO_MUCH:
        return line
    most = sorted(copies, key=lambda name: -copies[name][0])[:3]
    names = ", ".join(f"{name} ({copies[name][0] / copies[name][1]:.0%})" for name in most)
    return (
        f"{line}\nwarning: this is a lot. A model that memorizes it looks better than it is. Most copies are in "
        f"{names}. Remove the duplicates from the text."
    )


def _covered(starts: npt.NDArray[np.bool_], length: int) -> int:
    """How many of `length` characters lie in a passage of COPY that begins where `starts` says."""
    before = np.concatenate(([0], np.cumsum(starts)))  # starts before each place
    places = np.arange(length)
    return int((before[np.minimum(places + 1, len(starts))] > before[np.maximum(places + 1 - COPY, 0)]).sum())


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
    """Pieces of documents, of rows in which a new name begins a new document."""
    for number, (_, group) in enumerate(itertools.groupby(rows, lambda row: row[0])):
        yield from ((number, text) for _, text in group)


def _noted(pieces: Pieces, runs: Ints, sums: Hashes) -> Iterator[tuple[Hashes, Ints]]:
    """The shingles of documents, as `_windows` has them; counts each document's, and adds up their hashes."""
    for shingles, documents in _windows(pieces, SHINGLE):
        starts = np.flatnonzero(np.diff(documents, prepend=-1))
        runs[documents[starts]] += np.diff(starts, append=len(documents))
        sums[documents[starts]] += np.add.reduceat(shingles, starts)
        yield shingles, documents


def _sketches(windows: Iterable[tuple[Hashes, Ints]], most: int) -> tuple[Hashes, Ints]:
    """The different shingles of each document, sorted, beside the numbers of the documents: all, or of many those with
    the lowest hashes, so that two documents keep the same of what they share (Broder 1997).
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


def _windows(pieces: Pieces, width: int) -> Iterator[tuple[Hashes, Ints]]:
    """The hash of each run of `width` characters within a document, and the document's number, a block at a time."""
    block: list[tuple[int, str]] = []
    size, before, end = 0, -1, ""
    for number, piece in pieces:
        text = (end if number == before else "") + piece
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
    pieces = np.repeat(np.arange(len(block)), [len(text) for text in texts])
    whole = pieces[: 1 - width] == pieces[width - 1 :]
    return hashes("".join(texts), width)[whole], np.array([number for number, _ in block])[pieces[: 1 - width][whole]]


def _padded(text: str, width: int) -> str:
    """A text that is shorter than a run becomes one, which only the same text makes."""
    return text.ljust(width, "\0")


def _joined(ones: list[int], others: list[int], count: int) -> Ints:
    """Documents that a chain of pairs connects get one number, (count,)."""
    root = list(range(count))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = number = root[root[number]]
        return number

    for one, other in zip(ones, others, strict=True):
        root[find(one)] = find(other)
    return np.array([find(number) for number in range(count)])

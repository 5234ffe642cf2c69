"""Byte-level byte-pair encoding: the 256 bytes and one token for each merge, in the order they were learned.

`BPETokenizer(merges)`; tiktoken encodes: the same ids as the `tokenizers` library and transformers, about ten times
sooner. A vocabulary that OpenAI learned may cut a text by another pattern than GPT-2's (`pretokenize.PATTERNS`), and
may have entries that no merge makes: a word that is one of them is taken whole. Left out: learning and fetching
(data/train_tokenizer.py).
"""

import functools
import itertools
import json
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt.tokenizer import pretokenize
from tinygpt.tokenizer.base import END_OF_TEXT, Tokenizer

Pair = tuple[bytes, bytes]


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: a text is split by a pattern; within a piece, the pair with the lowest id merges
    first.

    merges: pairs of byte strings, in the order of their ids. pattern: one of pretokenize.PATTERNS. tokens: all entries
    but <|endoftext|>, where there are more than the merges make. ValueError where they do not fit together.
    """

    def __init__(
        self, merges: list[Pair], pattern: str = pretokenize.PATTERN, tokens: list[bytes] | None = None
    ) -> None:
        import tiktoken

        if pattern not in pretokenize.PATTERNS:
            raise ValueError("It cuts a text by a pattern that is unknown here.")
        tokens = tokens or BYTES + [left + right for left, right in merges]
        self._merges, self.pattern = merges, pattern
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        if len(self._ranks) < len(tokens):
            raise ValueError("Two merges give the same token.")
        self._whole = _taken_whole(merges, self._ranks)
        super().__init__(tokens)
        # It is never looked for in a text; but with no special token at all, encode_to_numpy takes half as long again
        ends = {END_OF_TEXT: len(tokens)}
        self._encoding = tiktoken.Encoding("bpe", pat_str=pattern, mergeable_ranks=self._ranks, special_tokens=ends)

    @property
    def learned_here(self) -> bool:
        """Whether it has the form of one learned here, or GPT-2's: cut by its pattern, each entry made by a merge."""
        return self.pattern == pretokenize.PATTERN and not self._whole

    def encode(self, text: str) -> list[int]:
        whole = self._beyond_tiktoken(text)
        if whole is not None:
            return whole
        return [token for part in pretokenize.encodable(text) for token in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        whole = self._beyond_tiktoken(text)
        if whole is not None:
            return np.array(whole, dtype=np.uint32)
        parts = (self._encoding.encode_to_numpy(part, disallowed_special=()) for part in pretokenize.encodable(text))
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def merge_history(self, word: str) -> list[tuple[int, list[bytes]]]:
        """How the bytes of a word become its tokens: the number of each merge, 1 the first that was learned, and the
        parts after it; at first 0 and the single bytes.
        """
        parts = [bytes([byte]) for byte in word.encode()]
        history = [(0, parts)]
        while known := [pair for pair in itertools.pairwise(parts) if b"".join(pair) in self._ranks]:
            pair = min(known, key=lambda pair: self._ranks[b"".join(pair)])
            parts = _merge(parts, pair)
            history.append((self._ranks[b"".join(pair)] - 255, parts))
        return history

    def _beyond_tiktoken(self, text: str) -> list[int] | None:
        """The ids of a text, perhaps of spaces without end, that tiktoken could overflow on; None for any other."""
        if self.pattern == pretokenize.PATTERN or not pretokenize.is_endless(text):
            return None
        ids: list[int] = self._library.encode(text).ids
        return ids

    @functools.cached_property
    def _library(self) -> Any:
        """The same tokenizer in the slower `tokenizers` library, whose patterns have no length limit."""
        from tokenizers import Tokenizer as Library

        return Library.from_str(json.dumps(self.to_json() | {"added_tokens": []}))

    def _parts(self) -> dict[str, Any]:
        as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        before = as_bytes
        if self.pattern != pretokenize.PATTERN:
            pattern = {"Regex": pretokenize.for_library(self.pattern)}
            split = {"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": False}
            before = {"type": "Sequence", "pretokenizers": [split, as_bytes | {"use_regex": False}]}
        vocabulary = {_spell(token): rank for token, rank in self._ranks.items()}
        merges = [[_spell(left), _spell(right)] for left, right in self._merges]
        model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
        return {
            "pre_tokenizer": before,
            "model": model | ({"ignore_merges": True} if self._whole else {}),
            "decoder": as_bytes,
        }


def rebuild(content: dict[str, Any]) -> BPETokenizer:
    """The tokenizer of a tokenizer.json, taken from as little of it as can be; `load` compares the rest."""
    model, before = content["model"], content["pre_tokenizer"]
    merges = [(unspell(left), unspell(right)) for left, right in model["merges"]]
    pattern, tokens = pretokenize.PATTERN, None
    if before["type"] == "Sequence":  # of our own patterns alone: a stranger's could take for ever
        spelled = before["pretokenizers"][0]["pattern"]["Regex"]
        pattern = next((known for known in pretokenize.PATTERNS if pretokenize.for_library(known) == spelled), "")
    if model.get("ignore_merges"):
        tokens = [unspell(token) for token in sorted(model["vocab"], key=model["vocab"].__getitem__)]
    return BPETokenizer(merges, pattern, tokens)


def last_merge(token: bytes, ranks: dict[bytes, int]) -> Pair | None:
    """The pair that makes a token: what is left of its bytes when all merges but the last are done.

    None for one that its bytes never merge into.
    """
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        if min(pairs) == len(ranks):
            return None
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


def _merge(parts: list[bytes], pair: Pair) -> list[bytes]:
    """Join the two wherever they are neighbours, from left to right."""
    merged: list[bytes] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _taken_whole(merges: list[Pair], ranks: dict[bytes, int]) -> set[bytes]:
    """The tokens that no merge makes. ValueError where a merge joins what is not there yet, or one is missing."""
    last = 255
    for number, (left, right) in enumerate(merges):
        rank = ranks.get(left + right, -1)
        if rank <= last or any(ranks.get(part, rank) >= rank for part in (left, right)):
            raise ValueError(f"Merge {number} joins {(left, right)}, which no merge before it makes.")
        last = rank
    whole = ranks.keys() - {left + right for left, right in merges} - set(BYTES)
    missing = next((token for token in whole if last_merge(token, ranks) is not None), None)
    if missing is not None or list(ranks)[:256] != BYTES:
        raise ValueError(f"No merge makes {missing!r}." if missing else "Its first 256 entries are not the bytes.")
    return whole


# JSON holds text, so GPT-2 spells each byte as a printable character: Latin-1's own where it is printable, else one
# from U+0100 on. Ids of bytes follow that spelling.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_ORDER = _PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE]
BYTES = [bytes([byte]) for byte in _BYTE_ORDER]
_SPELLING = {byte: 0x100 + place for place, byte in enumerate(_BYTE_ORDER[len(_PRINTABLE) :])}
_UNSPELLING = {character: byte for byte, character in _SPELLING.items()}


def _spell(token: bytes) -> str:
    return token.decode("latin-1").translate(_SPELLING)


def unspell(spelled: str) -> bytes:
    """The bytes that an entry of a byte-level vocabulary spells."""
    return spelled.translate(_UNSPELLING).encode("latin-1")

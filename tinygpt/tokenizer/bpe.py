"""Byte-level byte-pair encoding: the 256 bytes and one token per merge, in the order learned.

`BPETokenizer(merges)` encodes with tiktoken: the same ids as the `tokenizers` library and transformers, about ten times
faster. OpenAI's vocabularies may split words by other patterns than GPT-2's (`pretokenize.PATTERNS`), and may have
entries that no merge makes; a word equal to one is a single token. Learning and fetching: data/train_tokenizer.py.
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
    """Byte-level byte-pair encoding: a pattern splits a text into words; in a word, the pair with the lowest id merges
    first.

    merges: pairs of byte strings, in the order of their ids. pattern: one of pretokenize.PATTERNS. tokens: all entries
    except <|endoftext|>, if there are more than the merges make. Raises ValueError if they are inconsistent.
    """

    def __init__(
        self, merges: list[Pair], pattern: str = pretokenize.PATTERN, tokens: list[bytes] | None = None
    ) -> None:
        import tiktoken

        if pattern not in pretokenize.PATTERNS:
            raise ValueError("Its pre-tokenization pattern is unknown here.")
        tokens = tokens or BYTES + [left + right for left, right in merges]
        self._merges, self.pattern = merges, pattern
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        if len(self._ranks) < len(tokens):
            raise ValueError("Two merges give the same token.")
        self._unmerged = _unmerged_tokens(merges, self._ranks)
        super().__init__(tokens)
        # Never matched in a text; but without any special token, encode_to_numpy takes 1.5 times as long.
        ends = {END_OF_TEXT: len(tokens)}
        self._encoding = tiktoken.Encoding("bpe", pat_str=pattern, mergeable_ranks=self._ranks, special_tokens=ends)

    @property
    def learned_here(self) -> bool:
        """Whether it uses GPT-2's pattern and each entry is a byte or made by a merge, like those trained here."""
        return self.pattern == pretokenize.PATTERN and not self._unmerged

    def encode(self, text: str) -> list[int]:
        ids = self._beyond_tiktoken(text)
        if ids is not None:
            return ids
        return [token for part in pretokenize.encodable(text) for token in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        ids = self._beyond_tiktoken(text)
        if ids is not None:
            return np.array(ids, dtype=np.uint32)
        parts = (self._encoding.encode_to_numpy(part, disallowed_special=()) for part in pretokenize.encodable(text))
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def merge_history(self, word: str) -> list[tuple[int, list[bytes]]]:
        """The merges from a word's bytes to its tokens: (merge number, parts after it), first (0, single bytes).

        Merges are numbered from 1 in the order learned.
        """
        parts = [bytes([byte]) for byte in word.encode()]
        history = [(0, parts)]
        while known := [pair for pair in itertools.pairwise(parts) if b"".join(pair) in self._ranks]:
            pair = min(known, key=lambda pair: self._ranks[b"".join(pair)])
            parts = _merge(parts, pair)
            history.append((self._ranks[b"".join(pair)] - 255, parts))
        return history

    def _beyond_tiktoken(self, text: str) -> list[int] | None:
        """The ids of a text with white space so long that tiktoken could overflow; None for any other text."""
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
            "model": model | ({"ignore_merges": True} if self._unmerged else {}),
            "decoder": as_bytes,
        }


def rebuild(content: dict[str, Any]) -> BPETokenizer:
    """The tokenizer of a tokenizer.json, from as few of its values as possible; `load` compares the rest."""
    model, before = content["model"], content["pre_tokenizer"]
    merges = [(unspell(left), unspell(right)) for left, right in model["merges"]]
    pattern, tokens = pretokenize.PATTERN, None
    if before["type"] == "Sequence":  # known patterns only: an unknown regex could run forever
        spelled = before["pretokenizers"][0]["pattern"]["Regex"]
        pattern = next((known for known in pretokenize.PATTERNS if pretokenize.for_library(known) == spelled), "")
    if model.get("ignore_merges"):
        tokens = [unspell(token) for token in sorted(model["vocab"], key=model["vocab"].__getitem__)]
    return BPETokenizer(merges, pattern, tokens)


def last_merge(token: bytes, ranks: dict[bytes, int]) -> Pair | None:
    """The last merge that makes a token: its two parts after all earlier merges; None if no merges make it."""
    parts = [token[i : i + 1] for i in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        if min(pairs) == len(ranks):
            return None
        i = pairs.index(min(pairs))
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return parts[0], parts[1]


def _merge(parts: list[bytes], pair: Pair) -> list[bytes]:
    """Merge the pair wherever it occurs, from left to right."""
    merged: list[bytes] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged


def _unmerged_tokens(merges: list[Pair], ranks: dict[bytes, int]) -> set[bytes]:
    """The tokens that no merge makes. Raises ValueError if a merge is missing, or joins tokens made only later."""
    last = 255
    for number, (left, right) in enumerate(merges):
        rank = ranks.get(left + right, -1)
        if rank <= last or any(ranks.get(part, rank) >= rank for part in (left, right)):
            raise ValueError(f"Merge {number} joins {(left, right)}, which no earlier merge makes.")
        last = rank
    unmerged = ranks.keys() - {left + right for left, right in merges} - set(BYTES)
    missing = next((token for token in unmerged if last_merge(token, ranks) is not None), None)
    if missing is not None or list(ranks)[:256] != BYTES:
        raise ValueError(f"No merge makes {missing!r}." if missing else "Its first 256 entries are not the bytes.")
    return unmerged


# JSON holds text, so GPT-2 spells each byte as a printable character: the Latin-1 character if printable, else one
# from U+0100 on. The ids of bytes follow the order of that spelling.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_ORDER = _PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE]
BYTES = [bytes([byte]) for byte in _BYTE_ORDER]
_SPELLING = {byte: 0x100 + i for i, byte in enumerate(_BYTE_ORDER[len(_PRINTABLE) :])}
_UNSPELLING = {character: byte for byte, character in _SPELLING.items()}


def _spell(token: bytes) -> str:
    return token.decode("latin-1").translate(_SPELLING)


def unspell(spelled: str) -> bytes:
    """The bytes of a byte-level vocabulary entry as GPT-2 spells it."""
    return spelled.translate(_UNSPELLING).encode("latin-1")

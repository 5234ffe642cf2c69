"""The simplest tokenizer, one token per character: `CharTokenizer("abc", "replace").encode(text)`.

The interface is in base.py; data/train_tokenizer.py makes a tokenizer from a text; folder.py loads a saved one.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygpt.tokenizer.base import Tokenizer

REPLACEMENT = "\ufffd"


class CharTokenizer(Tokenizer):
    """One token per character (a Unicode code point), ids in code-point order.

    unknown: how characters outside the vocabulary are encoded. "replace" adds U+FFFD to the characters and encodes
    them as that (a U+FFFD in the text has the same id); "error" raises ValueError.
    """

    def __init__(self, characters: Iterable[str], unknown: Literal["replace", "error"]) -> None:
        self.characters = sorted({*characters, REPLACEMENT} if unknown == "replace" else set(characters))
        self._unknown = unknown
        super().__init__([character.encode() for character in self.characters])
        # Code point → id for all of Unicode: 4 MB, which lets NumPy look up a whole text without a Python loop.
        absent = -1 if self.unknown is None else self.unknown
        self._ids = np.full(0x110000, absent, dtype=np.int32)
        self._ids[[ord(character) for character in self.characters]] = np.arange(len(self.characters))

    @property
    def unknown(self) -> int | None:
        return self.characters.index(REPLACEMENT) if self._unknown == "replace" else None

    def encode(self, text: str) -> list[int]:
        return list(self.encode_array(text).tolist())

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:  # (number of tokens,)
        ids = self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
        unknown = np.flatnonzero(ids < 0)
        if unknown.size:
            raise ValueError(_unknown_characters(text[i] for i in unknown))
        return ids

    def _parts(self) -> dict[str, Any]:
        # The library requires an unk_token; one outside the vocabulary makes unknown characters an error.
        unknown = REPLACEMENT if self._unknown == "replace" else "[UNK]"
        vocabulary = {character: i for i, character in enumerate(self.characters)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown}
        split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        return {"pre_tokenizer": split, "model": model, "decoder": {"type": "Fuse"}}


def _unknown_characters(characters: Iterable[str]) -> str:
    different = list(dict.fromkeys(characters))
    names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in different[:5])
    more = f" and {len(different) - 5} more" if len(different) > 5 else ""
    return (
        f"The tokenizer's vocabulary lacks {names}{more}. Remove it, set tokenize.unknown to replace, or "
        "tokenize.kind to bpe, which can encode every character."
    )

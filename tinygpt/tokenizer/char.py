"""The simplest tokenizer, one token a character: `CharTokenizer("abc", "replace").encode(text)`.

base.py says what a tokenizer can do; data/train_tokenizer.py makes one from a text; folder.py opens one that was saved.
"""

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygpt.tokenizer.base import Tokenizer

REPLACEMENT = "\ufffd"


class CharTokenizer(Tokenizer):
    """One token a character (a Unicode code point), ids in the order of the code points.

    `unknown` says what a character outside the vocabulary does: "replace" adds U+FFFD to the characters (at its
    place in the order; a U+FFFD in the text is the same entry) and encodes it as that; "error" raises ValueError.
    """

    def __init__(self, characters: Iterable[str], unknown: Literal["replace", "error"]) -> None:
        self.characters = sorted({*characters, REPLACEMENT} if unknown == "replace" else set(characters))
        self._unknown = unknown
        super().__init__([character.encode() for character in self.characters])
        # Code point → id, for all of Unicode: 4 MB, and a whole text is looked up at once, without a loop in Python.
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
        unseen = np.flatnonzero(ids < 0)
        if unseen.size:
            raise ValueError(_unseen(text[place] for place in unseen))
        return ids

    def _parts(self) -> dict[str, Any]:
        # The library wants some unk_token; one that is not in the vocabulary makes an unknown character an error.
        unknown = REPLACEMENT if self._unknown == "replace" else "[UNK]"
        vocabulary = {character: place for place, character in enumerate(self.characters)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown}
        split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        return {"pre_tokenizer": split, "model": model, "decoder": {"type": "Fuse"}}


def _unseen(characters: Iterable[str]) -> str:
    different = list(dict.fromkeys(characters))
    names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in different[:5])
    more = f" and {len(different) - 5} more" if len(different) > 5 else ""
    return (
        f"The tokenizer never saw {names}{more} in training. Leave it out, set tokenize.unknown to replace, "
        "or tokenize.kind to bpe, which can write every character."
    )

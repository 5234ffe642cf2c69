"""Text ↔ integers: `tokenizer = load("data/tokenizer")`, then `tokenizer.encode(text)` and `tokenizer.decode(ids)`.

Here are the simplest tokenizer, one token a character, and `load`, which opens every kind without a network and
refuses a file that is not, in every part, what `save` writes. base_tokenizer.py says what a tokenizer can do,
byte_pairs.py and pieces.py hold the other kinds, vocabularies.py makes one from a text (`vocabularies.build`).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygpt import byte_pairs, files, pieces
from tinygpt.base_tokenizer import END_OF_TEXT, Tokenizer
from tinygpt.byte_pairs import BPETokenizer
from tinygpt.pieces import ForeignTokenizer, PieceTokenizer

__all__ = [
    "END_OF_TEXT",
    "BPETokenizer",
    "CharTokenizer",
    "ForeignTokenizer",
    "PieceTokenizer",
    "Tokenizer",
    "check_texts",
    "load",
]

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


def load(folder: Path | str) -> Tokenizer:
    """Read the tokenizer that `save` wrote; no network, nothing unpickled.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or another program's.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"No tokenizer at {folder}. Run `dvc repro tokenize`.")
    files.check_fetched(file)
    try:
        found, foreign = files.read_json(file), _told_of_foreign(Path(folder))
        tokenizer = _rebuild(found) if foreign is None else _rebuild_foreign(found, foreign)
        _check_equal(tokenizer.to_json(), found)
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        why = " ".join(str(problem).split())[:200]
        raise ValueError(f"{file} is damaged, or not TinyGPT's: {why} Run `dvc repro tokenize`.") from problem
    return tokenizer


def check_texts(tokenizer: Tokenizer, texts: Iterable[str], key: str) -> None:
    """ValueError, in a sentence, for a text that the tokenizer cannot write; `key`: the parameter that names it."""
    for text in texts:
        try:
            tokenizer.encode_array(text)
        except ValueError as problem:
            raise ValueError(f"{key} holds {text!r:.60}. {problem}") from None


def _told_of_foreign(folder: Path) -> dict[str, Any] | None:
    """What `ForeignTokenizer.save` tells in tokenizer_config.json; None beside a tokenizer of our own kinds."""
    file = folder / "tokenizer_config.json"
    settings = files.read_json(file) if file.is_file() else {}
    return settings.get("tinygpt")


def _rebuild(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, taken from as little of it as can be; `load` compares the rest."""
    model = content["model"]
    if model["type"] == "WordLevel":
        return CharTokenizer(model["vocab"], "replace" if model["unk_token"] in model["vocab"] else "error")
    if model["type"] == "Unigram" or model.get("byte_fallback"):
        return pieces.rebuild(model)
    if model["type"] == "BPE":
        return byte_pairs.rebuild(content)
    raise ValueError(f"its model is {model['type']!r}, not WordLevel, BPE or Unigram.")


def _rebuild_foreign(content: dict[str, Any], told: dict[str, Any]) -> ForeignTokenizer:
    if told.keys() != {"end_of_text", "vocab_size"} or not all(type(number) is int for number in told.values()):
        raise ValueError("tokenizer_config.json does not tell its end and size.")
    try:
        return ForeignTokenizer(content, **told)
    except Exception as problem:  # the library raises no narrower kind
        raise ValueError(str(problem)) from problem


def _check_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """ValueError names the first part of a tokenizer.json that differs from what `save` would write."""
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            raise ValueError(f"its {key} is not what TinyGPT writes.")


def _unseen(characters: Iterable[str]) -> str:
    different = list(dict.fromkeys(characters))
    names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in different[:5])
    more = f" and {len(different) - 5} more" if len(different) > 5 else ""
    return (
        f"The tokenizer never saw {names}{more} in training. Leave it out, set tokenize.unknown to replace, "
        "or tokenize.kind to bpe, which can write every character."
    )

"""Tokenizers that run in the `tokenizers` library: `SentencePieceTokenizer` and `HFTokenizer`.

A SentencePieceTokenizer has a new line, the 256 bytes, and pieces of words with the space before them, learned by
sentencepiece (data/train_tokenizer.py), which need not be there to use them. Its vocabulary spells a space as a space,
where SentencePiece writes ▁: so a ▁ in a text stays one, every text comes back as it was, and `<0x0A>` in a text is six
characters. The ids are those of SentencePiece for every text without ▁, which it takes for a space, with one exception:
where two cuts of a text are exactly as likely, as of `***` in `**` and `*`, its unigram decides by its rounding errors,
and this one always alike. Of bytes that are no UTF-8, transformers shows each as �, and so what stands beside them in
one run of bytes.

A HFTokenizer is that of a model that others trained. Left out: learning (data/train_tokenizer.py), and telling
whose a tokenizer is (char.py, checkpoints/hf_tokenizer.py).
"""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt.files.text import read_json, write_json
from tinygpt.tokenizer import pretokenize
from tinygpt.tokenizer.base import END_OF_TEXT, Tokenizer
from tinygpt.tokenizer.bpe import unspell

NEW_LINE = "\n"  # the first piece; no other holds one
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
FIRST = len([NEW_LINE, *BYTES])  # the id of the first piece that was learned

# A word is what no piece reaches beyond: spaces, and what follows them up to the next space or new line.
WORDS = r"\n| +[^ \n]*|[^ \n]+"
# No piece holds a digit beside a letter; but the library would take "<0x0A>" in a text for the byte, were it not cut.
NO_BYTE = r"<0(?=x[0-9A-F]{2}>)"
PARTS = 2**14  # characters that are encoded at once


class LibraryTokenizer(Tokenizer):
    """What runs in the `tokenizers` library, on one text at a time; special tokens in a text are read as text."""

    def __init__(self, tokens: list[bytes]) -> None:
        """The library reads what `to_json` gives, which must be there before."""
        from tokenizers import Tokenizer as Library

        super().__init__(tokens)
        self._library = Library.from_str(json.dumps(self.to_json()))
        self._library.encode_special_tokens = True
        self._library.no_truncation()
        self._library.no_padding()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; half of a character (U+D800 to U+DFFF) is read as U+FFFD."""
        return self._ids(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        text.encode()  # UnicodeEncodeError for half of a character, of which the library makes an obscure one
        return np.array(self._ids(text), dtype=np.int32)

    def _ids(self, text: str) -> list[int]:
        parts = self._cut(text)
        if len(parts) == 1:  # threads are for more
            return list(self._library.encode(text, add_special_tokens=False).ids)
        return [
            token for part in self._library.encode_batch_fast(parts, add_special_tokens=False) for token in part.ids
        ]

    def _cut(self, text: str) -> list[str]:
        """The text in parts that can be encoded by themselves."""
        return [text]


class SentencePieceTokenizer(LibraryTokenizer):
    """SentencePiece's two kinds: unigram, where each piece has a score, and BPE, where the first in the list that two
    neighbours make is made first.

    pieces: what was learned, with spaces as spaces; scores: the logarithm of each one's probability; None for BPE.
    """

    def __init__(self, pieces: list[str], scores: list[float] | None) -> None:
        self.pieces = [NEW_LINE, *BYTES, *pieces]
        if len({*self.pieces, END_OF_TEXT}) != len(self.pieces) + 1:
            raise ValueError("A piece is there twice.")
        self.scores = None if scores is None else _completed(scores)
        super().__init__([_unspell(piece) for piece in self.pieces])

    def _cut(self, text: str) -> list[str]:
        return list(pretokenize.parts(text, PARTS))

    def _parts(self) -> dict[str, Any]:
        cuts = [(WORDS, "Isolated"), (NO_BYTE, "MergedWithPrevious")]
        splits = [
            {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": False}
            for pattern, behavior in cuts
        ]
        if self.scores is not None:
            vocabulary = [list(pair) for pair in zip(self.pieces, self.scores, strict=True)]
            model = {"type": "Unigram", "unk_id": FIRST - 1, "vocab": vocabulary, "byte_fallback": True}
        else:
            numbered = {piece: place for place, piece in enumerate(self.pieces)}
            model = {"type": "BPE", "vocab": numbered, "merges": _merges(self.pieces[FIRST:]), "byte_fallback": True}
        return {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "model": model,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        }


def rebuild(model: dict[str, Any]) -> SentencePieceTokenizer:
    """The tokenizer of a tokenizer.json's model, taken from as little of it as can be; `load` compares the rest."""
    if model["type"] == "BPE":
        return SentencePieceTokenizer(sorted(model["vocab"], key=model["vocab"].__getitem__)[FIRST:], None)
    learned = model["vocab"][FIRST:]
    return SentencePieceTokenizer([piece for piece, _ in learned], [score for _, score in learned])


def _completed(scores: list[float]) -> list[float]:
    """Scores with those of a new line and of the bytes before them.

    A new line is taken wherever it stands, and bytes where there is nothing else; so the numbers change no cut. They
    are SentencePiece's own for the new line; and for bytes the lowest, from which the library tells what is unknown.
    """
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        raise ValueError("A score is not a number.")
    low, high = min(scores), max(scores)
    return [high - 0.1, *[low] * len(BYTES), *scores]


def _merges(pieces: list[str]) -> list[list[str]]:
    """The pairs of pieces that make a piece, the first piece's first: in SentencePiece, any two may that can."""
    known = set(pieces)
    cuts = ([piece[:place], piece[place:]] for piece in pieces for place in range(len(piece) - 1, 0, -1))
    return [[left, right] for left, right in cuts if left in known and right in known]


class HFTokenizer(LibraryTokenizer):
    """A tokenizer.json of the `tokenizers` library as it is, but for what it would put before a text, or after it.

    content: the parsed file; end_of_text: an id; vocab_size: of the model, as large as the tokenizer's or larger. The
    ids beyond stand for no text.
    """

    def __init__(self, content: dict[str, Any], end_of_text: int, vocab_size: int) -> None:
        self._content, self._end = content | {"post_processor": None}, end_of_text
        super().__init__([])
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        if max(vocabulary.values(), default=0) >= vocab_size or not 0 <= end_of_text < vocab_size:
            raise ValueError(f"the tokenizer has ids beyond the model's {vocab_size} (<|endoftext|> is {end_of_text}).")
        self._tokens = [b""] * vocab_size
        as_bytes = bytes_of(content)
        added = {entry["id"]: entry for entry in content.get("added_tokens", [])}  # spelled as they are, not in bytes
        for spelled, token in vocabulary.items():
            if token in added:
                self._tokens[token] = b"" if added[token]["special"] else spelled.encode()
            else:
                self._tokens[token] = as_bytes(spelled)

    @property
    def end_of_text(self) -> int:
        return self._end

    def save(self, folder: Path | str) -> None:
        """As any other; besides, tokenizer_config.json tells `load` what the file alone does not."""
        super().save(folder)
        settings = read_json(Path(folder) / "tokenizer_config.json")
        end = self._library.id_to_token(self._end)
        told = {"end_of_text": self._end, "vocab_size": self.vocab_size}
        write_json(
            Path(folder) / "tokenizer_config.json", settings | {"bos_token": end, "eos_token": end, "tinygpt": told}
        )

    def to_json(self) -> dict[str, Any]:
        return self._content

    def _parts(self) -> dict[str, Any]:
        return self._content


def bytes_of(content: dict[str, Any]) -> Callable[[str], bytes]:
    """How this file spells bytes: a function from an entry of the vocabulary to what it stands for."""
    told = json.dumps(content.get("decoder"))
    if '"ByteLevel"' in told:
        return unspell
    if '"ByteFallback"' in told or "▁" in json.dumps(content, ensure_ascii=False):  # SentencePiece's space
        return from_pieces
    raise ValueError("its decoder is neither byte-level nor SentencePiece's.")


def from_pieces(spelled: str) -> bytes:
    """`▁the` → b" the"; `<0x0A>` → b"\\n"."""
    return _unspell(spelled.replace("▁", " "))


def _unspell(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes([int(byte[1], 16)]) if byte else piece.encode()

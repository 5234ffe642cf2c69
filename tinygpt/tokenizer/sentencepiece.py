"""Tokenizers that run in the `tokenizers` library: `SentencePieceTokenizer` and `HFTokenizer`.

A SentencePieceTokenizer has a newline, the 256 bytes, and the pieces that the package sentencepiece learned
(data/train_tokenizer.py); encoding does not need that package. Its vocabulary spells a space as a space instead of ▁,
so every text decodes unchanged, including ▁ and `<0x0A>`. The ids equal SentencePiece's for every text without ▁, with
one exception: if two segmentations are exactly as likely (`***` as `**`, `*` or `*`, `**`), SentencePiece's unigram
decides by rounding errors, this one always alike. transformers decodes invalid UTF-8 differently: it shows � for every
byte of a run of byte tokens that is not valid UTF-8.

An HFTokenizer is the tokenizer of a transformers model (checkpoints/hf_tokenizer.py).
"""

import functools
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
from tinygpt.tokenizer.base import END_OF_TEXT, Tokenizer, added_token
from tinygpt.tokenizer.bpe import unspell
from tinygpt.tokenizer.chat_template import ROLE_TOKENS

NEW_LINE = "\n"  # the first piece; no other contains a newline
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
FIRST = len([NEW_LINE, *BYTES])  # the id of the first learned piece

# No piece crosses a word: spaces, and the characters after them up to the next space or newline.
WORDS = r"\n| +[^ \n]*|[^ \n]+"
# Splits a literal "<0x0A>", which the library would read as the byte. No piece has a digit next to a letter anyway.
NO_BYTE = r"<0(?=x[0-9A-F]{2}>)"
PARTS = 2**14  # characters encoded at once


class LibraryTokenizer(Tokenizer):
    """A tokenizer that runs in the `tokenizers` library; special tokens in a text are read as plain text."""

    def __init__(self, tokens: list[bytes]) -> None:
        """Calls `to_json`, so subclasses set its fields first."""
        from tokenizers import Tokenizer as Library

        super().__init__(tokens)
        self._library = Library.from_str(json.dumps(self.to_json()))
        self._library.encode_special_tokens = True
        self._library.no_truncation()
        self._library.no_padding()

    def encode(self, text: str) -> list[int]:
        """The ids of a text; a lone surrogate (U+D800 to U+DFFF) is read as U+FFFD."""
        return self._ids(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        text.encode()  # UnicodeEncodeError for a lone surrogate; the library's own error is obscure
        return np.array(self._ids(text), dtype=np.int32)

    def _ids(self, text: str) -> list[int]:
        parts = self._cut(text)
        if len(parts) == 1:  # no need for threads
            return list(self._library.encode(text, add_special_tokens=False).ids)
        return [
            token for part in self._library.encode_batch_fast(parts, add_special_tokens=False) for token in part.ids
        ]

    def _cut(self, text: str) -> list[str]:
        """The text in parts that can be encoded independently."""
        return [text]


class SentencePieceTokenizer(LibraryTokenizer):
    """SentencePiece's two models: unigram, where each piece has a log-probability, and BPE, where the earliest piece in
    the list that two neighbours make is merged first.

    pieces: the learned pieces, with spaces as spaces. scores: their log-probabilities; None for BPE.
    """

    def __init__(self, pieces: list[str], scores: list[float] | None) -> None:
        self.pieces = [NEW_LINE, *BYTES, *pieces]
        if len({*self.pieces, END_OF_TEXT}) != len(self.pieces) + 1:
            raise ValueError("A piece occurs twice.")
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
            vocabulary_ids = {piece: i for i, piece in enumerate(self.pieces)}
            model = {
                "type": "BPE",
                "vocab": vocabulary_ids,
                "merges": _merges(self.pieces[FIRST:]),
                "byte_fallback": True,
            }
        return {
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": splits},
            "model": model,
            "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        }


def rebuild(model: dict[str, Any]) -> SentencePieceTokenizer:
    """The tokenizer of a tokenizer.json's model, from as few of its values as possible; `load` compares the rest."""
    if model["type"] == "BPE":
        return SentencePieceTokenizer(sorted(model["vocab"], key=model["vocab"].__getitem__)[FIRST:], None)
    learned = model["vocab"][FIRST:]
    return SentencePieceTokenizer([piece for piece, _ in learned], [score for _, score in learned])


def _completed(scores: list[float]) -> list[float]:
    """The scores of the newline and the bytes, then `scores`.

    They do not affect any segmentation: a newline is always its own token, and bytes are used only if nothing else
    fits. The newline's is SentencePiece's own; bytes have the lowest score, from which the library sets the unknown
    token's.
    """
    if not all(isinstance(score, float) and math.isfinite(score) for score in scores):
        raise ValueError("A score is not a number.")
    low, high = min(scores), max(scores)
    return [high - 0.1, *[low] * len(BYTES), *scores]


def _merges(pieces: list[str]) -> list[list[str]]:
    """All pairs of pieces that make a piece, in the order of the result: SentencePiece may merge any of them."""
    known = set(pieces)
    pairs = ([piece[:i], piece[i:]] for piece in pieces for i in range(len(piece) - 1, 0, -1))
    return [[left, right] for left, right in pairs if left in known and right in known]


class HFTokenizer(LibraryTokenizer):
    """A tokenizer.json of the `tokenizers` library, without the tokens it would add before or after a text.

    content: the parsed file. end_of_text: an id. vocab_size: the model's, at least the tokenizer's; additional ids
    stand for no text. has_roles: whether its tokens named like ROLE_TOKENS are used as those.
    """

    def __init__(self, content: dict[str, Any], end_of_text: int, vocab_size: int, has_roles: bool = False) -> None:
        self._content = content | {"post_processor": None}
        super().__init__([])
        self._end = end_of_text
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        if max(vocabulary.values(), default=0) >= vocab_size or not 0 <= end_of_text < vocab_size:
            raise ValueError(f"the tokenizer has ids beyond the model's {vocab_size} (<|endoftext|> is {end_of_text}).")
        self._tokens = [b""] * vocab_size
        as_bytes = bytes_of(content)
        added = {entry["id"]: entry for entry in content.get("added_tokens", [])}  # not in byte-level spelling
        if any(vocabulary.get(entry["content"]) != token for token, entry in added.items()):
            raise ValueError("the ids of its added tokens are not in order.")  # the library would renumber them
        for spelled, token in vocabulary.items():
            if token in added:
                self._tokens[token] = b"" if added[token]["special"] else spelled.encode()
            else:
                self._tokens[token] = as_bytes(spelled)
        if has_roles:
            self._roles = {name: vocabulary[name] for name in ROLE_TOKENS}
            self._check_roles()

    def _check_roles(self) -> None:
        """Raise ValueError if text could become a role token, or two special tokens are one."""
        if self._end in self._roles.values():
            raise ValueError("Its <|endoftext|> is a role token; conversations need both. Use another base model.")
        for name, token in self._roles.items():
            if token in self.encode(name):
                raise ValueError(f"It reads {name} in a text as the role token. Use another base model.")

    def with_roles(self) -> "HFTokenizer":
        """As for other tokenizers. A token that exists with that name is used, but as a special token that takes no
        white space with it; new ones take the free ids of the model first.
        """
        if self._roles:
            return self
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        new = [name for name in ROLE_TOKENS if name not in vocabulary]
        ids = vocabulary | {name: max(vocabulary.values()) + i for i, name in enumerate(new, 1)}
        others = [entry for entry in self._content.get("added_tokens", []) if entry["content"] not in ROLE_TOKENS]
        added = [*others, *(added_token(name, ids[name]) for name in ROLE_TOKENS)]
        content = self._content | {"added_tokens": sorted(added, key=lambda entry: entry["id"])}
        return HFTokenizer(content, self._end, max(self.vocab_size, *(ids[name] + 1 for name in new), 0), True)

    def encode_content(self, text: str) -> list[int]:
        return self._inside.encode(text)

    @functools.cached_property
    def _inside(self) -> "HFTokenizer":
        """The same tokenizer for text inside a document, if only a document's first word gets a ▁ before it."""
        before = json.dumps(self._content.get("pre_tokenizer"))
        inside = before.replace('"prepend_scheme": "first"', '"prepend_scheme": "never"')
        if inside == before:
            return self
        return HFTokenizer(self._content | {"pre_tokenizer": json.loads(inside)}, self._end, self.vocab_size)

    def save(self, folder: Path | str) -> None:
        """Like `Tokenizer.save`; tokenizer_config.json also holds end_of_text and vocab_size for `load`."""
        super().save(folder)
        settings = read_json(Path(folder) / "tokenizer_config.json")
        end = self._library.id_to_token(self._end)
        metadata: dict[str, Any] = {"end_of_text": self._end, "vocab_size": self.vocab_size}
        if self.has_roles:
            metadata["has_roles"] = True
        write_json(
            Path(folder) / "tokenizer_config.json", settings | {"bos_token": end, "eos_token": end, "tinygpt": metadata}
        )

    def to_json(self) -> dict[str, Any]:
        return self._content

    def _parts(self) -> dict[str, Any]:
        return self._content


def bytes_of(content: dict[str, Any]) -> Callable[[str], bytes]:
    """The function that maps a vocabulary entry of this tokenizer.json to its bytes."""
    decoder = json.dumps(content.get("decoder"))
    if '"ByteLevel"' in decoder:
        return unspell
    if '"ByteFallback"' in decoder or "▁" in json.dumps(content, ensure_ascii=False):  # SentencePiece's space
        return from_pieces
    raise ValueError("its decoder is neither byte-level nor SentencePiece's.")


def from_pieces(spelled: str) -> bytes:
    """`▁the` → b" the"; `<0x0A>` → b"\\n"."""
    return _unspell(spelled.replace("▁", " "))


def _unspell(piece: str) -> bytes:
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", piece)
    return bytes([int(byte[1], 16)]) if byte else piece.encode()

"""The tokenizers of models that others trained: `open_tokenizer(folder, end of text, vocabulary size)`.

Ours are opened as ours, and GPT-2's becomes our BPETokenizer. Any other that has a tokenizer.json runs in the
`tokenizers` library, with special tokens in a text read as plain text, as everywhere here. A model's vocabulary may be
larger than its tokenizer's (Qwen's is, so that its matrices have round sizes); the ids beyond stand for no text.
"""

import contextlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt import files
from tinygpt.tokenizer import BPETokenizer, Tokenizer, load, unspell


class ForeignTokenizer(Tokenizer):
    """A tokenizer.json of the `tokenizers` library, as it is.

    content: the parsed file; end_of_text: an id; vocab_size: of the model, as large as the tokenizer's or larger.
    """

    def __init__(self, content: dict[str, Any], end_of_text: int, vocab_size: int) -> None:
        from tokenizers import Tokenizer as Library

        self._content, self._end = content, end_of_text
        self._library = Library.from_str(json.dumps(content))
        self._library.encode_special_tokens = True  # <|endoftext|> in a text is text
        vocabulary = self._library.get_vocab(with_added_tokens=True)
        if max(vocabulary.values(), default=0) >= vocab_size or not 0 <= end_of_text < vocab_size:
            raise ValueError(f"the tokenizer has ids beyond the model's {vocab_size} (<|endoftext|> is {end_of_text}).")
        tokens = [b""] * vocab_size
        as_bytes = bytes_of(content)
        special = {entry["id"] for entry in content.get("added_tokens", []) if entry["special"]}
        for spelled, token in vocabulary.items():
            tokens[token] = b"" if token in special else as_bytes(spelled)
        super().__init__(tokens[:-1])  # which adds the last
        self._tokens = tokens

    @property
    def end_of_text(self) -> int:
        return self._end

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._library.encode(text, add_special_tokens=False).ids
        return ids

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        return np.array(self.encode(text), dtype=np.int32)

    def to_json(self) -> dict[str, Any]:
        return self._content

    def _parts(self) -> dict[str, Any]:
        return self._content


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a transformers folder, by what its config.json says; raises as `open_tokenizer` does."""
    values = files.read_json(folder / "config.json")
    if not isinstance(values, dict) or not isinstance(values.get("vocab_size"), int):
        raise ValueError(f"{folder} is damaged, or of a kind unknown here: its config.json names no vocab_size.")
    return open_tokenizer(folder, end_of_text(values), values["vocab_size"])


def end_of_text(values: dict[str, Any]) -> int | None:
    """The id that ends a document, in a config.json: of several, the first."""
    end = values.get("eos_token_id")
    return end[0] if isinstance(end, list) else end


def open_tokenizer(folder: Path, end_of_text: int | None, vocab_size: int) -> Tokenizer:
    """The tokenizer of a transformers folder; ValueError in a sentence where it cannot be opened here."""
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json. In transformers, AutoTokenizer.from_pretrained(…).save_pretrained(…) "
            "writes one."
        )
    content = files.read_json(file)
    with contextlib.suppress(ValueError):  # another program's; below
        written_here = load(folder)
        if written_here.vocab_size == vocab_size:
            return written_here
    try:
        ours = as_gpt2(content, vocab_size)
        if ours is not None:
            return ours
        if end_of_text is None:
            raise ValueError("config.json names no eos_token_id.")
        return ForeignTokenizer(content, end_of_text, vocab_size)
    except Exception as problem:  # the library raises no narrower kind
        raise ValueError(f"{file} cannot be opened: {' '.join(str(problem).split())[:200]}") from problem


def as_gpt2(content: dict[str, Any], vocab_size: int) -> BPETokenizer | None:
    """Our own tokenizer with the same ids, where the file is a BPE of bytes, cut by GPT-2's pattern, its end last."""
    before, model = content.get("pre_tokenizer") or {}, content["model"]
    plain = before.get("type") == "ByteLevel" and not before.get("add_prefix_space") and before.get("use_regex", True)
    if not plain or model.get("type") != "BPE" or content.get("normalizer") is not None:
        return None
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    ours = BPETokenizer([(unspell(left), unspell(right)) for left, right in merges])
    theirs = {spelled: token for spelled, token in model["vocab"].items() if token != ours.end_of_text}
    return ours if ours.vocab_size == vocab_size and theirs == ours.to_json()["model"]["vocab"] else None


def bytes_of(content: dict[str, Any]) -> Any:
    """How this file spells bytes: a function from an entry of the vocabulary to what it stands for."""
    told = json.dumps(content.get("decoder"))
    if '"ByteLevel"' in told:
        return unspell
    if "▁" in json.dumps(content, ensure_ascii=False):  # SentencePiece's space
        return from_pieces
    raise ValueError("its decoder is neither byte-level nor SentencePiece's.")


def from_pieces(spelled: str) -> bytes:
    """`▁the` → b" the"; `<0x0A>` → b"\\n"."""
    byte = re.fullmatch(r"<0x([0-9A-F]{2})>", spelled)
    return bytes([int(byte[1], 16)]) if byte else spelled.replace("▁", " ").encode()

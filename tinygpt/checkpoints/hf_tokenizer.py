"""The tokenizers of models that others trained: `open_tokenizer(folder, end of text, vocabulary size)`.

Ours are opened as ours, and GPT-2's becomes our BPETokenizer. Any other that has a tokenizer.json runs in the
`tokenizers` library as a HFTokenizer, with special tokens in a text read as plain text, as everywhere here. A
model's vocabulary may be larger than its tokenizer's (Qwen's is, so that its matrices have round sizes).
"""

import contextlib
from pathlib import Path
from typing import Any

from tinygpt.files.text import read_json
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer, unspell
from tinygpt.tokenizer.folder import load
from tinygpt.tokenizer.sentencepiece import HFTokenizer


def read_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a transformers folder, by what its config.json says; raises as `open_tokenizer` does."""
    values = read_json(folder / "config.json")
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
    content = read_json(file)
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
        return HFTokenizer(content, end_of_text, vocab_size)
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

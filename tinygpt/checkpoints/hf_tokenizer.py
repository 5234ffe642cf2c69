"""The tokenizer of a transformers folder: `open_tokenizer(folder, end_of_text, vocab_size)`.

Tokenizers written by TinyGPT are loaded as such, and GPT-2's becomes our BPETokenizer. Any other tokenizer.json runs in
the `tokenizers` library as an HFTokenizer, with special tokens in a text read as plain text. A model's vocabulary may
be larger than its tokenizer's (Qwen pads it to a round size).
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
    """The tokenizer of a transformers folder, using its config.json; raises like `open_tokenizer`."""
    values = read_json(folder / "config.json")
    if not isinstance(values, dict) or not isinstance(values.get("vocab_size"), int):
        raise ValueError(f"{folder} is damaged, or of a kind unknown here: its config.json has no vocab_size.")
    return open_tokenizer(folder, end_of_text(values), values["vocab_size"])


def end_of_text(values: dict[str, Any]) -> int | None:
    """eos_token_id of a config.json; the first if there are several."""
    end = values.get("eos_token_id")
    return end[0] if isinstance(end, list) else end


def open_tokenizer(folder: Path, end_of_text: int | None, vocab_size: int) -> Tokenizer:
    """The tokenizer of a transformers folder.

    Raises FileNotFoundError without a tokenizer.json, ValueError if it cannot be opened here.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(
            f"{folder} has no tokenizer.json. In transformers, AutoTokenizer.from_pretrained(…).save_pretrained(…) "
            "writes one."
        )
    content = read_json(file)
    with contextlib.suppress(ValueError):  # written by another program
        written_here = load(folder)
        if written_here.vocab_size == vocab_size:
            return written_here
    try:
        ours = as_gpt2(content, vocab_size)
        if ours is not None:
            return ours
        if end_of_text is None:
            raise ValueError("config.json has no eos_token_id.")
        return HFTokenizer(content, end_of_text, vocab_size)
    except Exception as problem:  # the library raises no narrower type
        raise ValueError(f"{file} cannot be opened: {' '.join(str(problem).split())[:200]}") from problem


def as_gpt2(content: dict[str, Any], vocab_size: int) -> BPETokenizer | None:
    """A BPETokenizer with the same ids if the file is byte-level BPE with GPT-2's pattern and <|endoftext|> last."""
    before, model = content.get("pre_tokenizer") or {}, content["model"]
    plain = before.get("type") == "ByteLevel" and not before.get("add_prefix_space") and before.get("use_regex", True)
    if not plain or model.get("type") != "BPE" or content.get("normalizer") is not None:
        return None
    merges = [pair.split(" ") if isinstance(pair, str) else pair for pair in model["merges"]]
    ours = BPETokenizer([(unspell(left), unspell(right)) for left, right in merges])
    theirs = {spelled: token for spelled, token in model["vocab"].items() if token != ours.end_of_text}
    return ours if ours.vocab_size == vocab_size and theirs == ours.to_json()["model"]["vocab"] else None

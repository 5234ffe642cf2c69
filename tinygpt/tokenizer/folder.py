"""Load a tokenizer of any kind from its folder, without a network: `tokenizer = load("data/tokenizer")`.

A tokenizer.json that differs in any part from what `save` writes is refused; nothing is unpickled.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tinygpt.files.text import check_fetched, read_json
from tinygpt.tokenizer import bpe, sentencepiece
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.chat_template import END, Messages, check_conversation
from tinygpt.tokenizer.sentencepiece import HFTokenizer


def load(folder: Path | str) -> Tokenizer:
    """Load the tokenizer that `save` wrote.

    Raises FileNotFoundError if there is none, ValueError if it is damaged or written by another program.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"No tokenizer at {folder}. Run `dvc repro tokenize`.")
    check_fetched(file)
    try:
        found, metadata = read_json(file), _hf_metadata(Path(folder))
        tokenizer = _rebuild(found) if metadata is None else _rebuild_hf(found, metadata)
        if metadata is None and any(token["content"] == END for token in found["added_tokens"]):
            tokenizer = tokenizer.with_roles()
        _check_equal(tokenizer.to_json(), found)
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        why = " ".join(str(problem).split())[:200]
        raise ValueError(f"{file} is damaged, or not TinyGPT's: {why} Run `dvc repro tokenize`.") from problem
    return tokenizer


def check_texts(tokenizer: Tokenizer, texts: Iterable[str], key: str) -> None:
    """Raise ValueError for a text that the tokenizer cannot encode; `key`: the parameter that holds it."""
    for text in texts:
        try:
            tokenizer.encode_array(text)
        except ValueError as problem:
            raise ValueError(f"{key} holds {text!r:.60}. {problem}") from None


def check_messages(tokenizer: Tokenizer, messages: Messages, context_length: int, key: str) -> None:
    """Raise ValueError for messages that a model of this context cannot answer; `key`: the parameter."""
    try:
        checked = check_conversation(messages, answered=False)
        size = len(tokenizer.encode_messages(checked, add_generation_prompt=True)[0])
    except ValueError as problem:
        raise ValueError(f"{key} holds {messages!r:.60}: {str(problem).removesuffix('.')}. Correct it.") from None
    if size > context_length:
        raise ValueError(f"{key} holds messages of {size} tokens; the context is {context_length}. Shorten them.")


def _hf_metadata(folder: Path) -> dict[str, Any] | None:
    """The entry `tinygpt` that `HFTokenizer.save` writes to tokenizer_config.json; None for other tokenizers."""
    file = folder / "tokenizer_config.json"
    settings = read_json(file) if file.is_file() else {}
    return settings.get("tinygpt")


def _rebuild(content: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a tokenizer.json, from as few of its values as possible; `load` compares the rest."""
    model = content["model"]
    if model["type"] == "WordLevel":
        return CharTokenizer(model["vocab"], "replace" if model["unk_token"] in model["vocab"] else "error")
    if model["type"] == "Unigram" or model.get("byte_fallback"):
        return sentencepiece.rebuild(model)
    if model["type"] == "BPE":
        return bpe.rebuild(content)
    raise ValueError(f"its model is {model['type']!r}, not WordLevel, BPE or Unigram.")


def _rebuild_hf(content: dict[str, Any], metadata: dict[str, Any]) -> HFTokenizer:
    kinds = {name: type(value) for name, value in metadata.items()}
    if {"has_roles": bool} | kinds != {"end_of_text": int, "vocab_size": int, "has_roles": bool}:
        raise ValueError("tokenizer_config.json lacks end_of_text or vocab_size.")
    try:
        return HFTokenizer(content, **metadata)
    except Exception as problem:  # the library raises no narrower type
        raise ValueError(str(problem)) from problem


def _check_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise ValueError for the first part of a tokenizer.json that differs from what `save` would write."""
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            raise ValueError(f"its {key} is not what TinyGPT writes.")

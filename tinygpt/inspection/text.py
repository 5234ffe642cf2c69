"""The text under inspection, and how its tokens are displayed.

`subject = of_text(model, tokenizer, "ROMEO:")`, or `held_out(model, tokenizer, tokens)`. `label(tokenizer, id)` → a
token in visible characters; `displayed_tokens` splits a text, `merge_ladders` shows BPE merges. Activations are in
activations.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import regex

from tinygpt.data.dataset import Tokens, open_tokens
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer import pretokenize
from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer

SPECIAL = {  # special tokens as they are shown
    "<|endoftext|>": "‹end›",
    "<|system|>": "‹system›",
    "<|user|>": "‹user›",
    "<|assistant|>": "‹assistant›",
    "<|end|>": "‹end turn›",
}
UNPRINTABLE = "▯"  # stands for a control or joining character
SENTENCE = 28  # tokens that fit legibly into a map or a table
SEARCHED = 2000  # tokens searched for the beginning of a paragraph
COUNTED = 2**20  # tokens counted to find the frequent ones
LONGEST_WORD = 24  # characters of a word whose merges are shown


@dataclass(frozen=True)
class Subject:
    """A model, and a text that fits into its context."""

    model: GPT
    tokenizer: Tokenizer
    text: list[int]  # ids, 1 to context_length
    short: int  # the number of ids, from the first, shown in maps and tables
    frequent: list[int]  # tokens whose embeddings are compared
    by_position: np.ndarray | None = None  # (T,) mean loss in nats by position, if known
    left_out: int = 0  # tokens before `text`, beyond the context


def of_text(model: GPT, tokenizer: Tokenizer, text: str) -> Subject:
    """The user's text, truncated to the last tokens that fit the context. Raises ValueError if it is empty."""
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError("The text is empty. Give a text, or leave it out to inspect held-out text.")
    seen = ids[-model.config.context_length :]
    return Subject(model, tokenizer, seen, len(seen), frequent(ids, tokenizer), left_out=len(ids) - len(seen))


def held_out(model: GPT, tokenizer: Tokenizer, tokens: Tokens, by_position: np.ndarray | None = None) -> Subject:
    """A passage of held-out text as long as the context; maps and tables show its first SENTENCE tokens."""
    seen = passage(tokens, tokenizer, model.config.context_length)
    shown = min(SENTENCE, len(seen))
    return Subject(model, tokenizer, seen, shown, frequent(tokens[:COUNTED], tokenizer), by_position)


def beside(folder: Path) -> Tokens:
    """The held-out tokens of the pipeline that contains a model folder.

    Raises FileNotFoundError if there are none, ValueError if another tokenizer made them.
    """
    paths = Paths(folder.resolve().parent.parent)
    if not paths.ids("validation").is_file():
        raise FileNotFoundError(f"There is no held-out text beside {folder}. Give a text to inspect.")
    if read_json(paths.tokens / "lineage.json")["tokenizer"] != sha256(folder / "tokenizer.json"):
        raise ValueError(
            f"{paths.tokens} was made by another tokenizer than that of {folder}. Give a text, or run `dvc repro`."
        )
    return open_tokens(paths.ids("validation"))


def passage(tokens: Tokens, tokenizer: Tokenizer, length: int) -> list[int]:
    """Up to `length` tokens from the first paragraph (or else line) that begins after a third of the text; of
    conversations, from the first of them.
    """
    start = min(len(tokens) // 3, max(0, len(tokens) - length))
    if tokenizer.has_roles:
        begins = np.flatnonzero(tokens[start:][:SEARCHED] == tokenizer.end_of_text)
        start += int(begins[0]) if len(begins) else 0
        return [int(token) for token in tokens[start:][:length]]
    near = [tokenizer.token_bytes(int(token)) for token in tokens[start : max(start, len(tokens) - length)][:SEARCHED]]
    for ending in (b"\n\n", b"\n"):
        for place in range(1, len(near) + 1):
            if b"".join(near[max(0, place - 2) : place]).endswith(ending):
                return [int(token) for token in tokens[start + place :][:length]]
    return [int(token) for token in tokens[start:][:length]]


def frequent(ids: Sequence[int] | Tokens, tokenizer: Tokenizer, count: int = 14) -> list[int]:
    """The most frequent tokens of a text; words of three or more letters come first."""
    tokens, counts = np.unique(np.asarray(ids), return_counts=True)
    words = [len(word := tokenizer.decode([int(token)]).strip()) > 2 and word.isalpha() for token in tokens]
    order = np.lexsort((tokens, -counts, np.logical_not(words)))
    return [int(token) for token in tokens[order[:count]]]


def label(tokenizer: Tokenizer, token: int, longest: int = 12) -> str:
    """A token in visible characters, truncated: · is a space, ↵ a newline, � part of a character."""
    text = tokenizer.token_bytes(token).decode("utf-8", errors="replace")
    shown = special_label(tokenizer, token) or readable(text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def special_label(tokenizer: Tokenizer, token: int) -> str:
    """How a special token is shown; "" for any other token."""
    return SPECIAL.get(tokenizer.special_tokens.get(token, ""), "")


def readable(text: str, space: str = "·") -> str:
    """White space made visible, and control characters, which could move a terminal's cursor, replaced."""
    symbols = {" ": space, "\n": "↵", "\t": "⇥"}
    return "".join(symbols.get(c, c if c.isprintable() else UNPRINTABLE) for c in text)


def displayed_tokens(tokenizer: Tokenizer, ids: Sequence[int], bits: Sequence[float]) -> list[tuple[str, float]]:
    """(text, bits) of each token; tokens that share a character are one entry with their bits added.

    Spaces stay spaces; a newline is ↵.
    """
    decoder = StreamingDecoder(tokenizer)
    displayed, pending = [], 0.0
    for count, (token, value) in enumerate(zip(ids, bits, strict=True), start=1):
        text = decoder.decode(token, last=count == len(ids))
        pending += value
        if not decoder.inside:
            displayed.append((special_label(tokenizer, token) or readable(text, space=" "), pending))
            pending = 0.0
    return displayed


def merge_ladders(tokenizer: Tokenizer, ids: Iterable[int], words: int = 3) -> list[list[str]]:
    """The BPE merges of the longest words, one line per merge, for printing; empty for other tokenizers."""
    if not isinstance(tokenizer, BPETokenizer) or not tokenizer.learned_here:  # GPT-2's pattern splits the words below
        return []
    ladders = []
    for word in sorted(dict.fromkeys(regex.findall(pretokenize.PATTERN, tokenizer.decode(ids))), key=len, reverse=True)[
        :words
    ]:
        steps = tokenizer.merge_history(word[:LONGEST_WORD])
        shown = ["|".join(readable(part.decode("utf-8", errors="replace")) for part in parts) for _, parts in steps]
        names = [f"merge {number}" if number else "bytes" for number, _ in steps]
        ladders.append([f"{name:>11}  {text}" for name, text in zip(names, shown, strict=True)])
    return ladders

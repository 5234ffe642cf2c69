"""The text under inspection, and how its tokens are displayed.

`subject = of_text(model, tokenizer, "ROMEO:")`, or `held_out(model, tokenizer, tokens)`; `label(tokenizer, id)` → a
token as ink. `pieces` and `merge_ladders` say how tokens make up a text, and how byte pairs made up the tokens. Left
out: everything that asks the model (activations.py).
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

END = "‹end›"  # <|endoftext|>
UNSHOWN = "▯"  # a character that is no ink: a control, a joiner
SENTENCE = 28  # tokens of a held-out text that a map or a table holds and can still be read
SEARCHED = 2000  # tokens in which a passage looks for its beginning
COUNTED = 2**20  # tokens of a held-out text in which the frequent ones are found
LONGEST_WORD = 24  # characters of a word whose merges are shown


@dataclass(frozen=True)
class Subject:
    """What is looked at: a model, and a text that fits into its context."""

    model: GPT
    tokenizer: Tokenizer
    text: list[int]  # ids, 1 to context_length
    short: int  # so many of them, from the first, are in maps and tables
    telling: list[int]  # tokens whose embeddings are worth comparing
    by_position: np.ndarray | None = None  # (T,) mean loss after so many tokens, nats, where it is known
    left_out: int = 0  # tokens before those of `text`, which the model cannot see


def of_text(model: GPT, tokenizer: Tokenizer, text: str) -> Subject:
    """People's own text; of one that is too long, the end. ValueError where it is empty."""
    ids = tokenizer.encode(text)
    if not ids:
        raise ValueError("The text is empty, so there is nothing to look at. Write some, or leave it out.")
    seen = ids[-model.config.context_length :]
    return Subject(model, tokenizer, seen, len(seen), telling(ids, tokenizer), left_out=len(ids) - len(seen))


def held_out(model: GPT, tokenizer: Tokenizer, tokens: Tokens, by_position: np.ndarray | None = None) -> Subject:
    """A passage of held-out text, as long as the context; its first sentence or so for maps and tables."""
    seen = passage(tokens, tokenizer, model.config.context_length)
    return Subject(model, tokenizer, seen, min(SENTENCE, len(seen)), telling(tokens[:COUNTED], tokenizer), by_position)


def beside(folder: Path) -> Tokens:
    """The held-out text of the pipeline that a model folder lies in.

    FileNotFoundError where there is none, ValueError where it was cut by another tokenizer; each says what to do.
    """
    paths = Paths(folder.resolve().parent.parent)
    if not paths.ids("validation").is_file():
        raise FileNotFoundError(f"There is no held-out text beside {folder}. Write the text that you want to look at.")
    if read_json(paths.tokens / "lineage.json")["tokenizer"] != sha256(folder / "tokenizer.json"):
        raise ValueError(
            f"{paths.tokens} was cut by another tokenizer than {folder} has. Write a text, or run `dvc repro`."
        )
    return open_tokens(paths.ids("validation"))


def passage(tokens: Tokens, tokenizer: Tokenizer, length: int) -> list[int]:
    """Up to `length` tokens of a text, from the first paragraph, or else line, that begins after a third of it."""
    start = min(len(tokens) // 3, max(0, len(tokens) - length))
    near = [tokenizer.token_bytes(int(token)) for token in tokens[start : max(start, len(tokens) - length)][:SEARCHED]]
    for ending in (b"\n\n", b"\n"):
        for place in range(1, len(near) + 1):
            if b"".join(near[max(0, place - 2) : place]).endswith(ending):
                return [int(token) for token in tokens[start + place :][:length]]
    return [int(token) for token in tokens[start:][:length]]


def telling(ids: Sequence[int] | Tokens, tokenizer: Tokenizer, count: int = 14) -> list[int]:
    """The tokens of a text that are worth comparing: words of three letters and more first, then by how often."""
    found, times = np.unique(np.asarray(ids), return_counts=True)
    words = [len(word := tokenizer.decode([int(token)]).strip()) > 2 and word.isalpha() for token in found]
    order = np.lexsort((found, -times, np.logical_not(words)))
    return [int(token) for token in found[order[:count]]]


def label(tokenizer: Tokenizer, token: int, longest: int = 12) -> str:
    """A token for people: · for a space, ↵ for a new line, � for a part of a character; cut where it is long."""
    text = tokenizer.token_bytes(token).decode("utf-8", errors="replace")
    shown = END if token == tokenizer.end_of_text else readable(text)
    return shown if len(shown) <= longest else shown[: longest - 1] + "…"


def readable(text: str, space: str = "·") -> str:
    """White space as ink, and nothing that could move a terminal's cursor or turn its text around."""
    marks = {" ": space, "\n": "↵", "\t": "⇥"}
    return "".join(marks.get(sign, sign if sign.isprintable() else UNSHOWN) for sign in text)


def pieces(tokenizer: Tokenizer, ids: Sequence[int], bits: Sequence[float]) -> list[tuple[str, float]]:
    """A text in pieces to be read, with the bits of each: a token, or those together that share a character.

    Spaces stay spaces; a new line is ↵.
    """
    decoder = StreamingDecoder(tokenizer)
    found, waiting = [], 0.0
    for place, (token, value) in enumerate(zip(ids, bits, strict=True), start=1):
        text = decoder.decode(token, last=place == len(ids))
        waiting += value
        if not decoder.inside:
            found.append((END if token == tokenizer.end_of_text else readable(text, space=" "), waiting))
            waiting = 0.0
    return found


def merge_ladders(tokenizer: Tokenizer, ids: Iterable[int], words: int = 3) -> list[list[str]]:
    """How the longest words of a text merge, a line a merge, to be printed. Empty for a tokenizer without merges."""
    if not isinstance(tokenizer, BPETokenizer) or not tokenizer.learned_here:  # words are split as GPT-2's are, below
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

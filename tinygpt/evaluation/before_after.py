"""Evaluate fine-tuning: bits per byte before and after, on the new text and on the base model's.

`compare` measures the base model and the fine-tuned one on each text: the held-out split of the new text and, from
`base_text`, that of the base model's text. `verdict` summarises the result in one line.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from tinygpt.checkpoints.locate import find_text
from tinygpt.data.corpus import read_rows
from tinygpt.data.dataset import Batch, evaluation_windows, open_tokens
from tinygpt.data.encode import write_tokens
from tinygpt.evaluation.metrics import evaluate
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer


class Text(NamedTuple):
    """A held-out text."""

    windows: Callable[[], Iterator[Batch]]  # inputs and targets, int64 (B, T) each
    bytes: int | None  # its size; None: of the counted tokens
    separator: int | None = None  # as in GPT.forward


def base_text(folder: str, tokenizer: Tokenizer, context_length: int, batch_size: int) -> Text:
    """The held-out split of a data/corpus folder, tokenized; raises as `locate.find_text` does."""
    file = find_text(folder)
    sizes: list[int] = []
    with TemporaryDirectory() as temporary:
        path = Path(temporary) / "text.npy"
        write_tokens(read_rows(file), tokenizer, path, sizes.append)
        tokens = open_tokens(path).copy()
    return Text(partial(evaluation_windows, tokens, context_length, batch_size), sum(sizes))


def bits_per_byte(model: GPT, text: Text, tokenizer: Tokenizer, cast: AbstractContextManager[Any]) -> float:
    """Bits per byte of a model on a text, over non-overlapping context windows."""
    result = evaluate(model, text.windows(), tokenizer, cast, text.separator)
    return result.bits_per_byte(text.bytes or int(result.bytes.sum()))[0]


def compare(
    base: GPT,
    model: GPT,
    texts: Iterable[tuple[str, Text]],
    known: dict[str, float],
    tokenizer: Tokenizer,
    cast: AbstractContextManager[Any],
) -> dict[str, dict[str, float]]:
    """For each text, bits per byte "before" (base model) and "after" (fine-tuned).

    known: values of "after", by text name, that need not be computed again.
    """
    results = {}
    for name, text in texts:
        before = bits_per_byte(base, text, tokenizer, cast)
        after = known[name] if name in known else bits_per_byte(model, text, tokenizer, cast)
        results[name] = {"before": before, "after": after}
    return results


def verdict(numbers: dict[str, Any]) -> str:
    """The change by fine-tuning, in one line. numbers: text → bits per byte before and after."""
    parts = []
    for name, bits in numbers.items():
        change = f"{bits['after'] / bits['before'] - 1:+.0%}"
        parts.append(f"{name.replace('_', ' ')} {bits['before']:.3f} → {bits['after']:.3f} ({change})")
    return f"fine-tuning, bits per byte before and after: {'; '.join(parts)}"

"""Evaluate a model: loss, perplexity and bits per byte over the whole held-out text, and loss by position.

Windows of context length do not overlap, so every token is predicted once. Nothing is random, so the same model gives
the same numbers. Compare models by bits per byte: unlike nats per token, it does not depend on the tokenizer, and
compressors are measured in it, too.
"""

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tinygpt.data.dataset import Batch
from tinygpt.model.gpt import GPT
from tinygpt.model.loss import IGNORED, token_losses
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import END

UNICODE = 0x110000  # code points: naming a character is a choice among so many


@dataclass(frozen=True)
class Evaluation:
    """The losses on a text, from which all metrics are computed."""

    nats: np.ndarray  # (windows,) float64: summed over a window's tokens
    bytes: np.ndarray  # (windows,) int64: size of the text of these tokens
    unknown: np.ndarray  # (windows,) int64: number of tokens for characters outside the vocabulary
    by_position: np.ndarray  # (T,) float64: mean nats of the token after 1, 2, … T tokens; NaN where none counts
    tokens: int  # number of predicted tokens

    @property
    def loss(self) -> float:
        """Mean cross-entropy, nats per token."""
        return float(self.nats.sum() / self.tokens)

    def bits_per_byte(self, text_bytes: int) -> tuple[float, float | None]:
        """(bits per byte of the text, its standard error; None if there is only one window).

        A character outside the vocabulary costs extra bits: those that select it from all of Unicode, since predicting
        � does not say which character it is. The error is that of a ratio of two sums over windows (Cochran 1977,
        section 2.11). It estimates the variation between texts of this length and kind, not between training seeds.
        """
        bits = self.nats / math.log(2) + self.unknown * math.log2(UNICODE)
        ratio, n = float(bits.sum() / text_bytes), len(bits)
        if n == 1:
            return ratio, None
        residuals = bits - ratio * self.bytes
        return ratio, math.sqrt(n / (n - 1) * float((residuals**2).sum())) / text_bytes


@torch.no_grad()
def evaluate(
    model: GPT,
    windows: Iterable[Batch],
    tokenizer: Tokenizer,
    cast: AbstractContextManager[Any],
    separator: int | None = None,
) -> Evaluation:
    """Run the model over all windows: batches of inputs and targets, int64 (B, T'), T' ≤ context_length; at least one.

    Targets that are IGNORED are left out. An <|end|> counts as one byte: it stands for the end of a line. cast: the
    context manager for the precision, from hardware.autocast. separator: as in GPT.forward. The model is left in eval
    mode.
    """
    device, byte_lengths = next(model.parameters()).device, tokenizer.byte_lengths()
    if tokenizer.has_roles:
        byte_lengths[tokenizer.role_token(END)] = 1
    model.eval()
    nats: list[np.ndarray] = []
    sizes: list[np.ndarray] = []
    unknown: list[np.ndarray] = []
    sums, counts = np.zeros(model.config.context_length), np.zeros(model.config.context_length)
    for inputs, targets in windows:
        with cast:
            logits = model(inputs.to(device), separator)
        losses = token_losses(logits, targets.to(device))  # (B, T'), 0 where IGNORED
        ids, counted = targets.numpy(), targets.numpy() != IGNORED
        nats.append(losses.sum(axis=1))
        sizes.append(np.where(counted, byte_lengths[ids * counted], 0).sum(axis=1))
        unknown.append((ids == tokenizer.unknown).sum(axis=1))
        sums[: losses.shape[1]] += losses.sum(axis=0)
        counts[: losses.shape[1]] += counted.sum(axis=0)
    reached = int(counts.nonzero()[0][-1]) + 1
    return Evaluation(
        nats=np.concatenate(nats),
        bytes=np.concatenate(sizes),
        unknown=np.concatenate(unknown),
        by_position=np.divide(sums, counts, out=np.full(len(sums), np.nan), where=counts > 0)[:reached],
        tokens=int(counts.sum()),
    )


def metrics(evaluation: Evaluation, baselines: dict[str, Any], chat: bool = False) -> dict[str, Any]:
    """The content of data/evaluation/metrics.json; `baselines` is that of data/corpus/baselines.json.

    `loss` is in nats per token, `perplexity` is exp(loss), at most e^700; `bits_per_byte` and the baselines are in bits
    per UTF-8 byte of the held-out text. chat: `bytes`, `tokens` and all losses are those of the assistant's answers.
    """
    size = int(evaluation.bytes.sum()) if chat else baselines["validation_bytes"]
    bits, error = evaluation.bits_per_byte(size)
    return {
        "loss": evaluation.loss,
        "perplexity": math.exp(min(evaluation.loss, 700.0)),
        "bits_per_byte": bits,
        "bits_per_byte_standard_error": error,
        "tokens": evaluation.tokens,
        "bytes": size,
        "unknown_characters": int(evaluation.unknown.sum()),
        "baselines": baselines["bits_per_byte"],
    }


def verdict(metrics: dict[str, Any], before: dict[str, Any] | None) -> str:
    """One line: this run compared with the baselines and with the previous run on the same text."""
    bits, error = metrics["bits_per_byte"], metrics["bits_per_byte_standard_error"]
    baselines = sorted(metrics["baselines"].items(), key=lambda item: -item[1])
    beaten = [f"{name} {value:.3f}" for name, value in baselines if value > bits]
    ahead = [f"{name} {value:.3f}" for name, value in baselines if value <= bits]
    spread = "" if error is None else f" ± {error:.3f}"
    line = f"{bits:.3f}{spread} bits per byte: better than {', '.join(beaten) or 'none of the baselines'}"
    line += f"; not yet {', '.join(ahead)}" if ahead else ""
    if before is None:
        return line + "."
    if before["bytes"] != metrics["bytes"] or before["baselines"] != metrics["baselines"]:
        return line + ". The run before was on another text."
    change = bits - before["bits_per_byte"]
    return line + f". The run before: {before['bits_per_byte']:.3f} ({change:+.3f})."

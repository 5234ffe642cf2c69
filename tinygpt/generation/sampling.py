"""From logits to the next token: temperature, top-k, top-p, min-p, repetition penalty.

`probabilities(logits, settings)` turns logits into a distribution, and `sample_from` draws tokens from it. The filters
apply in a fixed order, as in transformers: repetition penalty, temperature, top-k, top-p, min-p. At least one token
always remains.
"""

import difflib
import inspect
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from tinygpt.config import SAMPLING


@dataclass(frozen=True)
class Sampling:
    """How to sample; config.SAMPLING explains each setting. ValueError for a value out of bounds."""

    temperature: float = SAMPLING["temperature"].default
    top_k: int = int(SAMPLING["top_k"].default)
    top_p: float = SAMPLING["top_p"].default
    min_p: float = SAMPLING["min_p"].default
    repetition_penalty: float = SAMPLING["repetition_penalty"].default

    def __post_init__(self) -> None:
        """Validate each field, and convert numbers of NumPy and PyTorch to Python's."""
        for name, setting in SAMPLING.items():
            kind = operator.index if name == "top_k" else float
            value = validated_number(name, getattr(self, name), kind, setting.fits, setting.allowed)
            object.__setattr__(self, name, value)


class Settings(TypedDict, total=False):
    """The fields of Sampling as keyword arguments of `generate` and others; None turns a filter off."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None


def from_keywords(caller: Callable[..., Any], settings: Mapping[str, Any]) -> Sampling:
    """The Sampling for keyword arguments of `caller`; TypeError for an unknown one, with the most similar name."""
    others = [each.name for each in inspect.signature(caller).parameters.values() if each.kind is each.KEYWORD_ONLY]
    known = [*others, *Settings.__annotations__]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(known)}."
            raise TypeError(f"{name} is no keyword of {caller.__name__}; {hint}")
    values: dict[str, Any] = {name: SAMPLING[name].off if value is None else value for name, value in settings.items()}
    return Sampling(**values)


def validated_integer(name: str, value: Any, least: int, most: int = 2**62) -> int:
    """`value` as a Python int, within least … most. ValueError, which names it, if it is not."""
    allowed = f"{least} or more, and at most {most}"
    found: int = validated_number(name, value, operator.index, lambda found: least <= found <= most, allowed)
    return found


def validated_number(
    name: str, value: Any, kind: Callable[[Any], Any], fits: Callable[[Any], bool], allowed: str
) -> Any:
    """kind(value), if that `fits`; else ValueError, which names it and says what is allowed.

    kind: `float`, or `operator.index` for integers. Booleans and strings are refused.
    """
    try:
        found = None if isinstance(value, bool | str | bytes) else kind(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = None
    if found is None:
        allowed = f"{'a whole number' if kind is operator.index else 'a number'}, {allowed}"
    if found is None or not fits(found):
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")
    return found


def probabilities(logits: Tensor, settings: Sampling, seen: Tensor | None = None) -> Tensor:
    """The distribution to sample from: logits (B, V) of any floating dtype → float32 (B, V), rows sum to one.

    seen: bool (B, V), for the repetition penalty: whether the token occurs in the prompt or the text generated so far.
    """
    logits = logits.float()
    logits = apply_repetition_penalty(logits, seen, settings.repetition_penalty)
    if settings.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    scaled = (
        logits - logits.amax(-1, keepdim=True)
    ).double() / settings.temperature  # no overflow at a tiny temperature
    probs = torch.softmax(scaled, dim=-1).float()
    if settings.top_k:
        probs = keep_top_k(probs, settings.top_k)
    if settings.top_p < 1:
        probs = keep_top_p(probs, settings.top_p)
    if settings.min_p:
        probs = keep_min_p(probs, settings.min_p)
    return probs


def apply_repetition_penalty(logits: Tensor, seen: Tensor | None, penalty: float) -> Tensor:
    """Make seen tokens less likely: divide positive logits, multiply negative ones (Keskar et al. 2019).

    logits (B, V), seen bool (B, V) → (B, V) of the logits' dtype.
    """
    if seen is None or penalty == 1:
        return logits
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens (Fan et al. 2018): exactly k even with ties; all if k exceeds V.

    Probabilities (B, V) → (B, V), renormalised: rows sum to one.
    """
    best = probs.topk(min(k, probs.shape[-1]), dim=-1)
    return renormalised(torch.zeros_like(probs).scatter_(-1, best.indices, best.values))


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """Keep the fewest likeliest tokens whose probabilities sum to at least p (nucleus sampling, Holtzman et al. 2020).

    Probabilities (B, V) → (B, V), renormalised. Of equally likely tokens at the boundary, the first ones are kept.
    NumPy sorts values in a tenth of the time that PyTorch takes for values and indices; the smallest kept value then
    decides which tokens stay.
    """
    ordered = torch.from_numpy(np.sort(probs.numpy(force=True), axis=-1)).to(probs.device).flip(-1)  # descending
    before = ordered.cumsum(dim=-1) - ordered  # probability of the likelier tokens; 0 for the first, so it stays
    count = (before < p).sum(-1, keepdim=True)  # (B, 1)
    least = ordered.gather(-1, count - 1)
    above, equal = probs > least, probs == least
    kept = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return renormalised(probs * kept)


def keep_min_p(probs: Tensor, min_p: float) -> Tensor:
    """Drop tokens less likely than `min_p` times the likeliest (Nguyen et al. 2024): (B, V) → (B, V), renormalised."""
    return renormalised(probs * (probs >= min_p * probs.amax(-1, keepdim=True)))


def renormalised(probs: Tensor) -> Tensor:
    """Scale each row to sum to one: (B, V), with a positive sum in each row → (B, V)."""
    return probs / probs.sum(-1, keepdim=True)


def sample_from(probs: Tensor, uniforms: Tensor) -> Tensor:
    """Draw one token per row by inverse transform: probabilities (B, V), uniforms in [0, 1) (B,) → int64 (B,).

    The drawn token is the first whose cumulative probability exceeds the uniform number, so each row depends on its own
    number only. A token of probability zero is never drawn.
    """
    ladder = probs.double().cumsum(-1)  # float64: the sum of 50,000 small probabilities still ends at one
    target = uniforms.double()[:, None] * ladder[:, -1:]
    return torch.searchsorted(ladder, target, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)


def sample(logits: Tensor, settings: list[Sampling], seen: Tensor | None, uniforms: Tensor) -> Tensor:
    """Sample one token per row, with that row's settings.

    logits (B, V), settings: B of them, seen bool (B, V) or None, uniforms in [0, 1) (B,) → int64 (B,).
    """
    if settings.count(settings[0]) == len(settings):
        return sample_alike(logits, settings[0], seen, uniforms)
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for shared in dict.fromkeys(settings):  # rows with the same settings in one call
        rows = [row for row, other in enumerate(settings) if other == shared]
        ids[rows] = sample_alike(logits[rows], shared, None if seen is None else seen[rows], uniforms[rows])
    return ids


def sample_alike(logits: Tensor, settings: Sampling, seen: Tensor | None, uniforms: Tensor) -> Tensor:
    """`sample` for rows that share their settings: logits (B, V), seen bool (B, V), uniforms (B,) → int64 (B,)."""
    if settings.temperature == 0:  # nothing is drawn
        return apply_repetition_penalty(logits, seen, settings.repetition_penalty).argmax(-1)
    return sample_from(probabilities(logits, settings, seen), uniforms)

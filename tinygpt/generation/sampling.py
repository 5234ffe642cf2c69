"""From logits to the next token: temperature, top-k, top-p, min-p, repetition penalty.

`probabilities(logits, settings)` turns logits into the distribution that is sampled, and `sample_from` takes from it.
The filters apply in one fixed order, that of transformers: repetition penalty, temperature, top-k, top-p, min-p. At
least one token always remains.
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
    """How to sample, as config.SAMPLING explains each setting. ValueError, in a sentence, for one out of bounds."""

    temperature: float = SAMPLING["temperature"].default
    top_k: int = int(SAMPLING["top_k"].default)
    top_p: float = SAMPLING["top_p"].default
    min_p: float = SAMPLING["min_p"].default
    repetition_penalty: float = SAMPLING["repetition_penalty"].default

    def __post_init__(self) -> None:
        """Keep each field as Python's own number, also where it is NumPy's or PyTorch's."""
        for name, setting in SAMPLING.items():
            kind = operator.index if name == "top_k" else float
            object.__setattr__(self, name, number(name, getattr(self, name), kind, setting.fits, setting.allowed))


class Settings(TypedDict, total=False):
    """The fields of Sampling as keywords of `generate` and the like; None turns a filter off."""

    temperature: float
    top_k: int | None
    top_p: float | None
    min_p: float | None
    repetition_penalty: float | None


def from_keywords(caller: Callable[..., Any], settings: Mapping[str, Any]) -> Sampling:
    """The Sampling of these keywords of `caller`; TypeError, with the nearest name, for one that it does not take."""
    others = [one.name for one in inspect.signature(caller).parameters.values() if one.kind is one.KEYWORD_ONLY]
    known = [*others, *Settings.__annotations__]
    for name in settings:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else f"allowed here: {', '.join(known)}."
            raise TypeError(f"{name} is no keyword of {caller.__name__}; {hint}")
    values: dict[str, Any] = {name: SAMPLING[name].off if value is None else value for name, value in settings.items()}
    return Sampling(**values)


def whole(name: str, value: Any, least: int, most: int = 2**62) -> int:
    """A whole number within bounds, as Python's own. ValueError, in a sentence, where it is none."""
    return int(
        number(
            name, value, operator.index, lambda found: least <= found <= most, f"{least} or more, and at most {most}"
        )
    )


def number(name: str, value: Any, kind: Callable[[Any], Any], fits: Callable[[Any], bool], allowed: str) -> Any:
    """kind(value), finite, where it is a number that fits. ValueError, in a sentence, where it is not."""
    try:
        found = None if isinstance(value, bool | str | bytes) else kind(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = None
    if found is None:
        allowed = f"{'a whole number' if kind is operator.index else 'a number'}, {allowed}"
    if found is None or found == float("inf") or not fits(found):
        raise ValueError(f"{name} is {value!r}; it must be {allowed}.")
    return found


def probabilities(logits: Tensor, settings: Sampling, seen: Tensor | None = None) -> Tensor:
    """The distribution to sample from: logits (B, V), of any floating type → float32 (B, V), rows sum to one.

    seen: bool (B, V), the tokens of the prompt and those generated so far, for the repetition penalty.
    """
    logits = logits.float()
    logits = apply_repetition_penalty(logits, seen, settings.repetition_penalty)
    if settings.temperature == 0:
        return torch.zeros_like(logits).scatter_(-1, logits.argmax(-1, keepdim=True), 1.0)
    scaled = (logits - logits.amax(-1, keepdim=True)).double() / settings.temperature  # a tiny one must not overflow
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

    logits (B, V), seen bool (B, V) → (B, V) of the same type.
    """
    if seen is None or penalty == 1:
        return logits
    lowered = torch.where(logits > 0, logits / penalty, logits * penalty)
    return torch.where(seen, lowered, logits)


def keep_top_k(probs: Tensor, k: int) -> Tensor:
    """Keep the k likeliest tokens (Fan et al. 2018), exactly k also among equals; k beyond V keeps all.

    Probabilities (B, V) → (B, V), rows sum to one again.
    """
    best = probs.topk(min(k, probs.shape[-1]), dim=-1)
    return renormalised(torch.zeros_like(probs).scatter_(-1, best.indices, best.values))


def keep_top_p(probs: Tensor, p: float) -> Tensor:
    """Keep the smallest set of likeliest tokens that holds probability p (nucleus sampling, Holtzman et al. 2020).

    Probabilities (B, V) → (B, V), rows sum to one again. Among equals, the first ones. Sorting values alone takes NumPy
    a tenth of the time that PyTorch takes for values and places; the least likely value that stays then tells who does.
    """
    ordered = torch.from_numpy(np.sort(probs.numpy(force=True), axis=-1)).to(probs.device).flip(-1)  # falling
    before = ordered.cumsum(dim=-1) - ordered  # what the likelier tokens hold; 0 for the first, which thus stays
    count = (before < p).sum(-1, keepdim=True)  # (B, 1)
    least = ordered.gather(-1, count - 1)
    above, equal = probs > least, probs == least
    kept = above | (equal & (equal.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
    return renormalised(probs * kept)


def keep_min_p(probs: Tensor, min_p: float) -> Tensor:
    """Drop tokens less likely than `min_p` of the likeliest (Nguyen et al. 2024): (B, V) → (B, V), as above."""
    return renormalised(probs * (probs >= min_p * probs.amax(-1, keepdim=True)))


def renormalised(probs: Tensor) -> Tensor:
    """Rows that sum to one: (B, V), something in each row → (B, V)."""
    return probs / probs.sum(-1, keepdim=True)


def sample_from(probs: Tensor, uniforms: Tensor) -> Tensor:
    """One token a row: (B, V) and numbers in [0, 1) of shape (B,) → int64 (B,).

    The token whose slice of the cumulative probability holds the number; so a row's draw depends on its own number
    only, and not on the rows beside it. A token of probability zero has an empty slice and is never drawn.
    """
    ladder = probs.double().cumsum(-1)  # in float64, so that 50,000 small steps still end at one
    target = uniforms.double()[:, None] * ladder[:, -1:]
    return torch.searchsorted(ladder, target, right=True).squeeze(-1).clamp(max=probs.shape[-1] - 1)


def sample(logits: Tensor, settings: list[Sampling], seen: Tensor | None, uniforms: Tensor) -> Tensor:
    """One token a row, each row by its own settings: (B, V), B of them, bool (B, V), numbers (B,) → int64 (B,)."""
    if settings.count(settings[0]) == len(settings):
        return sample_alike(logits, settings[0], seen, uniforms)
    ids = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for one in dict.fromkeys(settings):  # rows of the same settings together
        rows = [row for row, other in enumerate(settings) if other == one]
        ids[rows] = sample_alike(logits[rows], one, None if seen is None else seen[rows], uniforms[rows])
    return ids


def sample_alike(logits: Tensor, settings: Sampling, seen: Tensor | None, uniforms: Tensor) -> Tensor:
    """The same for rows of one setting: (B, V), bool (B, V), numbers (B,) → int64 (B,)."""
    if settings.temperature == 0:  # nothing is drawn
        return apply_repetition_penalty(logits, seen, settings.repetition_penalty).argmax(-1)
    return sample_from(probabilities(logits, settings, seen), uniforms)

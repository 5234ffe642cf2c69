"""Inspect a GPT's activations: attention weights, surprisal, embeddings, and the logit lens.

`acts = get_activations(model, ids)` runs the model over one sequence of T tokens and keeps the intermediate results.
The other functions compute arrays from them, which cli/inspect_text.py prints and figures.py draws. Letters: L blocks,
H heads, C = n_embd, V = vocab_size. Left out: gradients and interventions (ablations, patching).
"""

import contextlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tinygpt.data.dataset import Tokens, evaluation_windows
from tinygpt.evaluation.metrics import evaluate
from tinygpt.generation.sampling import Sampling, probabilities
from tinygpt.model.gpt import GPT, Attention, Block, Rotary, training_flops_per_token
from tinygpt.model.loss import surprisal
from tinygpt.tokenizer.base import Tokenizer

VIEWS = ("tokens", "embeddings", "position", "attention", "lens", "next", "surprisal")  # in the order of the model
EXAMPLE = Sampling(temperature=0.8, top_k=20, top_p=0.95, min_p=0.05)  # every filter on, for comparison
MOST_BITS = 12.0  # upper end of the surprisal scale: probability 1/4096


@dataclass(frozen=True)
class Activations:
    """The activations of one forward pass, on the CPU."""

    ids: Tensor  # (T,) int64
    streams: Tensor  # (L + 1, T, C): the residual stream after the embedding, and after each block
    attention: Tensor  # attention weights (L, H, T, T): row t attends to columns ≤ t; rows sum to one
    logits: Tensor  # (T, V)

    @property
    def bits(self) -> np.ndarray:
        """The surprisal of each token except the first, which is not predicted: (T − 1,) float64, bits."""
        return surprisal(self.logits[:-1], self.ids[1:])

    def first(self, count: int) -> "Activations":
        """The activations of the first `count` tokens, which do not depend on later ones."""
        n = slice(count)
        return Activations(self.ids[n], self.streams[:, n], self.attention[:, :, n, n], self.logits[n])


@torch.no_grad()
def get_activations(model: GPT, ids: Sequence[int]) -> Activations:
    """Run the model over T ≥ 1 tokens, block by block like its `forward`, and keep the activations.

    Raises ValueError if T exceeds the context length.
    """
    model.eval()
    tokens = torch.tensor([list(ids)], device=next(model.parameters()).device)  # (1, T)
    x = model.embed(tokens)  # (1, T, C)
    streams, weights = [x], []
    for block in cast(Iterable[Block], model.blocks):
        weights.append(attention_weights(block.attention, block.norm1(x), model.rotary))
        x = block(x, model.rotary)
        streams.append(x)
    logits = model.head(model.norm(x))  # (1, T, V)
    return Activations(tokens[0].cpu(), torch.cat(streams).cpu(), torch.cat(weights).cpu(), logits[0].cpu())


def attention_weights(attention: Attention, x: Tensor, rotary: Rotary | None) -> Tensor:
    """Causal softmax of the attention scores, which the fused kernel does not store: (B, T, C) → (B, H, T, T)."""
    scores = attention_scores(attention, x, rotary)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)  # (T, T): column s > row t
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


def attention_scores(attention: Attention, x: Tensor, rotary: Rotary | None) -> Tensor:
    """q kᵀ / √D, before the causal mask: (B, T, C) → (B, H, T, T)."""
    q, k, _ = attention.project(x, rotary, slice(x.shape[1]))  # (B, H, T, D), (B, kv_heads, T, D)
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)  # grouped-query attention
    return q @ k.mT / math.sqrt(attention.D)  # (B, H, T, T)


@dataclass(frozen=True)
class HeadStatistics:
    """Statistics of each head, averaged over the tokens after the first: (L, H) each."""

    itself: np.ndarray  # attention weight on the token itself
    previous: np.ndarray  # attention weight on the token before
    first: np.ndarray  # attention weight on the first token of the text (the attention sink)
    distance: np.ndarray  # mean distance between query and key, in tokens
    spread: np.ndarray  # perplexity of the weights (2 to their entropy in bits): the effective number of tokens


def chosen(number: int | None, count: int, name: str) -> list[int]:
    """The indices, from 0, that option --`name` selects: `number` counts from 1; None selects all `count`.

    Raises ValueError if `number` is out of range.
    """
    if number is None:
        return list(range(count))
    if not 1 <= number <= count:
        raise ValueError(f"--{name} is {number}; this model has {count}, counted from 1.")
    return [number - 1]


def head_statistics(weights: Tensor) -> HeadStatistics:
    """Attention weights (L, H, T, T) → statistics of each head, averaged over rows."""
    T = weights.shape[-1]
    since = slice(1 if T > 1 else 0, None)
    place = torch.arange(T)
    distance = (weights * (place[:, None] - place)).sum(-1)  # (L, H, T)
    entropy = torch.special.entr(weights).sum(-1) / math.log(2)
    previous = weights.diagonal(-1, -2, -1) if T > 1 else torch.zeros_like(entropy)
    rows = weights.diagonal(0, -2, -1)[..., since], previous, weights[..., since, 0], distance[..., since]
    return HeadStatistics(*(row.mean(-1).numpy() for row in (*rows, entropy[..., since].exp2())))


def ranks(logits: Tensor, ids: Tensor) -> np.ndarray:
    """The rank of each target token among the predictions, 1 the likeliest: (T, V), (T,) → int64 (T − 1,)."""
    targets = logits[:-1].gather(-1, ids[1:, None])  # (T − 1, 1)
    found: np.ndarray = (1 + (logits[:-1] > targets).sum(-1)).numpy()
    return found


@dataclass(frozen=True)
class Steps:
    """The predicted distribution after each token, including the last."""

    probs: Tensor  # (T, V) float32, at temperature 1
    warmed: Tensor  # (T, V) float32, at the temperature of the settings
    kept: dict[str, Tensor]  # filter → bool (T, V): the tokens it keeps when applied alone at that temperature


def steps(logits: Tensor, settings: Sampling) -> Steps:
    """(T, V) → the distribution after each token, and the tokens that each active filter of `settings` would keep."""
    alone: dict[str, Sampling] = {}
    if settings.top_k:
        alone[f"top-k {settings.top_k}"] = Sampling(settings.temperature, settings.top_k, 1.0, 0.0)
    if settings.top_p < 1:
        alone[f"top-p {settings.top_p:g}"] = Sampling(settings.temperature, 0, settings.top_p, 0.0)
    if settings.min_p:
        alone[f"min-p {settings.min_p:g}"] = Sampling(settings.temperature, 0, 1.0, settings.min_p)
    kept = {name: probabilities(logits, one) > 0 for name, one in alone.items()}
    probs, warmed = (probabilities(logits, Sampling(t, 0, 1.0, 0.0)) for t in (1.0, settings.temperature))
    return Steps(probs, warmed, kept)


@dataclass(frozen=True)
class Lens:
    """The model's predictions if it ended after 0, 1, … L blocks."""

    best: np.ndarray  # (L + 1, T) int64: the likeliest token
    bits: np.ndarray  # (L + 1, T − 1) float64: the surprisal of the target token
    ranks: np.ndarray  # (L + 1, T − 1) int64: the rank of the target token


@torch.no_grad()
def lens(model: GPT, acts: Activations) -> Lens:
    """The logit lens (nostalgebraist 2020): final norm and head applied to the residual stream at each depth.

    The last depth is the model's own prediction. The head was trained on that depth only; that it yields sensible
    predictions at the others shows that the blocks refine one prediction step by step.
    """
    device = next(model.parameters()).device
    by_depth = [model.head(model.norm(stream.to(device))).cpu() for stream in acts.streams]  # (T, V) each
    best = torch.stack([logits.argmax(-1) for logits in by_depth]).numpy()
    bits = np.stack([surprisal(logits[:-1], acts.ids[1:]) for logits in by_depth])
    return Lens(best, bits, np.stack([ranks(logits, acts.ids) for logits in by_depth]))


@torch.no_grad()
def neighbours(model: GPT, tokens: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The nearest embeddings of N tokens: (ids, cosine similarities), each (N, up to `count`)."""
    directions = F.normalize(model.token_embedding.weight.float(), dim=-1).cpu()  # (V, C)
    cosines = directions[list(tokens)] @ directions.T  # (N, V)
    cosines[torch.arange(len(tokens)), list(tokens)] = -math.inf  # exclude the token itself
    found = cosines.topk(min(count, cosines.shape[1] - 1), dim=-1)
    return found.indices.numpy(), found.values.numpy()


@torch.no_grad()
def position_similarity(model: GPT) -> np.ndarray | None:
    """Cosine similarity of all learned position embeddings, (context_length, context_length); None without them."""
    if model.position_embedding is None:
        return None
    directions = F.normalize(model.position_embedding.weight.float(), dim=-1)
    cosines: np.ndarray = (directions @ directions.T).cpu().numpy()
    return cosines


def rotary_products(model: GPT) -> np.ndarray | None:
    """cos(distance × frequency), (D/2, context_length): the dot product of two equal unit vectors, one rotated, in
    each coordinate pair, by distance. The mean over pairs is for vectors with equal norm in all pairs. None without
    RoPE.
    """
    if model.rotary is None:
        return None
    cosines = model.rotary.get_buffer("cos")[:, 0]  # (context_length, D): row p is also the angle at distance p
    pairs: np.ndarray = cosines[:, : cosines.shape[1] // 2].T.cpu().numpy()
    return pairs


def by_distance(similarity: np.ndarray) -> np.ndarray:
    """Mean similarity of positions by their distance: (T, T) → (T,)."""
    return np.array([similarity.diagonal(distance).mean() for distance in range(len(similarity))])


def by_position(model: GPT, tokenizer: Tokenizer, tokens: Tokens) -> np.ndarray:
    """Mean loss in nats after 1, 2, … T tokens of context, over about a second's worth of held-out text: (T,)."""
    most = min(2**15, round(1e11 / (training_flops_per_token(model.config) / 3)))  # a third: the forward pass
    windows = evaluation_windows(tokens, model.config.context_length, batch_size=8, limit=most)
    return evaluate(model, windows, tokenizer, contextlib.nullcontext()).by_position


def octaves(losses: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Losses by position in groups that double (1, 2, 3–4, 5–8, …): the first position of each, and its losses."""
    firsts = [1, *(2**power + 1 for power in range(max(1, len(losses) - 1).bit_length()))]
    return [(first, losses[first - 1 : max(1, 2 * (first - 1))]) for first in firsts if first <= len(losses)]


def spread(count: int, most: int) -> list[int]:
    """At most `most` of the numbers 0 … count − 1, evenly spread, including the first and the last."""
    return sorted({round(number) for number in np.linspace(0, count - 1, min(count, most))})

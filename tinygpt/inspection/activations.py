"""Inspect a GPT's activations: attention weights, surprisal, embeddings, and the logit lens.

`acts = get_activations(model, ids)` runs the model over a text and keeps what `model(tokens)` throws away; the
functions below turn that into arrays, which cli/inspect_text.py prints and figures.py draws. All numbers come from the
model's own modules, in the precision of its weights, for one sequence of T tokens; L blocks, H heads, V entries in the
vocabulary. How tokens are written for people is in text.py. Left out: gradients, and every change to the inside
(ablations, patching).
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
EXAMPLE = Sampling(temperature=0.8, top_k=20, top_p=0.95, min_p=0.05)  # every filter on, so that each can be compared
MOST_BITS = 12.0  # where the scale of surprisal ends, in print and in pictures: one of 4096


@dataclass(frozen=True)
class Activations:
    """What one pass through the model left behind, on the CPU."""

    ids: Tensor  # (T,) int64
    streams: Tensor  # (L + 1, T, C): the residual stream after the embedding, and after each block
    attention: Tensor  # weights (L, H, T, T): row t attends to columns up to t; rows sum to one
    logits: Tensor  # (T, V)

    @property
    def bits(self) -> np.ndarray:
        """The surprisal of each token but the first, which is not predicted: (T − 1,) float64, bits."""
        return surprisal(self.logits[:-1], self.ids[1:])

    def first(self, count: int) -> "Activations":
        """Those of the first tokens only: they see none of those that come later."""
        n = slice(count)
        return Activations(self.ids[n], self.streams[:, n], self.attention[:, :, n, n], self.logits[n])


@torch.no_grad()
def get_activations(model: GPT, ids: Sequence[int]) -> Activations:
    """Run the model over T ≥ 1 tokens, block by block as its `forward` does, and keep what passes.

    ValueError where there are more tokens than the context has room for.
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
    """softmax of the scores, which the fused kernel never stores: (B, T, C) → (B, H, T, T)."""
    scores = attention_scores(attention, x, rotary)
    later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)  # (T, T): column s > row t
    return scores.masked_fill(later, -math.inf).softmax(dim=-1)


def attention_scores(attention: Attention, x: Tensor, rotary: Rotary | None) -> Tensor:
    """q kᵀ / √D, with those of tokens that come later: (B, T, C) → (B, H, T, T)."""
    B, T, _ = x.shape
    q = attention.query_norm(attention.query(x).view(B, T, -1, attention.D))  # (B, T, H, D)
    k = attention.key_norm(attention.key(x).view(B, T, -1, attention.D))  # (B, T, kv_heads, D)
    if rotary is not None:
        q, k = rotary(q), rotary(k)
    k = k.repeat_interleave(q.shape[2] // k.shape[2], dim=2)  # heads of a group share their keys
    return q.transpose(1, 2) @ k.permute(0, 2, 3, 1) / math.sqrt(attention.D)  # (B, H, T, T)


@dataclass(frozen=True)
class HeadStatistics:
    """What each head does on average over the tokens after the first: (L, H) each."""

    itself: np.ndarray  # attention weight of the token itself
    previous: np.ndarray  # … to the token before
    first: np.ndarray  # … to the first token of all: where heads look that find nothing
    distance: np.ndarray  # tokens between the query and what it attends to
    spread: np.ndarray  # 2 to the entropy in bits: as many tokens, evenly, would be as spread out


def chosen(number: int | None, count: int, name: str) -> list[int]:
    """Which of `count` blocks or heads are meant, counted from 0, by a number counted from 1; None: all of them.

    ValueError, in a sentence, where there is no such one.
    """
    if number is None:
        return list(range(count))
    if not 1 <= number <= count:
        raise ValueError(f"--{name} is {number}; this model has {count}, counted from 1.")
    return [number - 1]


def head_statistics(weights: Tensor) -> HeadStatistics:
    """How each head looks: (L, H, T, T) → means over rows."""
    T = weights.shape[-1]
    since = slice(1 if T > 1 else 0, None)
    place = torch.arange(T)
    distance = (weights * (place[:, None] - place)).sum(-1)  # (L, H, T); what lies ahead has the weight 0
    entropy = torch.special.entr(weights).sum(-1) / math.log(2)
    previous = weights.diagonal(-1, -2, -1) if T > 1 else torch.zeros_like(entropy)
    rows = weights.diagonal(0, -2, -1)[..., since], previous, weights[..., since, 0], distance[..., since]
    return HeadStatistics(*(row.mean(-1).numpy() for row in (*rows, entropy[..., since].exp2())))


def ranks(logits: Tensor, ids: Tensor) -> np.ndarray:
    """The place of each token among all that could have come, 1 the likeliest: (T, V), (T,) → int64 (T − 1,)."""
    targets = logits[:-1].gather(-1, ids[1:, None])  # (T − 1, 1)
    places: np.ndarray = (1 + (logits[:-1] > targets).sum(-1)).numpy()
    return places


@dataclass(frozen=True)
class Steps:
    """What the model expected after each token, the last one included."""

    probs: Tensor  # (T, V) float32: the model as it is, at temperature 1
    warmed: Tensor  # (T, V) float32: at the temperature of the settings
    kept: dict[str, Tensor]  # filter → bool (T, V): the tokens that it leaves, each filter alone at that temperature


def steps(logits: Tensor, settings: Sampling) -> Steps:
    """The distribution after each token, and what every filter of `settings` that is on would keep: (T, V) → Steps."""
    alone: dict[str, Sampling] = {}
    if settings.top_k:
        alone[f"top-k {settings.top_k}"] = Sampling(settings.temperature, settings.top_k, 1.0, 0.0)
    if settings.top_p < 1:
        alone[f"top-p {settings.top_p:g}"] = Sampling(settings.temperature, 0, settings.top_p, 0.0)
    if settings.min_p:
        alone[f"min-p {settings.min_p:g}"] = Sampling(settings.temperature, 0, 1.0, settings.min_p)
    kept = {name: probabilities(logits, one) > 0 for name, one in alone.items()}
    as_it_is, warmed = (probabilities(logits, Sampling(t, 0, 1.0, 0.0)) for t in (1.0, settings.temperature))
    return Steps(as_it_is, warmed, kept)


@dataclass(frozen=True)
class Lens:
    """What the model would say if it ended after 0, 1, … L blocks."""

    best: np.ndarray  # (L + 1, T) int64: the likeliest token
    bits: np.ndarray  # (L + 1, T − 1) float64: the surprisal of the target token
    ranks: np.ndarray  # (L + 1, T − 1) int64: and its place


@torch.no_grad()
def lens(model: GPT, acts: Activations) -> Lens:
    """The logit lens (nostalgebraist 2020): each depth of the residual stream, read by the last norm and the head.

    The last depth is what the model says. The head learned to read that one only; that it can read the others at all
    shows that blocks refine one prediction rather than pass on something else.
    """
    device = next(model.parameters()).device
    read = [model.head(model.norm(stream.to(device))).cpu() for stream in acts.streams]  # (T, V) each
    best = torch.stack([logits.argmax(-1) for logits in read]).numpy()
    bits = np.stack([surprisal(logits[:-1], acts.ids[1:]) for logits in read])
    return Lens(best, bits, np.stack([ranks(logits, acts.ids) for logits in read]))


@torch.no_grad()
def neighbours(model: GPT, tokens: Sequence[int], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens whose embeddings point most nearly the same way: (ids, cosine similarities), (N, up to count) each."""
    directions = F.normalize(model.token_embedding.weight.float(), dim=-1).cpu()  # (V, C)
    cosines = directions[list(tokens)] @ directions.T  # (N, V)
    cosines[torch.arange(len(tokens)), list(tokens)] = -math.inf  # each is its own nearest
    found = cosines.topk(min(count, cosines.shape[1] - 1), dim=-1)
    return found.indices.numpy(), found.values.numpy()


@torch.no_grad()
def position_similarity(model: GPT) -> np.ndarray | None:
    """Cosine similarity of the learned vectors of all positions, (context_length,)²; None for a model that has none."""
    if model.position_embedding is None:
        return None
    directions = F.normalize(model.position_embedding.weight.float(), dim=-1)
    cosines: np.ndarray = (directions @ directions.T).cpu().numpy()
    return cosines


def rotary_products(model: GPT) -> np.ndarray | None:
    """cos(distance × frequency), (D/2, context_length): what is left, at each distance, of the product of two equal
    vectors in each pair of coordinates. Its mean is that of vectors of equal strength in all. None without rotary.
    """
    if model.rotary is None:
        return None
    cosines = model.rotary.get_buffer("cos")[:, 0]  # (context_length, D): the angle at a position is that of a distance
    pairs: np.ndarray = cosines[:, : cosines.shape[1] // 2].T.cpu().numpy()
    return pairs


def by_distance(similarity: np.ndarray) -> np.ndarray:
    """The mean similarity of positions so far apart: (T, T) → (T,)."""
    return np.array([similarity.diagonal(distance).mean() for distance in range(len(similarity))])


def by_position(model: GPT, tokenizer: Tokenizer, tokens: Tokens) -> np.ndarray:
    """Mean loss after 1, 2, … T tokens of context, nats, over as much held-out text as takes a second or so: (T,)."""
    most = min(2**15, round(1e11 / (training_flops_per_token(model.config) / 3)))  # forward alone
    windows = evaluation_windows(tokens, model.config.context_length, batch_size=8, limit=most)
    return evaluate(model, windows, tokenizer, contextlib.nullcontext()).by_position


def octaves(losses: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """Losses by position in groups that double, 1, 2, 3–4, 5–8, …: the first position of each, and its losses."""
    firsts = [1, *(2**power + 1 for power in range(max(1, len(losses) - 1).bit_length()))]
    return [(first, losses[first - 1 : max(1, 2 * (first - 1))]) for first in firsts if first <= len(losses)]


def spread(count: int, most: int) -> list[int]:
    """The numbers 0 … count − 1, or `most` of them, evenly spread, the first and the last included."""
    return sorted({round(place) for place in np.linspace(0, count - 1, min(count, most))})

"""Attention: how each token attends to the others, in five steps, each with one new thing.

    1. attention_without_weights   tokens attend to similar tokens
    2. attention                   + query, key and value: the similarity is learned
    3. causal_head                 + a mask that hides later tokens
    4. heads_in_a_loop             + several heads with different matrices
    5. MultiHeadAttention          + all sequences and heads at once, QK-norm, RoPE, GQA, dropout

Steps 1 to 4 are functions of one sequence x, (T, C): T tokens, each a vector of C numbers. Step 5 computes the same as
tinygpt.model.gpt.Attention, for B sequences and H heads of D numbers each. Left out: the KV cache, which makes
generation fast (tinygpt/generation/decoder.py), and fused kernels, which never store the T × T attention weights (Dao
et al. 2022).
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig
from tinygpt.scratch.embedding import rotate
from tinygpt.scratch.layers import Linear, Norm, dropout, softmax

Head = tuple[Tensor, Tensor, Tensor]  # the query, key and value matrices, (C, D) each


def attention_without_weights(x: Tensor) -> Tensor:  # (T, C) → (T, C)
    """Step 1. Replace each token's vector by a weighted average of all vectors; similar ones get larger weights.

    The similarity of two vectors is their dot product: the sum of the products of their coordinates.
    """
    averages = []
    for token in x:  # (C,)
        scores = torch.stack([token @ other for other in x])  # (T,)
        weights = softmax(scores)  # (T,), summing to one
        averages.append(sum(weight * other for weight, other in zip(weights, x, strict=True)))  # (C,)
    return torch.stack(averages)  # (T, C)


def attention(x: Tensor, head: Head) -> Tensor:  # (T, C) → (T, D)
    """Step 2. New: learned query, key and value matrices; matrix products instead of loops (Vaswani et al. 2017).

    A token's query is compared with the keys of all tokens, and the result is a weighted average of their values. So a
    verb can learn to attend to its subject, although their vectors are not similar. A dot product of D random numbers
    grows like √D; dividing by √D keeps softmax away from 0 and 1, where its gradient vanishes.
    """
    query, key, value = (x @ matrix for matrix in head)  # (T, C) @ (C, D) → (T, D)
    scores = query @ key.T / math.sqrt(query.shape[-1])  # (T, D) @ (D, T) → (T, T): query t, key s
    return softmax(scores) @ value  # (T, T) @ (T, D) → (T, D)


def causal_mask(scores: Tensor) -> Tensor:  # (…, T, T) → (…, T, T)
    """Set the scores of later tokens to −∞, so that their attention weights are 0."""
    T = scores.shape[-1]
    position = torch.arange(T, device=scores.device)
    later = position[None, :] > position[:, None]  # (T, T): column s > row t
    return scores.masked_fill(later, -math.inf)


def causal_head(x: Tensor, head: Head) -> Tensor:  # (T, C) → (T, D)
    """Step 3. New: a causal mask. No token attends to later ones, since the model must predict them.

    So one pass over a text trains T predictions: after its first token, after its first two, and so on. The first token
    attends only to itself.
    """
    query, key, value = (x @ matrix for matrix in head)  # (T, D) each
    scores = query @ key.T / math.sqrt(query.shape[-1])  # (T, T)
    return softmax(causal_mask(scores)) @ value  # (T, D)


def heads_in_a_loop(x: Tensor, heads: list[Head], output: Tensor) -> Tensor:  # (T, C), H heads, (H·D, C) → (T, C)
    """Step 4. New: H heads in parallel. One may attend to the verb, another to the last line break.

    A head's attention weights sum to one, so a single head can attend strongly to one thing only. With D = C / H, all
    heads together cost as much as one wide head. The output matrix combines their results.
    """
    results = [causal_head(x, head) for head in heads]  # H × (T, D)
    return torch.cat(results, dim=-1) @ output  # (T, H·D) @ (H·D, C) → (T, C)


class MultiHeadAttention(nn.Module):
    """Step 5. New: no loop over heads, since one matrix computes the queries of all of them; a batch of B sequences.

    Also new are this model's options: queries and keys normalised per head, which bounds the scores (QK-norm, Henry et
    al. 2020); rotary positions (RoPE, Su et al. 2021); biases; key and value heads that several query heads share,
    which makes the KV cache smaller (GQA, Ainslie et al. 2023); dropout on the attention weights.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        C, D, bias = config.n_embd, config.head_width, config.bias
        self.config = config
        self.query = Linear(C, config.n_head * D, bias)
        self.key = Linear(C, config.kv_heads * D, bias)
        self.value = Linear(C, config.kv_heads * D, bias)
        self.output = Linear(config.n_head * D, C, bias)
        self.query_norm = Norm(D, config, "rmsnorm") if config.qk_norm else None
        self.key_norm = Norm(D, config, "rmsnorm") if config.qk_norm else None

    def forward(self, x: Tensor) -> Tensor:  # (B, T, C) → (B, T, C)
        config = self.config
        B, T, _ = x.shape
        H, D, groups = config.n_head, config.head_width, config.n_head // config.kv_heads
        q = self.query(x).view(B, T, H, D)
        k = self.key(x).view(B, T, config.kv_heads, D)
        v = self.value(x).view(B, T, config.kv_heads, D)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if config.position == "rope":
            q, k = rotate(q, config.rope_theta), rotate(k, config.rope_theta)
        k, v = k.repeat_interleave(groups, dim=2), v.repeat_interleave(groups, dim=2)  # (B, T, H, D)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D): the head as a batch dimension
        scores = q @ k.transpose(2, 3) / math.sqrt(D)  # (B, H, T, D) @ (B, H, D, T) → (B, H, T, T)
        weights = dropout(softmax(causal_mask(scores)), config.dropout, self.training)  # (B, H, T, T)
        results = (weights @ v).transpose(1, 2).reshape(B, T, H * D)  # (B, H, T, D) → (B, T, H·D)
        return self.output(results)  # (B, T, C)

"""Attention: how each token attends to the others, in five steps, each with one new thing.

    1. attention_without_weights   tokens attend to those that resemble them
    2. attention                   + query, key and value: what resembles what is learned
    3. causal_head                 + no look at tokens that come later
    4. heads_in_a_loop             + several heads, each with its own idea of what matters
    5. MultiHeadAttention          + all sequences and heads at once; what this model adds to it

Steps 1 to 4 are functions of one sequence x, (T, C): T tokens, each a vector of C numbers. Step 5 computes the same as
tinygpt.model.gpt.Attention; B sequences, H heads of D numbers each. Left out: the cache that spares work when a text is
written token by token (tinygpt/generation/decoder.py), and fused kernels, which never store the T × T weights (Dao et
al. 2022).
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.model.gpt import GPTConfig
from tinygpt.scratch.embedding import rotate
from tinygpt.scratch.layers import Linear, Norm, dropout, softmax

Head = tuple[Tensor, Tensor, Tensor]  # the matrices of query, key and value, (C, D) each


def attention_without_weights(x: Tensor) -> Tensor:  # (T, C) → (T, C)
    """Step 1. Each token becomes a mixture of all tokens, with more of those that resemble it.

    How much two vectors resemble each other is their product: the sum of the products of their coordinates.
    """
    mixtures = []
    for token in x:  # (C,)
        scores = torch.stack([token @ other for other in x])  # (T,)
        weights = softmax(scores)  # (T,), summing to one
        mixtures.append(sum(weight * other for weight, other in zip(weights, x, strict=True)))  # (C,)
    return torch.stack(mixtures)  # (T, C)


def attention(x: Tensor, head: Head) -> Tensor:  # (T, C) → (T, D)
    """Step 2. New: three learned matrices, and the loops as matrix products (Vaswani et al. 2017).

    A token asks with its query, answers with its key, and hands over its value; so a verb can learn to look for its
    subject, though the two do not resemble each other. A sum of D random products grows like √D; divided by that, the
    weights start out even, and softmax is not stuck at 0 and 1, where it has no gradient.
    """
    query, key, value = (x @ matrix for matrix in head)  # (T, C) @ (C, D) → (T, D)
    scores = query @ key.T / math.sqrt(query.shape[-1])  # (T, D) @ (D, T) → (T, T): row t asks, column s answers
    return softmax(scores) @ value  # (T, T) @ (T, D) → (T, D)


def causal_mask(scores: Tensor) -> Tensor:  # (…, T, T) → (…, T, T)
    """Set the scores of tokens that come later to −∞, so that softmax gives them the weight 0."""
    T = scores.shape[-1]
    place = torch.arange(T, device=scores.device)
    later = place[None, :] > place[:, None]  # (T, T): column s > row t
    return scores.masked_fill(later, -math.inf)


def causal_head(x: Tensor, head: Head) -> Tensor:  # (T, C) → (T, D)
    """Step 3. New: no token sees those after it, or predicting the next one would be copying it.

    That makes each of the T tokens an exercise of its own: one pass over a text predicts after its first token, after
    its first two, … The first token can attend only to itself.
    """
    query, key, value = (x @ matrix for matrix in head)  # (T, D) each
    scores = query @ key.T / math.sqrt(query.shape[-1])  # (T, T)
    return softmax(causal_mask(scores)) @ value  # (T, D)


def heads_in_a_loop(x: Tensor, heads: list[Head], output: Tensor) -> Tensor:  # (T, C), H heads, (H·D, C) → (T, C)
    """Step 4. New: H heads side by side. One may look for the verb while another looks for the last line break.

    A head's weights sum to one, so a single head can look closely at one thing only. With D = C / H, all heads together
    cost what one wide one does. The output matrix mixes what they found.
    """
    found = [causal_head(x, head) for head in heads]  # H × (T, D)
    return torch.cat(found, dim=-1) @ output  # (T, H·D) @ (H·D, C) → (T, C)


class MultiHeadAttention(nn.Module):
    """Step 5. New: no loop, since one matrix holds all heads' queries, and a dimension more does B sequences at once.

    Also new is what this model adds, each by a setting: queries and keys normalised per head, so that scores cannot
    grow without bound (QK-norm, Henry et al. 2020); rotary positions; biases; heads of keys and values that several
    query heads share (GQA, Ainslie et al. 2023), which makes the cache smaller; dropout on the weights.
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
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, H, T, D): a product for each head
        scores = q @ k.transpose(2, 3) / math.sqrt(D)  # (B, H, T, D) @ (B, H, D, T) → (B, H, T, T)
        weights = dropout(softmax(causal_mask(scores)), config.dropout, self.training)  # (B, H, T, T)
        found = (weights @ v).transpose(1, 2).reshape(B, T, H * D)  # (B, H, T, D) → (B, T, H·D)
        return self.output(found)  # (B, T, C)

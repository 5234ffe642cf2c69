"""From tokens to vectors, and their positions: the first step of a GPT.

`look_up(table, tokens)` maps each token to its row in a table of learned vectors. These vectors do not depend on the
position. Positions are added in one of two ways: `learned_positions` adds a second learned table (GPT-2); `rotate`
rotates queries and keys by angles that grow with the position (RoPE, used in attention.py). Sizes: B sequences, T
tokens, V tokens in the vocabulary, C numbers in a vector, H heads of D = C / H numbers. Left out: the sinusoidal
position vectors of the first transformer (Vaswani et al. 2017).
"""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """A table of vectors, one row per token or position: weight (rows, C).

    In these files nn.Module only manages parameters: it collects those of nested modules and gives them the names of
    the fast model (`blocks.0.mlp.up.weight`), so that each can load the other's weights. It also tells all modules
    whether the model is being trained.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))


def look_up(table: Tensor, tokens: Tensor) -> Tensor:  # (V, C), int64 (B, T) → (B, T, C)
    """The table's row for each token."""
    return table[tokens]


def one_hot(tokens: Tensor, vocab_size: int) -> Tensor:  # int64 (B, T) → (B, T, V)
    """A vector of V numbers per token: 1 at the token's index, 0 elsewhere."""
    return (tokens[..., None] == torch.arange(vocab_size, device=tokens.device)).float()


def look_up_by_product(table: Tensor, tokens: Tensor) -> Tensor:  # (V, C), int64 (B, T) → (B, T, C)
    """`look_up` as a matrix product of one-hot vectors with the table.

    So an embedding is a linear layer, and is trained like one: only rows of tokens in the batch get a gradient. Looking
    up avoids V × C multiplications per token, nearly all of them by zero.
    """
    return one_hot(tokens, len(table)) @ table  # (B, T, V) @ (V, C)


def learned_positions(x: Tensor, table: Tensor) -> Tensor:  # (B, T, C), (context_length, C) → (B, T, C)
    """Add row t of the table to the vector at position t (Radford et al. 2018); T is at most context_length."""
    T = x.shape[1]
    return x + table[:T]  # (T, C), added to each of the B sequences


def rotary_angles(length: int, width: int, theta: float) -> Tensor:  # T, D → float64 (T, D/2), radians
    """The angle by which each of a head's D/2 pairs of coordinates is rotated at each position (Su et al. 2021).

    Pair 0 rotates by one radian per token and distinguishes neighbours. Later pairs rotate more and more slowly, like
    the hands of a clock, down to about one turn in 2π·theta tokens; they distinguish near from far.
    """
    pair = torch.arange(width // 2, dtype=torch.float64)
    speed = theta ** (-2 * pair / width)  # (D/2,) radians per token
    position = torch.arange(length, dtype=torch.float64)
    return position[:, None] * speed  # (T, 1) × (D/2,) → (T, D/2)


def rotate(x: Tensor, theta: float) -> Tensor:  # (B, T, H, D) → (B, T, H, D)
    """Rotary positions (RoPE, Su et al. 2021), for queries or keys at positions 0 … T−1; D must be even.

    Attention scores are dot products of a query and a key. In a plane, that is |q| |k| times the cosine of the angle
    between them. Rotating the query by i·speed and the key by j·speed changes the angle by (i − j)·speed. So the score
    depends on the distance of the two positions, not on the positions themselves. Nothing is learned, and rotation
    preserves lengths. A head has D/2 such planes: coordinate c is paired with c + D/2 (Llama's "rotate-half" layout).
    """
    _, T, _, D = x.shape
    angles = rotary_angles(T, D, theta)[:, None]  # (T, 1, D/2): the same for each head
    cos, sin = angles.cos().to(x), angles.sin().to(x)  # x's dtype and device
    a, b = x[..., : D // 2], x[..., D // 2 :]  # (B, T, H, D/2) each: the two coordinates of each plane
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)  # (B, T, H, D)

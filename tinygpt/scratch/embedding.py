"""From tokens to vectors, and where each one stands: the first thing that a GPT does.

`look_up(table, tokens)` gives each token its row of a table of learned vectors. The vectors say which token, but not
where; for that there are two ways: `learned_positions`, a second table, added (GPT-2), or `rotate`, which turns queries
and keys by an angle that grows with the position (RoPE, in attention.py). Letters for sizes: B sequences, T tokens, V
tokens in the vocabulary, C numbers in a vector, H heads, D = C / H of them in a head. Left out: the sines and cosines
added by the first transformer (Vaswani et al. 2017), which RoPE turned into angles.
"""

import torch
from torch import Tensor, nn


class Embedding(nn.Module):
    """A table of vectors, one row a token or a position: weight (rows, C).

    nn.Module only keeps the books in these files: it finds the parameters inside parts inside parts, gives each the
    name that the fast model gives it (`blocks.0.mlp.up.weight`), so that one loads the other's weights, and tells all
    parts whether the model is being trained.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(rows, width))


def look_up(table: Tensor, tokens: Tensor) -> Tensor:  # (V, C), int64 (B, T) → (B, T, C)
    """Row `token` of the table, for each token."""
    return table[tokens]


def one_hot(tokens: Tensor, vocab_size: int) -> Tensor:  # int64 (B, T) → (B, T, V)
    """Zeros, and a single 1 at the place of the token."""
    return (tokens[..., None] == torch.arange(vocab_size, device=tokens.device)).float()


def look_up_by_product(table: Tensor, tokens: Tensor) -> Tensor:  # (V, C), int64 (B, T) → (B, T, C)
    """The same as a matrix product: zeros times every row, and 1 times the one that is wanted.

    So an embedding is a linear layer like any other, and learns like one: only the rows of tokens that were there get
    a gradient. Looking up spares the V × C multiplications, nearly all by zero.
    """
    return one_hot(tokens, len(table)) @ table  # (B, T, V) @ (V, C)


def learned_positions(x: Tensor, table: Tensor) -> Tensor:  # (B, T, C), (context_length, C) → (B, T, C)
    """Add row t of the table to the vector at position t (Radford et al. 2018); there is none beyond the last row."""
    T = x.shape[1]
    return x + table[:T]  # (T, C) is added to each of the B sequences


def rotary_angles(length: int, width: int, theta: float) -> Tensor:  # T, D → float64 (T, D/2), radians
    """How far each of a head's D/2 pairs of coordinates is turned at each position.

    Pair 0 turns by one radian a token, and so tells neighbours apart; the pairs after it turn slower and slower, like
    the hands of a clock, down to nearly one turn in 2π·theta tokens: they tell far from near.
    """
    pair = torch.arange(width // 2, dtype=torch.float64)
    speed = theta ** (-2 * pair / width)  # (D/2,) radians a token
    position = torch.arange(length, dtype=torch.float64)
    return position[:, None] * speed  # (T, 1) × (D/2,) → (T, D/2)


def rotate(x: Tensor, theta: float) -> Tensor:  # (B, T, H, D) → (B, T, H, D)
    """Rotary positions (Su et al. 2021), for the queries or the keys at positions 0 … T−1; D must be even.

    Attention compares a query with a key by their product. With both as arrows in a plane, the product is |q| |k| times
    the cosine of the angle between them. Turn the query by i·speed and the key by j·speed, and that angle grows by
    (i − j)·speed: the product now knows how far apart the two stand, and still not where. Nothing is learned, and no
    length changes. A head has D/2 such planes; coordinate c pairs with c + D/2 (the "rotate-half" layout of Llama).
    """
    _, T, _, D = x.shape
    angles = rotary_angles(T, D, theta)[:, None]  # (T, 1, D/2): the same for each head
    cos, sin = angles.cos().to(x), angles.sin().to(x)  # of the type and on the device of x
    a, b = x[..., : D // 2], x[..., D // 2 :]  # (B, T, H, D/2) each: the two coordinates of each plane
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)  # (B, T, H, D)

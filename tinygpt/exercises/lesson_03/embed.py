"""Look up the embedding of each token, and add the embedding of its position.

Row t of `table` is the vector of token t; row p of `positions` is the vector of position p. B sequences of T tokens
become B × T vectors of C numbers: the token's row plus its position's row. No loop is needed: a tensor of integers can
index another tensor, and PyTorch broadcasts a (T, C) tensor over B sequences.

    embed(tensor([[2, 0]]), tensor([[0, 0], [9, 9], [20, 20]]), tensor([[1, 2], [3, 4]])) → tensor([[[21, 22], [3, 4]]])

`positions` may have more than T rows: use the first T.
"""

import torch
from torch import Tensor


def embed(tokens: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """tokens int64 (B, T), table (V, C), positions (context length ≥ T, C) → (B, T, C)."""
    raise NotImplementedError

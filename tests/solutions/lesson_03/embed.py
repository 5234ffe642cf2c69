from torch import Tensor


def embed(tokens: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    """tokens int64 (B, T), table (V, C), positions (context length ≥ T, C) → (B, T, C)."""
    return table[tokens] + positions[: tokens.shape[1]]

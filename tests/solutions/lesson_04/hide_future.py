import math

import torch
from torch import Tensor


def hide_future(scores: Tensor) -> Tensor:
    """(T, T) → (T, T)."""
    later = torch.ones_like(scores).triu(1).bool()
    return scores.masked_fill(later, -math.inf)

"""The loss on answers only: cross-entropy, averaged over the tokens whose mask is 1.

`logits` are the predictions for each of the T targets, `mask` says which of these count. Divide the sum over the
counted tokens by their number, not by T: otherwise a short answer after a long question would hardly count. Without a
counted token the loss is 0, so that its gradient is 0, too, and not the nan of 0 / 0.

    answer_loss(tensor([[9.0, 0.0], [0.0, 0.0]]), tensor([1, 0]), tensor([0, 1])) → tensor(0.6931)  # ln 2: only row 2
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def answer_loss(logits: Tensor, targets: Tensor, mask: Tensor) -> Tensor:
    """logits (T, V), targets (T,) and mask (T,) → the loss in nats per counted token, a tensor of one number, ()."""
    raise NotImplementedError

"""Optimizers: AdamW and Muon change the weights, given their gradients.

`AdamW(groups, betas)`, `Muon(groups)`; after each backward pass, `optimizer.step(learning_rate)`. A gradient is the
direction in which the loss rises fastest; optimizers differ in the step that they make of it. training.py decides which
weights get which optimizer, and sets the learning rate. Left out: updating many weights in one call, which makes
tinygpt/training/optimizer.py fast.
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Updates the parameters of its groups (see `parameter_group`); subclasses define `update`."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.groups = groups
        self.state: dict[nn.Parameter, dict[str, Any]] = defaultdict(dict)  # per parameter, from step to step

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Update every parameter that has a gradient."""
        for group in self.groups:
            rate = learning_rate * group["lr_multiplier"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                # Weight decay multiplies each weight by a number below one. It is applied directly, not added to the
                # gradient ("decoupled", Loshchilov & Hutter 2017), since AdamW would normalise it away.
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(rate * self.update(parameter.grad, self.state[parameter]))

    def update(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """The update to subtract, times the learning rate: the gradient's shape. Modifies `state`, initially empty."""
        raise NotImplementedError


def parameter_group(parameters: list[nn.Parameter], weight_decay: float, lr_multiplier: float = 1.0) -> dict[str, Any]:
    """Parameters with the same weight decay and the same multiple of the learning rate."""
    return {"params": parameters, "weight_decay": weight_decay, "lr_multiplier": lr_multiplier}


class AdamW(Optimizer):
    """Adam: updates of about the learning rate for every weight, whatever its gradient's size (Kingma & Ba 2014).

    The update is the gradient's running mean divided by the square root of the running mean of its square. The ratio is
    near ±1 if recent gradients agree, and near 0 if they cancel. betas: the decay of both running means per step.
    """

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float = 1e-10) -> None:
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    def update(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        beta1, beta2 = self.betas
        zeros = torch.zeros_like(gradient)
        state["step"] = t = state.get("step", 0) + 1
        state["mean"] = beta1 * state.get("mean", zeros) + (1 - beta1) * gradient
        state["square"] = beta2 * state.get("square", zeros) + (1 - beta2) * gradient**2
        # Bias correction: both means started at zero, and the gradients so far have total weight 1 − beta^t.
        unbiased_mean = state["mean"] / (1 - beta1**t)
        unbiased_square = state["square"] / (1 - beta2**t)
        return unbiased_mean / (unbiased_square.sqrt() + self.eps)


class Muon(Optimizer):
    """Orthogonalised momentum, for the matrices inside the blocks (Jordan et al. 2024).

    A matrix's gradient has a few large singular values and many small ones. AdamW equalises the size of single numbers;
    Muon equalises the singular values.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups)
        self.momentum = momentum

    def update(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        beta = self.momentum
        mean = state["momentum"] = beta * state.get("momentum", torch.zeros_like(gradient)) + (1 - beta) * gradient
        nesterov = beta * mean + (1 - beta) * gradient  # as if the same gradient came once more (Nesterov 1983)
        # The entries of an orthogonal matrix have root mean square 1/√(longer side), those of AdamW's updates about
        # 0.2. With that size, too, one learning rate serves both (Liu et al. 2025).
        return 0.2 * math.sqrt(max(gradient.shape)) * newton_schulz(nesterov)


def newton_schulz(matrix: Tensor, iterations: int = 5) -> Tensor:  # (rows, columns) → (rows, columns)
    """Bring all singular values near one and keep the singular vectors, by matrix products only.

    With the singular value decomposition x = U S Vᵀ, (x xᵀ) x = U S³ Vᵀ, since UᵀU = VᵀV = 1. So a·x + b·(x xᵀ)x +
    c·(x xᵀ)²x replaces each singular value s by a·s + b·s³ + c·s⁵. With these coefficients a small s grows fast and
    then stays between about 0.7 and 1.2, which is close enough to one (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T, iterations).T  # same result, with a smaller x xᵀ
    x = matrix / (matrix.norm() + 1e-7)  # the norm is √(Σ s²), so every s is now at most one
    for _ in range(iterations):
        gram = x @ x.T  # (rows, rows)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return x

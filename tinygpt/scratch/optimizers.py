"""Optimizers: AdamW and Muon change the weights, given their gradients.

`AdamW(groups, betas)`, `Muon(groups)`; after each backward pass, `optimizer.step(learning_rate)`. A gradient says for
each weight how the loss would change with it, but not how far to go, and how far is all that optimizers differ in.
training.py says which weights get which of them, and how the learning rate changes. Left out: steps for many weights at
once, which is what makes tinygpt/training/optimizer.py quick.
"""

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn


class Optimizer:
    """Goes through the parameters of its groups (`grouped`); how far to move each is for `update` to say."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.groups = groups
        self.state: dict[nn.Parameter, dict[str, Any]] = defaultdict(dict)  # what is kept of each from step to step

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """Change every parameter that has a gradient."""
        for group in self.groups:
            rate = learning_rate * group["lr_multiplier"]
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                # Weight decay: each weight shrinks by a share, unless the gradient keeps it up. It does not pass
                # through the averages below ("decoupled", Loshchilov & Hutter 2017), where it would be divided away.
                parameter.mul_(1 - rate * group["weight_decay"])
                parameter.sub_(rate * self.update(parameter.grad, self.state[parameter]))

    def update(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        """What to subtract at a learning rate of one: the shape of the gradient. Changes the state, empty at first."""
        raise NotImplementedError


def grouped(parameters: list[nn.Parameter], weight_decay: float, lr_multiplier: float = 1.0) -> dict[str, Any]:
    """Parameters that are treated alike: they decay so much, and step at `rate` times the learning rate."""
    return {"params": parameters, "weight_decay": weight_decay, "lr_multiplier": lr_multiplier}


class AdamW(Optimizer):
    """A step of about the learning rate for every single weight, whatever the size of its gradient (Kingma & Ba 2014).

    The gradient's running mean says where to go; the root of the mean of its squares says how large gradients are here.
    Their ratio is near ±1 where gradients agree, and near 0 where they contradict each other.
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
        # Both started at zero, and after t steps still hold a share beta^t of that: divide by what they should weigh.
        unbiased_mean = state["mean"] / (1 - beta1**t)
        unbiased_square = state["square"] / (1 - beta2**t)
        return unbiased_mean / (unbiased_square.sqrt() + self.eps)


class Muon(Optimizer):
    """Momentum, made orthogonal, for the matrices inside the stack (Jordan et al. 2024).

    A matrix turns vectors into vectors, and its gradient has a few strong directions that drown out many weak ones.
    AdamW evens out single numbers; Muon evens out directions.
    """

    def __init__(self, groups: list[dict[str, Any]], momentum: float = 0.95) -> None:
        super().__init__(groups)
        self.momentum = momentum

    def update(self, gradient: Tensor, state: dict[str, Any]) -> Tensor:
        beta = self.momentum
        mean = state["momentum"] = beta * state.get("momentum", torch.zeros_like(gradient)) + (1 - beta) * gradient
        ahead = beta * mean + (1 - beta) * gradient  # as if one more such gradient had come (Nesterov 1983)
        # An orthogonal matrix has numbers of root mean square 1/√(longer side). AdamW's updates have about 0.2; with
        # that size here too, one learning rate serves both (Liu et al. 2025).
        return 0.2 * math.sqrt(max(gradient.shape)) * newton_schulz(ahead)


def newton_schulz(matrix: Tensor, iterations: int = 5) -> Tensor:  # (rows, columns) → (rows, columns)
    """Bring all singular values near one, and keep the directions, with nothing but matrix products.

    A matrix is U S Vᵀ: turn, stretch by the singular values s, turn. Then (x xᵀ) x = U S³ Vᵀ, since UᵀU = VᵀV = 1; so
    a·x + b·(x xᵀ)x + c·(x xᵀ)²x puts a·s + b·s³ + c·s⁵ in the place of each s. With these three numbers a small s grows
    quickly, and then stays between about 0.7 and 1.2, which is near enough to one (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    if matrix.shape[0] > matrix.shape[1]:
        return newton_schulz(matrix.T, iterations).T  # the same, with the smaller x xᵀ
    x = matrix / (matrix.norm() + 1e-7)  # the root of the sum of all s²: now no s is above one
    for _ in range(iterations):
        square = x @ x.T  # (rows, rows)
        x = a * x + (b * square + c * (square @ square)) @ x
    return x

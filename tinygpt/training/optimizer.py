"""Optimizers and learning-rate schedules: AdamW, Muon, weight decay for matrices only.

`build(model, ...)` returns the optimizers of a model, which step together; `schedule(step, ...)` is the learning rate
at a step as a fraction of its peak. It is a pure function, so there is no schedule state to save. Muon's updates are as
large as AdamW's, so one `learning_rate` serves both.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from tinygpt.config import Train
from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.gpt import GPT

EMBEDDING_LR_MULTIPLIER = 5.0  # for the token embedding, since few tokens of a batch update a given row


class Optimizer:
    """Parameter groups and per-parameter state, as in torch.optim, whose optimizers load PyTorch's compiler: a second
    at every start.

    groups: each with `params`, `lr` and further settings of the optimizer.
    """

    state_keys: tuple[str, ...]  # names of a parameter's state tensors, which exist after its first step

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        self.param_groups = groups
        self.state: dict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    def parameters(self) -> list[Tensor]:
        """The parameters of all groups, in order, of any shapes."""
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def step(self) -> None:
        """One update of every parameter that has a gradient; NotImplementedError in this base class."""
        raise NotImplementedError


class AdamW(Optimizer):
    """Adam (Kingma & Ba 2014) with decoupled weight decay (Loshchilov & Hutter 2017), in PyTorch's fused kernel.

    groups: each with `params`, `lr` and `weight_decay`. betas: decay per step of the running mean and mean square. eps
    is tiny because gradients are: the head starts near zero, and so do all gradients that pass through it.
    """

    state_keys = ("step", "exp_avg", "exp_avg_sq")

    def __init__(self, groups: list[dict[str, Any]], betas: tuple[float, float], eps: float = 1e-10) -> None:
        super().__init__(groups)
        self.betas, self.eps = betas, eps

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                if not self.state[parameter]:
                    zeros = (torch.zeros((), device=parameter.device), *map(torch.zeros_like, [parameter] * 2))
                    self.state[parameter] = dict(zip(self.state_keys, zeros, strict=True))
            steps, means, squares = ([self.state[p][name] for p in parameters] for name in self.state_keys)
            adamw(
                parameters,
                [parameter.grad for parameter in parameters],
                means,
                squares,
                [],
                steps,
                fused=True,
                amsgrad=False,
                beta1=self.betas[0],
                beta2=self.betas[1],
                lr=group["lr"],
                weight_decay=group["weight_decay"],
                eps=self.eps,
                maximize=False,
            )


class Muon(Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024): every direction of a matrix's update gets the same size.

    A gradient has a few large singular values and many small ones; Muon replaces those of the momentum by values near
    one. The update is scaled to the root mean square of AdamW's, 0.2 (Liu et al. 2025), and weight decay is decoupled.
    Only for matrices inside the blocks. Matrices of one shape are stacked and orthogonalised in one call: the same
    arithmetic in far fewer kernels.

    params: 2-D parameters, (rows, columns). lr: of the next step. momentum: decay per step of the running mean, with
    Nesterov momentum. weight_decay: each step multiplies the weights by 1 − lr · weight_decay. dtype: of the iteration;
    bf16 suffices if the hardware supports it.
    """

    state_keys = ("momentum",)

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__([{"params": list(params), "lr": lr, "momentum": momentum, "weight_decay": weight_decay}])
        self.dtype = dtype
        self.runners: dict[tuple[int, ...], CUDAGraphRunner[Tensor]] = {}  # for `update`, by the ids of its matrices

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            shapes: dict[torch.Size, list[Tensor]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes[parameter.shape].append(parameter)
            for shape, parameters in shapes.items():
                key = tuple(map(id, parameters))
                replay = self.runners.setdefault(key, CUDAGraphRunner(parameters[0].device))
                used = [tensor for p in parameters for tensor in (p.grad, self.state[p].get("momentum"))]
                update = replay(partial(self.update, parameters, group["momentum"]), used)  # (N, rows, columns)
                size = group["lr"] * 0.2 * math.sqrt(max(shape))
                torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
                torch._foreach_add_(parameters, list(update.to(parameters[0].dtype).unbind()), alpha=-size)

    def update(self, parameters: list[Tensor], momentum: float) -> Tensor:
        """The update direction of each of N matrices of one shape: (N, rows, columns)."""
        return orthogonalise(torch.stack([self._direction(p, momentum) for p in parameters]).to(self.dtype))

    def _direction(self, parameter: Tensor, momentum: float) -> Tensor:
        """Update the running mean of the gradient; returns the Nesterov momentum, of the parameter's shape."""
        assert parameter.grad is not None
        state = self.state[parameter]
        if "momentum" not in state:
            state["momentum"] = torch.zeros_like(parameter)
        mean: Tensor = state["momentum"]
        mean.lerp_(parameter.grad, 1 - momentum)
        return parameter.grad.lerp(mean, momentum)


def orthogonalise(matrices: Tensor, iterations: int = 5) -> Tensor:
    """Bring all singular values near one, keeping the singular vectors: (N, rows, columns) → same shape and dtype.

    Newton–Schulz: x ← a·x + b·(x xᵀ)x + c·(x xᵀ)²x applies the polynomial a·s + b·s³ + c·s⁵ to each singular value s.
    With these coefficients small values grow fast and then stay between about 0.7 and 1.2, which is close enough to one
    (Jordan et al. 2024).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices  # the smaller Gram matrix is cheaper
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # every singular value ≤ 1, where the iteration converges
    for _ in range(iterations):
        gram = x @ x.mT  # (N, rows, rows)
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if tall else x


class Optimizers:
    """The optimizers of one model, which step together. `state_dict` is a flat dictionary of tensors.

    A group's `lr_multiplier`, if it has one, multiplies the learning rate.
    """

    def __init__(self, *members: Optimizer) -> None:
        self.members = members

    def step(self, learning_rate: float) -> None:
        """Step every parameter that has a gradient, at this step's learning rate."""
        for optimizer in self.members:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group.get("lr_multiplier", 1.0)
            optimizer.step()

    def zero_grad(self) -> None:
        """Remove the gradients; on CUDA set them to zero, since CUDA graphs need them at the same address."""
        parameters = [p for optimizer in self.members for p in optimizer.parameters() if p.grad is not None]
        if parameters and parameters[0].device.type == "cuda":
            torch._foreach_zero_([p.grad for p in parameters if p.grad is not None])
            return
        for parameter in parameters:
            parameter.grad = None

    def state_dict(self) -> dict[str, Tensor]:
        """`<member>.<parameter>.<name>` → tensor, e.g. `0.3.exp_avg`; float32, with the shapes in `shapes()`."""
        return {
            f"{i}.{j}.{name}": tensor
            for i, optimizer in enumerate(self.members)
            for j, parameter in enumerate(optimizer.parameters())
            for name, tensor in optimizer.state.get(parameter, {}).items()
        }

    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Restore tensors from `state_dict`, of the same shapes, on optimizers built the same way."""
        for optimizer in self.members:
            optimizer.state.clear()
        for key, tensor in tensors.items():
            member, index, name = key.split(".")
            optimizer = self.members[int(member)]
            parameter = optimizer.parameters()[int(index)]
            optimizer.state[parameter][name] = tensor.to(parameter.device, copy=True)

    def shapes(self) -> dict[str, torch.Size]:
        """The shape of each tensor of `state_dict` after the first step, by name."""
        return {
            f"{i}.{j}.{name}": torch.Size() if name == "step" else parameter.shape
            for i, optimizer in enumerate(self.members)
            for j, parameter in enumerate(optimizer.parameters())
            for name in optimizer.state_keys
        }


def build(model: GPT, settings: Train, dtype: torch.dtype = torch.float32) -> Optimizers:
    """The optimizers for `settings`. Weight decay applies to matrices, not to norms and biases.

    AdamW alone is GPT-2's recipe. With Muon, AdamW handles only embeddings, head, norms and biases; an untied embedding
    gets EMBEDDING_LR_MULTIPLIER times the learning rate. dtype: of Muon's iteration.
    """
    hidden, ends, vectors = split_parameters(model)
    decay, (beta1, beta2) = settings.weight_decay, settings.betas
    muon = settings.optimizer == "muon"
    groups: list[dict[str, Any]] = [
        {"params": ends if muon else hidden + ends, "weight_decay": decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    if muon and ends and not model.config.tie_embeddings:
        embedding, *groups[0]["params"] = ends
        multiplier = EMBEDDING_LR_MULTIPLIER
        groups.append({"params": [embedding], "weight_decay": decay / multiplier, "lr_multiplier": multiplier})
    first = AdamW([{"lr": settings.learning_rate} | group for group in groups], (beta1, beta2))
    if not muon:
        return Optimizers(first)
    return Optimizers(first, Muon(hidden, settings.learning_rate, weight_decay=decay, dtype=dtype))


def split_parameters(model: GPT) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """(Matrices inside the blocks; embeddings and head; vectors: norms and biases.)

    Each trainable parameter once, in the model's order; a tied head is the token embedding.
    """
    inside = {id(parameter) for parameter in model.blocks.parameters()}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    hidden = [p for p in parameters if p.dim() >= 2 and id(p) in inside]
    ends = [p for p in parameters if p.dim() >= 2 and id(p) not in inside]
    return hidden, ends, [p for p in parameters if p.dim() < 2]


def schedule(step: int, settings: Train) -> float:
    """The learning rate at `step` (0 is the first) as a fraction of its peak, in (0, 1]: warm-up, then decay.

    Warm-up is linear and reaches the peak at step `warmup_steps`; the decay reaches `final_fraction` just after the
    last step. A warm-up longer than the run is cut to its length.
    """
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, settings.steps - warmup)  # 0 at the peak, 1 at the end
    decay = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}[settings.schedule]
    return settings.final_fraction + (1 - settings.final_fraction) * decay

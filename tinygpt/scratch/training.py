"""One training step: forward pass, loss, gradients, clipping, optimizer step.

    optimizers = build(model, settings)
    for step, (inputs, targets) in enumerate(batches):
        loss, gradient_norm = train_step(model, optimizers, inputs, targets, settings, step)
        if settings.average:
            # newest: the model's parameters, by name; average: initially a copy of them
            average_weights(average, newest, step + 1, settings.average)

`settings` is the `train` section of params.yaml; train.py runs this loop. Left out: gradient accumulation, distributed
training and half precision (tinygpt/training/loop.py).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tinygpt.config import Train
from tinygpt.scratch.gpt import GPT
from tinygpt.scratch.loss import cross_entropy
from tinygpt.scratch.optimizers import AdamW, Muon, Optimizer, parameter_group

EMBEDDING_LR_MULTIPLIER = 5.0  # for the token embedding, since few tokens of a batch update a given row


def train_step(
    model: GPT, optimizers: "Optimizers", inputs: Tensor, targets: Tensor, settings: Train, step: int
) -> tuple[float, float]:
    """One optimizer step on a batch, inputs and targets int64 (B, T).

    The targets are the inputs shifted by one token: the next token for each position. Returns the loss in nats per
    token and the gradient norm, both before the step.
    """
    logits = model(inputs)  # (B, T, V)
    loss = cross_entropy(logits, targets)
    loss.backward()  # the gradient of the loss for each weight (backward.py)
    norm = clip_gradients(model.parameters(), settings.gradient_clip)
    optimizers.step(settings.learning_rate * schedule(step, settings))
    optimizers.zero_grad()
    return loss.item(), norm.item()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale the gradients so that their total norm is at most `limit`; returns the norm before, a scalar.

    The total norm is the length of all gradients as one vector. Some batches give a very large gradient, whose step
    could undo many others; clipping keeps its direction (Pascanu et al. 2013). A limit of 0 turns clipping off.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = torch.stack([(gradient**2).sum() for gradient in gradients]).sum().sqrt()
    if limit and norm > limit:
        for gradient in gradients:
            gradient.mul_(limit / (norm + 1e-6))
    return norm


@torch.no_grad()
def average_weights(average: dict[str, Tensor], newest: Mapping[str, Tensor], steps: int, fraction: float) -> None:
    """Update a running mean of the weights in place; the trained model gets this mean.

    average, newest: by parameter name; newest are the weights after `steps` ≥ 1 steps. Each step also fits noise of its
    batch; in a mean over many steps that noise cancels (Polyak & Juditsky 1992). Early weights are poor, so old ones
    decay: with fraction = 0.2, after 1000 steps, the newest get weight 1/200, as in a mean of about the last 200.
    """
    weight = min(1.0, 1 / (fraction * steps))  # 1 in the first steps: the mean is the newest
    for name, parameter in newest.items():
        average[name].copy_((1 - weight) * average[name] + weight * parameter)


def schedule(step: int, settings: Train) -> float:
    """The learning rate at `step` (0 is the first) as a fraction of its peak: linear warm-up, then decay.

    Warm-up, since AdamW's running means are inaccurate at first (Goyal et al. 2017, for SGD). Decay, since large steps
    overshoot near an optimum: linear or half a cosine (Loshchilov & Hutter 2016) to `final_fraction`, or constant.
    """
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, settings.steps - warmup)  # 0 at the peak, 1 after the last step
    decay = 1.0  # "constant"
    if settings.schedule == "linear":
        decay = 1 - done
    if settings.schedule == "cosine":
        decay = (1 + math.cos(math.pi * done)) / 2
    return settings.final_fraction + (1 - settings.final_fraction) * decay


class Optimizers:
    """The optimizers of one model, which step together."""

    def __init__(self, *members: Optimizer) -> None:
        self.members = members

    def step(self, learning_rate: float) -> None:
        """Step every parameter that has a gradient, at this learning rate."""
        for optimizer in self.members:
            optimizer.step(learning_rate)

    def zero_grad(self) -> None:
        """Remove the gradients; otherwise the next backward pass would add to them."""
        for optimizer in self.members:
            for group in optimizer.groups:
                for parameter in group["params"]:
                    parameter.grad = None


def build(model: GPT, settings: Train) -> Optimizers:
    """The optimizers for `settings`: AdamW alone, or Muon with AdamW.

    Weight decay applies to matrices, not to norms and biases. Muon is for matrices inside the blocks; AdamW then
    handles embeddings, head, norms and biases. Few tokens of a batch update a given row of the embedding, so an untied
    embedding gets a larger learning rate, and a weight decay divided by the same factor.
    """
    inside: list[nn.Parameter] = []
    ends: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        group = vectors if parameter.dim() == 1 else inside if name.startswith("blocks.") else ends
        group.append(parameter)
    decay, (beta1, beta2) = settings.weight_decay, settings.betas
    if settings.optimizer == "adamw":
        return Optimizers(AdamW([parameter_group(inside + ends, decay), parameter_group(vectors, 0.0)], (beta1, beta2)))
    groups = [parameter_group(ends, decay), parameter_group(vectors, 0.0)]
    if not model.config.tie_embeddings:
        embedding, *others = ends
        fast = parameter_group([embedding], decay / EMBEDDING_LR_MULTIPLIER, EMBEDDING_LR_MULTIPLIER)
        groups = [parameter_group(others, decay), parameter_group(vectors, 0.0), fast]
    return Optimizers(AdamW(groups, (beta1, beta2)), Muon([parameter_group(inside, decay)]))

"""One training step: forward pass, loss, gradients, clipping, optimizer step.

    optimizers = build(model, settings)
    for step, (inputs, targets) in enumerate(batches):
        loss, gradient_norm = train_step(model, optimizers, inputs, targets, settings, step)
        if settings.average:
            # newest: the model's parameters, by name; average: at first a copy of them
            average_weights(average, newest, step + 1, settings.average)

`settings` is the `train` section of params.yaml; train.py runs this loop on a text. Left out: batches too large for
memory, several processes, and half precision (tinygpt/training/loop.py).
"""

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from tinygpt.config import Train
from tinygpt.scratch.gpt import GPT
from tinygpt.scratch.loss import cross_entropy
from tinygpt.scratch.optimizers import AdamW, Muon, Optimizer, grouped

EMBEDDING_LR_MULTIPLIER = 5.0  # for the token embedding: few tokens of a batch move a given row


def train_step(
    model: GPT, optimizers: "Optimizers", inputs: Tensor, targets: Tensor, settings: Train, step: int
) -> tuple[float, float]:
    """Learn from one batch, inputs and targets int64 (B, T); returns, as they are before the step, the loss in nats per
    token and the gradient norm.

    The targets are the inputs, one token further on: what each position should have predicted.
    """
    logits = model(inputs)  # (B, T, V)
    loss = cross_entropy(logits, targets)
    loss.backward()  # for each weight: how the loss would change with it (backward.py)
    norm = clip_gradients(model.parameters(), settings.gradient_clip)
    optimizers.step(settings.learning_rate * schedule(step, settings))
    optimizers.zero_grad()
    return loss.item(), norm.item()


@torch.no_grad()
def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Shorten the gradient of all parameters, as one long vector, to length `limit`; returns its length before.

    A rare batch gives a gradient far longer than others, and one step along it could undo many. The direction stays
    (Pascanu et al. 2013). A limit of 0 leaves everything as it is.
    """
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    length = torch.stack([(gradient**2).sum() for gradient in gradients]).sum().sqrt()
    if limit and length > limit:
        for gradient in gradients:
            gradient.mul_(limit / (length + 1e-6))
    return length


@torch.no_grad()
def average_weights(average: dict[str, Tensor], newest: Mapping[str, Tensor], steps: int, fraction: float) -> None:
    """Update the running mean of the weights, by name, with the newest after so many steps: it is what is kept, and
    what writes. fraction: more than 0.

    Each batch pulls the weights a little its own way. In the mean of many steps those pulls cancel, and what all
    batches agree on stays (Polyak & Juditsky 1992). Early weights know little, so a mean of all of them would be poor:
    with a fraction of 0.2, after 1000 steps, the newest get 1/200 of the whole, as if about the last 200 counted.
    """
    part = min(1.0, 1 / (fraction * steps))  # the first steps take the newest whole
    for name, parameter in newest.items():
        average[name].copy_((1 - part) * average[name] + part * parameter)


def schedule(step: int, settings: Train) -> float:
    """The fraction of the peak learning rate at `step`, of which 0 is the first: up in equal steps, then down.

    Up, since AdamW's averages are not worth much yet (Goyal et al. 2017 warmed up SGD); down, since near the goal large
    steps overshoot it. Down to `final_fraction`, in a straight line, along half a cosine (Loshchilov & Hutter 2016), or
    not at all.
    """
    warmup = min(settings.warmup_steps, settings.steps)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    done = (step - warmup) / max(1, settings.steps - warmup)  # 0 at the peak, 1 after the last step
    height = 1.0  # "constant": of what lies above final_fraction, how much is left
    if settings.schedule == "linear":
        height = 1 - done
    if settings.schedule == "cosine":
        height = (1 + math.cos(math.pi * done)) / 2
    return settings.final_fraction + (1 - settings.final_fraction) * height


class Optimizers:
    """The optimizers of one model, stepped together."""

    def __init__(self, *members: Optimizer) -> None:
        self.members = members

    def step(self, learning_rate: float) -> None:
        """Step every parameter that has a gradient, at this learning rate."""
        for optimizer in self.members:
            optimizer.step(learning_rate)

    def zero_grad(self) -> None:
        """Drop the gradients; else the next backward pass would add to them."""
        for optimizer in self.members:
            for group in optimizer.groups:
                for parameter in group["params"]:
                    parameter.grad = None


def build(model: GPT, settings: Train) -> Optimizers:
    """The optimizers that `settings` asks for.

    Matrices decay; norms and biases, which are there to set a size, do not. Muon is for matrices that turn vectors into
    vectors; beside it AdamW keeps the two ends, where each row belongs to a token. Few tokens of a batch move a given
    row, so an embedding that is not the head as well learns faster, and decays no faster for it.
    """
    inside: list[nn.Parameter] = []
    ends: list[nn.Parameter] = []
    vectors: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        group = vectors if parameter.dim() == 1 else inside if name.startswith("blocks.") else ends
        group.append(parameter)
    decay, (beta1, beta2) = settings.weight_decay, settings.betas
    if settings.optimizer == "adamw":
        return Optimizers(AdamW([grouped(inside + ends, decay), grouped(vectors, 0.0)], (beta1, beta2)))
    groups = [grouped(ends, decay), grouped(vectors, 0.0)]
    if not model.config.tie_embeddings:
        embedding, *others = ends
        fast = grouped([embedding], decay / EMBEDDING_LR_MULTIPLIER, EMBEDDING_LR_MULTIPLIER)
        groups = [grouped(others, decay), grouped(vectors, 0.0), fast]
    return Optimizers(AdamW(groups, (beta1, beta2)), Muon([grouped(inside, decay)]))

"""The training step and the training loop.

`for state in train(state, ...)` takes one optimizer step an item; between two items the caller may save
`state.tensors()` and `state.metadata()`, draw progress, or stop. What a step does is a function of the state, the seed
and its number alone, so a run that was stopped goes on to the same bits. Nothing is printed here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from tinygpt.config import Train
from tinygpt.data.dataset import Batch, evaluation_windows, training_batches
from tinygpt.model.gpt import GPT
from tinygpt.model.loss import cross_entropy
from tinygpt.training import compilation, distributed
from tinygpt.training.optimizer import schedule
from tinygpt.training.passes import Passes
from tinygpt.training.state import State

HEALTH_EVERY = 10  # steps; measuring takes a copy of the weights
LOGITS_AT_ONCE = 2**23  # of validation tokens, on CUDA: a small batch leaves it idle, a large one takes memory
SMALLEST_SCALE = 2.0**-10  # an fp16 gradient that overflows even at this scale is a diverged one


class DivergedError(ValueError):
    """The loss or the gradient is no longer a finite number."""


def train(state: State, settings: Train, data: dict[str, np.ndarray], seed: int, precision: str) -> Iterator[State]:
    """Train from where `state` stands to the last step; yields it after every step, evaluated where that was due.

    data: token arrays `train` and `validation`, each (number of tokens,) uint16 or uint32. precision: fp32, bf16 or
    fp16. Raises DivergedError before a step that would spoil the weights, or where the validation loss shows that one
    did; ValueError where the training split is shorter than a window, or the other has fewer than two tokens.
    """
    passes = Passes(state, precision)
    device = passes.device
    context, vocab_size = state.model.config.context_length, state.model.config.vocab_size
    batches = training_batches(
        data["train"],
        context,
        settings.batch_size * settings.accumulation,
        seed=seed,
        start=state.step,
        stop=settings.steps,
        shard=distributed.shard(),
        pin=device.type == "cuda",
    )

    at_once = (
        max(1, LOGITS_AT_ONCE // (context * vocab_size)) if device.type == "cuda" else settings.batch_size
    )  # sequences

    def validate() -> None:
        windows = evaluation_windows(data["validation"], context, at_once, limit=settings.eval_tokens)
        loss = mean_loss(state.model, windows, passes.cast, state.average)
        if not math.isfinite(loss):
            raise DivergedError(remedy(state.step, f"the validation loss is {loss}", settings))
        record_validation(state, loss)

    if state.step == 0:
        validate()  # before any learning: ln V
    for inputs, targets in batches:
        # dropout, too, depends on the seed and the step alone; and on the process, of which each draws its own
        if state.model.config.dropout:
            torch.manual_seed(seed * 1_000_003 + state.step + distributed.rank() * 1_000_000_007)
        batch = (inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))
        step = examined_step if state.step % HEALTH_EVERY == 0 else train_step
        step(state, passes, batch, settings)
        if state.step % settings.eval_every == 0 or state.step == settings.steps:
            validate()
        yield state


def train_step(state: State, passes: Passes, batch: Batch, settings: Train) -> Tensor:
    """One optimizer step on one batch of batch_size × accumulation sequences (int64, (B, T)); adds its row to
    `state.train_rows`. Returns the activation scale, a scalar.

    In fp16 a gradient may overflow: that step is skipped for all parameters (its row says gradient_norm 0), and the
    scale is lowered. Raises DivergedError, with the weights as they were, where a number is not finite otherwise.
    """
    total, scale = passes.accumulate(batch, settings.batch_size)
    for optimizer in state.optimizers.members:
        state.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # of an optimizer it asks for param_groups alone
    length = clip_gradients(state.parameters.values(), settings.gradient_clip)
    loss, norm = torch.stack((total, length)).tolist()  # a GPU is waited for once a step: here, before any weight moves
    learning_rate = settings.learning_rate * schedule(state.step, settings)
    overflow = state.scaler.is_enabled() and not math.isfinite(norm) and state.scaler.get_scale() > SMALLEST_SCALE
    if not math.isfinite(loss) or not (math.isfinite(norm) or overflow):
        raise DivergedError(remedy(state.step, f"the loss is {loss}, the gradient's norm {norm}", settings))
    if not overflow:
        state.optimizers.step(learning_rate)
    state.optimizers.zero_grad()
    state.scaler.update()
    state.step += 1
    if state.average:
        average_weights(state.average, state.parameters, state.step, settings.average)
    norm = 0.0 if overflow else norm
    state.train_rows.append({"step": state.step, "loss": loss, "learning_rate": learning_rate, "gradient_norm": norm})
    return scale


def remedy(step: int, what: str, settings: Train) -> str:
    """What diverged, and what to try: a sentence each."""
    if step == 0 and settings.init_from is not None:
        return f"With the weights of {settings.init_from} as they are {what}. Try train.precision=fp32."
    rate = settings.learning_rate * schedule(min(step, settings.steps - 1), settings)
    return (
        f"Training diverged at step {step}: {what}. The learning rate is {rate:.2g}; try -S train.learning_rate="
        f"{settings.learning_rate / 2:g}, more train.warmup_steps, or train.precision=fp32."
    )


def examined_step(state: State, passes: Passes, batch: Batch, settings: Train) -> None:
    """A step on a batch (int64, (B, T)), and in `health_rows` how it moved the weights and how large the activations
    were.

    update_ratio: length of the step over length of the weights; about 0.001 to 0.01 is usual, far more is a learning
    rate too high. activation_scale: root mean square of the residual stream before the last norm; it grows with depth
    and training, and a run that is about to diverge shows here first.
    """
    parameters = [parameter.detach() for parameter in state.parameters.values()]
    before = [parameter.clone() for parameter in parameters]
    activation_scale = train_step(state, passes, batch, settings)
    moved = total_norm(torch._foreach_sub(parameters, before)) / total_norm(before)
    ratio, scale = torch.stack((moved, activation_scale)).tolist()
    state.health_rows.append({"step": state.step, "update_ratio": ratio, "activation_scale": scale})


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all tensors together: a scalar."""
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale the gradients of all parameters, of any shapes, so that their common norm is at most `limit` (0: leave
    them); the norm before, a scalar.
    """
    return nn.utils.clip_grad_norm_(parameters, limit or math.inf)


@torch.no_grad()
def average_weights(average: dict[str, Tensor], newest: Mapping[str, Tensor], steps: int, fraction: float) -> None:
    """Update a running mean of the weights in place with the `newest`, those after `steps` ≥ 1.

    The mean covers about the last `fraction` > 0 of the run. Late in a run the weights oscillate around an optimum and
    fit noise of single batches; their mean predicts unseen text better (Polyak & Juditsky 1992). The newest count
    1 / (fraction·steps), so those after s steps count as s^(1/fraction − 1) (polynomial decay, Shamir & Zhang 2013).
    """
    torch._foreach_lerp_([*average.values()], [newest[name] for name in average], min(1.0, 1 / (fraction * steps)))


@torch.no_grad()
def mean_loss(
    model: GPT,
    windows: Iterable[Batch],
    cast: AbstractContextManager[Any],
    weights: dict[str, Tensor] | None = None,
) -> float:
    """The mean cross-entropy over all predicted tokens, nats per token; several processes share the windows.

    windows: int64, (B, T), as evaluation_windows gives them. weights: parameter name → what stands in for it. The model
    is left in eval mode. ZeroDivisionError where there is no window.
    """
    device = next(model.parameters()).device
    model.eval()
    losses, count = [], 0
    for inputs, targets in islice(windows, distributed.rank(), None, distributed.size()):
        with cast, compilation.as_written():  # other shapes: not worth compiling for
            logits = functional_call(model, weights or {}, (inputs.to(device),))
        losses.append(cross_entropy(logits, targets.to(device), "sum"))
        count += targets.numel()
    total = sum(torch.stack(losses).tolist()) if losses else 0.0
    return distributed.total(total) / distributed.total(count)


def record_validation(state: State, loss: float) -> None:
    """Note a validation loss (nats per token), and keep the weights (state.kept) where it is the lowest so far."""
    state.validation_rows.append({"step": state.step, "loss": loss})
    if loss < state.best_loss:
        state.best_step, state.best_loss, state.best = state.step, loss, state.kept()

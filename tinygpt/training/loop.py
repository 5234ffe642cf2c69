"""The training step and the training loop.

`for state in train(state, ...)` takes one optimizer step per iteration; between steps the caller may save
`state.tensors()` and `state.metadata()`, show progress, or stop. A step depends only on the state, the seed and its
number, so a resumed run gives the same bits as an uninterrupted one. Nothing is printed here.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from tinygpt.config import Train
from tinygpt.data.dataset import Batch, Examples, training_batches
from tinygpt.model.gpt import GPT
from tinygpt.model.loss import IGNORED, cross_entropy
from tinygpt.training import compilation, distributed
from tinygpt.training.optimizer import schedule
from tinygpt.training.passes import Passes
from tinygpt.training.state import State

HEALTH_EVERY = 10  # steps, since measuring copies the weights
LOGITS_AT_ONCE = 2**23  # in validation on CUDA: a smaller batch leaves the GPU idle, a larger one takes memory
SMALLEST_SCALE = 2.0**-10  # an fp16 gradient that overflows even at this scale is a diverged one


class DivergedError(ValueError):
    """The loss or the gradient is no longer a finite number."""


def train(
    state: State,
    settings: Train,
    data: Mapping[str, Examples],
    seed: int,
    precision: str,
    separator: int | None = None,
) -> Iterator[State]:
    """Train from step `state.step` to the last; yields the state after each step and its validation, if one is due.

    data: the examples of `train` and `validation`. precision: fp32, bf16 or fp16. separator: as in GPT.forward, while
    training. DivergedError before a step with a non-finite loss or gradient, and for a non-finite validation loss.
    """
    passes = Passes(state, precision, separator)
    device = passes.device
    context, vocab_size = state.model.config.context_length, state.model.config.vocab_size
    batches = training_batches(
        data["train"],
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
        held_out = data["validation"]
        windows = held_out.evaluation(at_once, settings.eval_tokens)
        loss = mean_loss(state.model, windows, passes.cast, state.average, held_out.separator)
        if not math.isfinite(loss):
            raise DivergedError(remedy(state.step, f"the validation loss is {loss}", settings))
        record_validation(state, loss)

    if state.step == 0:
        validate()  # of the initial weights: about ln V
    for inputs, targets in batches:
        # so that dropout depends only on the seed and the step, and differs between processes
        if state.model.config.dropout:
            torch.manual_seed(seed * 1_000_003 + state.step + distributed.rank() * 1_000_000_007)
        batch = (inputs.to(device, non_blocking=True), targets.to(device, non_blocking=True))
        step = examined_step if state.step % HEALTH_EVERY == 0 else train_step
        step(state, passes, batch, settings)
        if state.step % settings.eval_every == 0 or state.step == settings.steps:
            validate()
        yield state


def train_step(state: State, passes: Passes, batch: Batch, settings: Train) -> Tensor:
    """One optimizer step on one batch of batch_size × accumulation sequences (int64, (B, T)); appends a row to
    `state.train_rows`. Returns the activation scale, a scalar.

    If an fp16 gradient overflows, the step is skipped (its row has gradient_norm 0) and the loss scale lowered. Any
    other non-finite number raises DivergedError before the weights change.
    """
    total, scale = passes.accumulate(batch, settings.batch_size)
    for optimizer in state.optimizers.members:
        state.scaler.unscale_(optimizer)  # type: ignore[arg-type]  # it needs only param_groups
    norm_before = clip_gradients(state.parameters.values(), settings.gradient_clip)
    loss, norm = torch.stack((total, norm_before)).tolist()  # the only wait for a GPU in a step; no weight changed yet
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
    """A message for a run that diverged: what was not finite, and what to try."""
    if step == 0 and settings.init_from is not None:
        return f"With the unchanged weights of {settings.init_from}, {what}. Try train.precision=fp32."
    rate = settings.learning_rate * schedule(min(step, settings.steps - 1), settings)
    return (
        f"Training diverged at step {step}: {what}. The learning rate is {rate:.2g}; try -S train.learning_rate="
        f"{settings.learning_rate / 2:g}, more train.warmup_steps, or train.precision=fp32."
    )


def examined_step(state: State, passes: Passes, batch: Batch, settings: Train) -> None:
    """A training step on a batch (int64, (B, T)) that also appends update ratio and activation scale to `health_rows`.

    update_ratio: norm of the update divided by norm of the weights; 0.001 to 0.01 is usual, and far more means that the
    learning rate is too high. activation_scale: root mean square of the residual stream before the last norm. It grows
    with depth and training, and shows first that a run is about to diverge.
    """
    parameters = [parameter.detach() for parameter in state.parameters.values()]
    before = [parameter.clone() for parameter in parameters]
    activation_scale = train_step(state, passes, batch, settings)
    update_ratio = total_norm(torch._foreach_sub(parameters, before)) / total_norm(before)
    ratio, scale = torch.stack((update_ratio, activation_scale)).tolist()
    state.health_rows.append({"step": state.step, "update_ratio": ratio, "activation_scale": scale})


def total_norm(tensors: Sequence[Tensor]) -> Tensor:
    """The L2 norm of all tensors as one vector: a scalar."""
    return torch.stack(torch._foreach_norm(list(tensors))).norm()


def clip_gradients(parameters: Iterable[Tensor], limit: float) -> Tensor:
    """Scale the gradients of all parameters, of any shapes, so that their total norm is at most `limit` (0: no limit).

    Returns the norm before clipping, a scalar.
    """
    return nn.utils.clip_grad_norm_(parameters, limit or math.inf)


@torch.no_grad()
def average_weights(average: dict[str, Tensor], newest: Mapping[str, Tensor], steps: int, fraction: float) -> None:
    """Update a running mean of the weights in place with the `newest`, those after `steps` ≥ 1 steps.

    The mean covers about the last `fraction` > 0 of the run. Late in a run the weights oscillate around an optimum and
    fit noise of single batches; their mean predicts unseen text better (Polyak & Juditsky 1992). The newest get weight
    1 / (fraction·steps), so those after s steps get weight ∝ s^(1/fraction − 1) (polynomial decay, Shamir & Zhang
    2013).
    """
    torch._foreach_lerp_([*average.values()], [newest[name] for name in average], min(1.0, 1 / (fraction * steps)))


@torch.no_grad()
def mean_loss(
    model: GPT,
    windows: Iterable[Batch],
    cast: AbstractContextManager[Any],
    weights: dict[str, Tensor] | None = None,
    separator: int | None = None,
) -> float:
    """The mean cross-entropy over all counted tokens, nats per token; processes divide the windows among them.

    windows: int64, (B, T), from Examples.evaluation. weights: parameter name → tensor to use instead. separator: as in
    GPT.forward. The model is left in eval mode. ZeroDivisionError without a counted token.
    """
    device = next(model.parameters()).device
    model.eval()
    losses, count = [], 0
    for inputs, targets in islice(windows, distributed.rank(), None, distributed.size()):
        with cast, compilation.eager():  # compiling for other shapes does not pay
            logits = functional_call(model, weights or {}, (inputs.to(device), separator))
        losses.append(cross_entropy(logits, targets.to(device), "sum"))
        count += int((targets != IGNORED).sum())
    total = sum(torch.stack(losses).tolist()) if losses else 0.0
    return distributed.total(total) / distributed.total(count)


def record_validation(state: State, loss: float) -> None:
    """Append a validation loss (nats per token); if it is the lowest so far, keep the weights (state.kept)."""
    state.validation_rows.append({"step": state.step, "loss": loss})
    if loss < state.best_loss:
        state.best_step, state.best_loss, state.best = state.step, loss, state.kept()

"""Forecast of a run's cost: parameters, tokens, FLOPs, memory, time.

`count` allocates almost nothing, so it is called first; `seconds_left` times a pass of the run's size. Both leave the
state unchanged. In a distributed run all processes must call them, since a pass ends with averaging gradients. Left out
of the time: the optimizer step (a sixth, with Muon), saving, what compiling saves, and other load on the machine.
"""

import math
import time
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor

from tinygpt.config import Train
from tinygpt.data.dataset import Batch
from tinygpt.model.gpt import count_parameters, training_flops_per_token
from tinygpt.model.hardware import clock, core_share
from tinygpt.training import distributed
from tinygpt.training.optimizer import Muon
from tinygpt.training.passes import Passes
from tinygpt.training.state import State

LIBRARIES = 20_000_000  # bytes that libraries allocate on a CPU for themselves when first used
FRAGMENTATION = 1.25  # memory taken on a CPU, divided by that of its tensors


@dataclass(frozen=True)
class Forecast:
    """The estimated cost of a run."""

    parameters: int
    tokens: int
    epochs: float  # passes over the training text
    flops: int
    memory: int  # bytes, at the peak of a step, in each process
    memory_a_sequence: int  # bytes of it for each sequence of the batch


def count(state: State, settings: Train, text_tokens: int, precision: str, separator: int | None = None) -> Forecast:
    """Estimate the cost of a run before it allocates memory.

    The memory for the backward pass is counted with one sequence and with two, and extrapolated. On a CPU the result is
    the memory of the process beyond what it takes without a model, elsewhere that of tensors on the device.
    docs/benchmark.md compares it with measurements. text_tokens: size of the training split. separator: as in
    GPT.forward.
    """
    config = state.model.config
    tokens = settings.steps * settings.batch_size * settings.accumulation * config.context_length
    copies, sequence = memory_of_pass(state, precision, separator)
    return Forecast(
        parameters=count_parameters(state.model),
        tokens=tokens,
        epochs=tokens / text_tokens,
        flops=tokens * training_flops_per_token(config),
        memory=lasting_memory(state) + copies + sequences_per_pass(settings) * sequence,
        memory_a_sequence=sequence,
    )


def lasting_memory(state: State) -> int:
    """Bytes that a step takes for any batch size: weights, gradients, optimizer state and workspace.

    Every tenth step copies the weights to measure the update; the running mean is another copy of the trainable ones;
    on a CPU, the best weights so far are in the same memory.
    """
    on_cpu = next(state.model.parameters()).device.type == "cpu"
    copies = 3 if on_cpu else 2  # weights, those before the step, and on a CPU the best so far
    gradients = 2 if distributed.size() > 1 else 1  # and the vector of them that is averaged
    trainable = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    optimizer_state = sum(math.prod(shape) for shape in state.optimizers.shapes().values())
    by_shape: Counter[tuple[int, ...]] = Counter()  # numbers in the matrices of each shape, which Muon stacks
    for optimizer in state.optimizers.members:
        for parameter in optimizer.param_groups[0]["params"] if isinstance(optimizer, Muon) else []:
            by_shape[tuple(parameter.shape)] += parameter.numel()
    workspace = 4 * max(by_shape.values(), default=0)  # the stack, two iterates, and their products
    mean = trainable if state.average else 0
    numbers = mean + copies * count_parameters(state.model) + gradients * trainable + optimizer_state + workspace
    return 4 * numbers + (LIBRARIES if on_cpu else 0)


def memory_of_pass(state: State, precision: str, separator: int | None = None) -> tuple[int, int]:
    """Bytes that a pass takes for any batch size (copies of the weights in half precision), and bytes per sequence:
    tensors saved for the backward pass, the logits and their gradients.
    """
    one, two = (saved_for_backward(state, sequences, precision, separator) for sequences in (1, 2))
    config = state.model.config
    logits = 3 * 4 * config.context_length * config.vocab_size  # fp32: the logits and two gradients of them
    overhead = FRAGMENTATION if next(state.model.parameters()).device.type == "cpu" else 1.0
    return max(0, 2 * one - two), int(overhead * (two - one + logits))


def seconds_left(
    state: State, settings: Train, validation_tokens: int, precision: str, separator: int | None = None
) -> tuple[float, float]:
    """Seconds that the remaining steps will take, extrapolated from one forward and backward pass; and the core share
    of the timing (hardware.core_share; 1 in a distributed run, whose processes wait for each other).
    """
    sequences = sequences_per_pass(settings)
    fastest, share = time_pass(state, sequences, precision, separator)
    left = settings.steps - state.step
    evaluations = 1 + left // min(settings.eval_every, settings.steps)  # a token takes a third of the time of training
    evaluated = min(settings.eval_tokens, validation_tokens) / state.model.config.context_length
    total = left * settings.batch_size * settings.accumulation + evaluations * evaluated / 3  # sequences, all processes
    return total / distributed.size() / sequences * fastest, share if distributed.size() == 1 else 1.0


def sequences_per_pass(settings: Train) -> int:
    """The number of sequences in one forward pass of a process."""
    return min(settings.batch_size, settings.batch_size * settings.accumulation // distributed.size())


def time_pass(state: State, sequences: int, precision: str, separator: int | None = None) -> tuple[float, float]:
    """Seconds of a forward and backward pass, the fastest of five (on CUDA, the later ones replay a CUDA graph); and
    the core share during all five.
    """
    batch, passes = _blank(state, sequences), Passes(state, precision, separator)
    seconds, since = [], clock()
    for _ in range(5):
        begin = time.perf_counter()
        passes.accumulate(batch, sequences)[0].item()  # waits for the GPU
        seconds.append(time.perf_counter() - begin)
    share = core_share(since, batch[0].device)
    state.optimizers.zero_grad()
    return min(seconds), share


def saved_for_backward(state: State, sequences: int, precision: str, separator: int | None = None) -> int:
    """Bytes that a forward pass saves for the backward pass, without the parameters themselves."""
    saved: dict[int, int] = {}  # address → bytes

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch, passes = _blank(state, sequences), Passes(state, precision, separator)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        passes.accumulate(batch, sequences)
    state.optimizers.zero_grad()
    weights = {p.untyped_storage().data_ptr() for p in state.model.parameters()}
    return sum(size for pointer, size in saved.items() if pointer not in weights)


def _blank(state: State, sequences: int) -> Batch:
    """A batch of zeros."""
    device = next(state.model.parameters()).device
    tokens = torch.zeros(sequences, state.model.config.context_length, dtype=torch.int64, device=device)
    return tokens, tokens

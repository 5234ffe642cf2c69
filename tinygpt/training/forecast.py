"""Forecast of a run's cost: parameters, tokens, FLOPs, memory, time.

`count` needs next to no memory, so it comes first; `seconds_left` times a pass of the real size. Both leave the run
as it was. Several processes must ask together, since a pass ends where they exchange their gradients. Left out of the
time: the optimizer's own step (a sixth, with Muon), saving, what compiling saves, and what else the machine does.
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

LIBRARIES = 20_000_000  # bytes that a CPU's libraries take for themselves once they work
GAPS = 1.25  # on a CPU: room that freed tensors leave and others do not quite fill, over what the tensors take


@dataclass(frozen=True)
class Forecast:
    """What a run will cost."""

    parameters: int
    tokens: int
    epochs: float  # times that the training text is read
    flops: int
    memory: int  # bytes, at the peak of a step, in each process
    memory_a_sequence: int  # bytes of it that each sequence of the batch takes


def count(state: State, settings: Train, text_tokens: int, precision: str) -> Forecast:
    """Estimate the cost of a run before it allocates memory.

    What a step keeps for its backward pass is counted on one sequence and on two, and drawn on. On a CPU the memory is
    that of the process, beyond what it takes before the model is there; elsewhere that of tensors on the device.
    docs/benchmark.md sets it beside what was measured. text_tokens: in the training split.
    """
    config = state.model.config
    tokens = settings.steps * settings.batch_size * settings.accumulation * config.context_length
    copies, sequence = memory_of_pass(state, precision)
    return Forecast(
        parameters=count_parameters(state.model),
        tokens=tokens,
        epochs=tokens / text_tokens,
        flops=tokens * training_flops_per_token(config),
        memory=lasting_memory(state) + copies + in_a_pass(settings) * sequence,
        memory_a_sequence=sequence,
    )


def lasting_memory(state: State) -> int:
    """Bytes that a step takes whatever its batch: weights, gradients, optimizer state and workspace.

    Every tenth step the weights are copied, to see how far they move; their running mean is another copy of those that
    learn; on a CPU the best so far lie there, too.
    """
    on_cpu = next(state.model.parameters()).device.type == "cpu"
    copies = 3 if on_cpu else 2  # weights, those of before the step, the best so far
    gradients = 2 if distributed.size() > 1 else 1  # those on their way
    learned = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    remembered = sum(math.prod(shape) for shape in state.optimizers.shapes().values())
    alike: Counter[tuple[int, ...]] = Counter()  # numbers in the matrices of each shape, which Muon stacks
    for optimizer in state.optimizers.members:
        for parameter in optimizer.param_groups[0]["params"] if isinstance(optimizer, Muon) else []:
            alike[tuple(parameter.shape)] += parameter.numel()
    working = 4 * max(alike.values(), default=0)  # the stack, two steps of its iteration, and their products
    mean = learned if state.average else 0
    numbers = mean + copies * count_parameters(state.model) + gradients * learned + remembered + working
    return 4 * numbers + (LIBRARIES if on_cpu else 0)


def memory_of_pass(state: State, precision: str) -> tuple[int, int]:
    """Bytes that a pass takes whatever its batch (copies of the weights in half precision), and those that each
    sequence adds: what the backward pass needs, and the logits and their gradients.
    """
    one, two = (kept_by_pass(state, sequences, precision) for sequences in (1, 2))
    config = state.model.config
    logits = 3 * 4 * config.context_length * config.vocab_size  # and in fp32 two gradients on their way back
    gaps = GAPS if next(state.model.parameters()).device.type == "cpu" else 1.0
    return max(0, 2 * one - two), int(gaps * (two - one + logits))


def seconds_left(state: State, settings: Train, validation_tokens: int, precision: str) -> tuple[float, float]:
    """How long the steps that are left will take, for which one forward and backward pass is timed and multiplied; and
    the share of that time in which it had a core (hardware.core_share; 1 for several processes, which wait for others).
    """
    sequences = in_a_pass(settings)
    quickest, share = time_pass(state, sequences, precision)
    left = settings.steps - state.step
    evaluations = 1 + left // min(settings.eval_every, settings.steps)  # each takes a third of a pass a token
    read = min(settings.eval_tokens, validation_tokens) / state.model.config.context_length
    whole = left * settings.batch_size * settings.accumulation + evaluations * read / 3  # sequences, of all processes
    return whole / distributed.size() / sequences * quickest, share if distributed.size() == 1 else 1.0


def in_a_pass(settings: Train) -> int:
    """How many sequences a process takes in one forward pass."""
    return min(settings.batch_size, settings.batch_size * settings.accumulation // distributed.size())


def time_pass(state: State, sequences: int, precision: str) -> tuple[float, float]:
    """Seconds of a forward and backward pass, the quickest of five: on CUDA the last ones are recorded; and the share
    of the time of all five in which this thread had a core.
    """
    batch, passes = _blank(state, sequences), Passes(state, precision)
    seconds, since = [], clock()
    for _ in range(5):
        begin = time.perf_counter()
        passes.accumulate(batch, sequences)[0].item()  # waits for a GPU
        seconds.append(time.perf_counter() - begin)
    share = core_share(since, batch[0].device)
    state.optimizers.zero_grad()  # leaves no gradient behind (on CUDA: zeros)
    return min(seconds), share


def kept_by_pass(state: State, sequences: int, precision: str) -> int:
    """The bytes that a forward pass keeps for its backward pass."""
    kept: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    batch, passes = _blank(state, sequences), Passes(state, precision)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        passes.accumulate(batch, sequences)
    state.optimizers.zero_grad()  # leaves no gradient behind (on CUDA: zeros)
    own = {p.untyped_storage().data_ptr() for p in state.model.parameters()}
    return sum(size for pointer, size in kept.items() if pointer not in own)


def _blank(state: State, sequences: int) -> Batch:
    """A batch of one token again and again."""
    device = next(state.model.parameters()).device
    tokens = torch.zeros(sequences, state.model.config.context_length, dtype=torch.int64, device=device)
    return tokens, tokens

"""Distributed training: `torchrun --standalone --nproc_per_node=2 -m stages.train`, a process for each GPU.

Each process holds the whole model and takes its part of every batch; then all average their gradients and take the
same step, so that the result is that of one process, but for rounding. `with joined():` makes them a group; the rest
asks torch.distributed about it, and changes nothing where there is one process. Left out: models that do not fit on
one device.

Gradients are averaged as one vector after the backward pass. DistributedDataParallel would do both at once, but it
regroups the gradients after a process's first step, and a sum of three or more numbers rounds by its place in the
group: with three processes, a run that was stopped and resumed would end in other bits than one left alone.
"""

import contextlib
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.rendezvous import rendezvous

from tinygpt.config import Train, nearest_multiple


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Join the processes that torchrun started, if it did; only the first prints, and one alone says what went wrong.

    CPU tensors go through gloo, CUDA tensors through NCCL where there is one.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    store, number, count = next(rendezvous("env://"))
    nccl = torch.cuda.is_available() and distributed.is_nccl_available()
    distributed.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", store=store, rank=number, world_size=count)
    try:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(sys.stdout if is_first() else nowhere):
            yield
    except BaseException as problem:
        if not (isinstance(problem, SystemExit) and isinstance(problem.code, int)) and _was_said(store):
            sys.exit(1)
        raise  # the group is left to the end of the process: to take leave of others that are stuck could take for ever
    distributed.destroy_process_group()


def size() -> int:
    """The number of processes (world size)."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def rank() -> int:
    """The rank of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def is_first() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def shard() -> slice:
    """The part of a batch that this process takes: every `size`-th sequence, from `rank` on."""
    return slice(rank(), None, size())


def check(settings: Train) -> None:
    """ValueError, in a sentence, where the processes cannot share a batch evenly."""
    sequences = settings.batch_size * settings.accumulation
    if sequences % size():
        even = nearest_multiple(settings.batch_size, size() // math.gcd(size(), settings.accumulation))
        raise ValueError(
            f"A step takes {sequences} sequences (train.batch_size × train.accumulation), which {size()} processes "
            f"cannot share evenly; set train.batch_size to {even}."
        )


def local_device(device: torch.device) -> torch.device:
    """The device of this process: of several GPUs, one each; ValueError where there are too few."""
    if size() == 1 or device.type == "cpu":
        return device
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    wanted = int(os.environ["LOCAL_WORLD_SIZE"])
    if wanted > there:
        raise ValueError(
            f"torchrun started {wanted} processes, but there is {there} {device.type} device here, and each process "
            f"needs its own; use --nproc_per_node={there}, or train.device=cpu."
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes: the same bits in all of them. All float32, on one device."""
    if size() > 1:
        vector = nn.utils.parameters_to_vector(tensors)
        _reduce(vector, "SUM")
        parts = vector.div_(size()).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))  # into its own memory, where recorded work looks for it


def barrier() -> None:
    """Wait until all processes are here."""
    _everywhere(0, "SUM")


def total(number: float) -> float:
    """The sum of a number over the processes, in float64; all wait here for each other."""
    return _everywhere(number, "SUM")


def largest(number: float) -> float:
    """The largest value that a number has in any process; all wait here for each other."""
    return _everywhere(number, "MAX")


def _everywhere(number: float, operation: str) -> float:
    if size() == 1:
        return number
    tensor = torch.tensor(number, dtype=torch.float64)
    _reduce(tensor, operation)
    return tensor.item()


def _reduce(tensor: Tensor, operation: str) -> None:
    try:
        distributed.all_reduce(tensor, getattr(distributed.ReduceOp, operation))
    except RuntimeError as problem:
        raise ConnectionError(
            "Another process of this training has ended, so this one stops, too. Run the same command again to go on "
            f"from the last save. ({problem})"
        ) from problem


def _was_said(store: Any) -> bool:
    """Whether another process has told already why the training stops."""
    with contextlib.suppress(RuntimeError):  # torchrun, which holds the store, may be gone
        return store.add("problems", 1) > 1
    return False

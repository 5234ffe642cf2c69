"""Distributed training: `torchrun --standalone --nproc_per_node=2 -m stages.train`, a process for each GPU.

Each process holds the whole model and computes gradients on its shard of every batch. All average their gradients and
take the same step, so the result is that of one process, up to rounding. `with joined():` initialises the process
group; the other functions do nothing special with one process. Left out: models that do not fit on one device.

Gradients are averaged as one vector after the backward pass. DistributedDataParallel would overlap the two, but it
regroups gradients into other buckets after a process's first step, and the rounding of a sum of three or more numbers
depends on its place in the bucket. With three processes, a resumed run would then give other bits than an uninterrupted
one.
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
    """Initialise the process group if torchrun started this process. Only rank 0 prints; only one reports an error.

    CPU tensors use gloo, CUDA tensors NCCL if it is available.
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
        if not (isinstance(problem, SystemExit) and isinstance(problem.code, int)) and _already_reported(store):
            sys.exit(1)
        raise  # without destroying the group, which could wait forever for processes that hang
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
    """This process's part of a batch: every `size`-th sequence, starting at `rank`."""
    return slice(rank(), None, size())


def check(settings: Train) -> None:
    """ValueError if the batch cannot be divided evenly among the processes."""
    sequences = settings.batch_size * settings.accumulation
    if sequences % size():
        even = nearest_multiple(settings.batch_size, size() // math.gcd(size(), settings.accumulation))
        raise ValueError(
            f"A step takes {sequences} sequences (train.batch_size × train.accumulation), which {size()} processes "
            f"cannot share evenly; set train.batch_size to {even}."
        )


def local_device(device: torch.device) -> torch.device:
    """The device of this process: its own GPU; ValueError if there are too few."""
    if size() == 1 or device.type == "cpu":
        return device
    available = torch.cuda.device_count() if device.type == "cuda" else 1
    needed = int(os.environ["LOCAL_WORLD_SIZE"])
    if needed > available:
        raise ValueError(
            f"torchrun started {needed} processes, and each needs its own {device.type} device, but this machine has "
            f"{available}; use --nproc_per_node={available}, or train.device=cpu."
        )
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    return device


def average(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over the processes, the same bits in all of them. All float32, on one device."""
    if size() > 1:
        vector = nn.utils.parameters_to_vector(tensors)
        _reduce(vector, "SUM")
        parts = vector.div_(size()).split([tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))  # in place: a CUDA graph reads this address


def barrier() -> None:
    """Wait until all processes have reached this point."""
    _reduce_number(0, "SUM")


def total(number: float) -> float:
    """The sum of a number over the processes, in float64; waits for all processes."""
    return _reduce_number(number, "SUM")


def largest(number: float) -> float:
    """The maximum of a number over the processes, in float64; waits for all processes."""
    return _reduce_number(number, "MAX")


def _reduce_number(number: float, operation: str) -> float:
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
            "Another process of this training has ended, so this one stops, too. Run the same command again to resume "
            f"from the last save. ({problem})"
        ) from problem


def _already_reported(store: Any) -> bool:
    """Whether another process has already reported an error; counts this report."""
    with contextlib.suppress(RuntimeError):  # torchrun, which owns the store, may have ended
        return store.add("problems", 1) > 1
    return False

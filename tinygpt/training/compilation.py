"""Decide whether torch.compile pays: compiled blocks run as fewer, larger kernels, but compiling takes time.

`choose` decides for `train.compile` and gives the reason; `compile_blocks` compiles. The decision uses the FLOP count
and the table below, never a timing: compiled and eager code round differently, and the same parameters on the same
machine must give the same bytes.
"""

import importlib.util
import os
import shutil
import sys
import sysconfig
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from tinygpt.model import hardware
from tinygpt.model.gpt import GPT


@dataclass(frozen=True)
class CompileGain:
    """Assumptions about a kind of device. Only the order of magnitude matters (docs/speed.md)."""

    speed: float  # FLOP/s of eager training; on a CPU, of one thread
    saved: float  # fraction of the time that compiled blocks save
    cost: float  # seconds to compile forward and backward pass of one block; all blocks share the code. On a CPU the
    # mean of a first run, 20, and of later ones that find it in the cache, 5: the decision must not depend on the cache


GAINS = {
    "cpu": CompileGain(speed=3.5e10, saved=0.0, cost=12.5),
    "cpu with AVX512-BF16": CompileGain(speed=7.5e10, saved=0.2, cost=12.5),  # in bf16, as the next
    "cpu with AMX": CompileGain(speed=1.5e11, saved=0.25, cost=12.5),
    "cuda": CompileGain(speed=2e13, saved=0.3, cost=30.0),
}


def choose(asked: bool | Literal["auto"], flops: float, device: torch.device, precision: str) -> tuple[bool, str]:
    """Whether to compile, and the reason in one line.

    flops: of the whole run, in this process. precision: fp32, bf16 or fp16. ValueError if compiling is requested and
    this machine cannot.
    """
    lacking = missing(device)
    if asked != "auto":
        check(asked, device)
        return asked, f"{'compiled' if asked else 'not compiled'}: train.compile is {str(asked).lower()}"
    if lacking:
        return False, f"not compiled: {lacking}"
    kind = device.type
    if kind == "cpu" and precision == "bf16" and hardware.cpu_multiplies_bf16():
        kind = "cpu with AMX" if hardware.cpu_has_amx() else "cpu with AVX512-BF16"
    gain = GAINS.get(kind)
    if gain is None or not gain.saved:
        return False, f"not compiled: on {kind} it is not known to save time"
    speed = gain.speed * (torch.get_num_threads() if device.type == "cpu" else 1)
    least = gain.cost * speed / gain.saved
    reason = f"on {kind} compiling pays in a run of more than {least / 1e12:.3g} TFLOP; this one has {flops / 1e12:.3g}"
    return flops > least, f"{'compiled' if flops > least else 'not compiled'}: {reason}"


def check(asked: bool | Literal["auto"], device: torch.device, setting: str = "train.compile") -> None:
    """ValueError, which names the setting, if it is true and this machine cannot compile."""
    lacking = missing(device)
    if asked != "auto" and asked and lacking:
        raise ValueError(f"{setting} is true, but {lacking}; write auto or false.")


def missing(device: torch.device) -> str:
    """What torch.compile needs but this machine does not have, in words; empty if it has everything."""
    if device.type == "mps":
        return ""  # Metal's compiler is part of the system
    default = {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    compiler = os.environ.get("CXX", default)  # as PyTorch chooses it
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler}) here"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's headers (Python.h, of python3-dev or the like) are not here"
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        return "the package triton, which writes kernels for CUDA, is not here"
    return ""


def eager() -> AbstractContextManager[None]:
    """Run the block without compiled code; does not load the compiler if nothing is compiled."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def keep_in(folder: Path) -> None:
    """Keep what is compiled in a folder, unless $TORCHINDUCTOR_CACHE_DIR names one: the next run of a shape, even in a
    copy of the repository, loads it in a fifth of the time. PyTorch's default is a temporary folder.
    """
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder.absolute()))


def compile_blocks(model: GPT) -> None:
    """Compile each block, for the shapes of its first input.

    All blocks share one compiled code, so a deep model compiles as fast as a shallow one. Modules, parameter names and
    hooks between modules stay the same.
    """
    torch.use_deterministic_algorithms(torch.are_deterministic_algorithms_enabled())  # also sets it for the compiler
    for block in model.blocks:
        block.compile(dynamic=False)

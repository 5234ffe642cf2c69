"""The hardware: choose device and precision, and make computations deterministic.

`auto` is resolved here for training, evaluation and generation.
"""

import contextlib
import ctypes
import os
import time
from typing import Any

import torch

BUSY = 0.8  # core share below which other programs compete: a computing thread otherwise has a core almost always
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def pick_device(name: str, setting: str = "train.device") -> torch.device:
    """The torch device for `auto`, `cpu`, `cuda` or `mps`; ValueError, naming the setting, if unavailable."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(kind for kind, usable in available.items() if usable)
    if not available[name]:
        raise ValueError(f"{setting} is {name!r}, but PyTorch {torch.__version__} finds none here; use auto or cpu.")
    return torch.device(name)


def pick_precision(name: str, device: torch.device, setting: str = "train.precision") -> str:
    """fp32, bf16 or fp16 for `auto` or a name; ValueError for fp16 without CUDA.

    On a CPU, bf16 pays only with hardware support (AVX512-BF16, AMX); otherwise it is emulated slowly.
    """
    if name == "fp16" and device.type != "cuda":
        raise ValueError(f"{setting} is 'fp16', which needs a CUDA device; use auto, fp32 or bf16 on {device.type}.")
    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and cpu_multiplies_bf16() else "fp32"


def autocast(device: torch.device, precision: str) -> contextlib.AbstractContextManager[Any]:
    """Run matrix products in `precision`; sums and weights stay in fp32 (Micikevicius et al. 2018)."""
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=DTYPES[precision])


def make_deterministic() -> None:
    """Same input, same bits, on this machine with this number of threads (one per core, or OMP_NUM_THREADS).

    The rounding of a sum depends on the number of threads, so `describe` contains it.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is repeatable only with this
    torch.set_deterministic_debug_mode("error")  # use_deterministic_algorithms(True), but that loads the compiler: 1 s
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # 7% of a step, for nothing
    torch.backends.cudnn.benchmark = False


def keep_freed_memory() -> None:
    """Reuse freed memory for the next tensor; by default glibc returns blocks above 128 KB to the system.

    Each step frees and allocates the same hundreds of megabytes. The system clears each page that it hands out, which
    took 3 to 12% of a step. Without glibc this does nothing. It changes no result.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    largest = 2**31 - 1  # bytes; mallopt takes a C int
    mallopt(-1, largest)  # M_TRIM_THRESHOLD
    mallopt(-3, 2**30)  # M_MMAP_THRESHOLD


def clock() -> tuple[float, float]:
    """The time now, in seconds: wall-clock time, and CPU time of this thread."""
    return time.perf_counter(), time.thread_time()


def core_share(since: tuple[float, float], device: torch.device) -> float:
    """The fraction of the time since a `clock()` in which this thread ran on a core, 0 to 1.

    It is lower if other programs use the cores. Always 1 for other devices, since the thread waits for them.
    """
    wall, cpu = (now - then for now, then in zip(clock(), since, strict=True))
    return min(1.0, cpu / wall) if device.type == "cpu" and wall else 1.0


def busy(share: float) -> str:
    """A warning about a measurement with this `core_share`; empty if no other program competed for the cores."""
    if share >= BUSY:
        return ""
    return f"the machine seems busy: this process had a core for only {share:.0%} of the time that was measured"


def describe(device: torch.device, precision: str, compiled: bool = False) -> str:
    """A description of device, threads and precision, for messages and fingerprints."""
    precision += ", compiled" if compiled else ""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, {precision}"
    capability = f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"
    return f"{device.type} ({capability}), {precision}"


def cpu_multiplies_bf16() -> bool:
    """Whether this CPU has instructions for bf16 products; emulation is hundreds of times slower."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16")) or cpu_has_amx()


def cpu_has_amx() -> bool:
    """Whether this CPU multiplies bf16 in tiles (Intel AMX), several times faster than with AVX512-BF16."""
    return bool(torch.cpu.get_capabilities().get("amx_bf16"))

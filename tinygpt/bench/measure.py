"""Measure matrix products, training steps and decoding on this machine: time and memory.

`fresh(job)` measures in a new process, so that each has its own memory peak, and running out of memory ends only that
process. `python -m tinygpt.bench.measure` is the process: it reads a job as JSON and prints a row.
"""

import contextlib
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
import torch

from tinygpt.config import Train
from tinygpt.errors import out_of_memory
from tinygpt.generation import generate
from tinygpt.generation.sampling import Sampling
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT, GPTConfig, count_parameters, training_flops_per_token
from tinygpt.training import compilation, forecast
from tinygpt.training.loop import examined_step, train_step
from tinygpt.training.passes import Passes
from tinygpt.training.state import initial_state

OUT_OF_MEMORY = "out of memory"
TOO_SLOW = "stopped: time limit"
REPEATS = 5  # of a step; reported are the median and the spread


@dataclass(frozen=True)
class Training:
    """Training speed and memory of one model at one batch size; zeros if there is a `problem`."""

    size: str
    parameters: int
    context: int
    batch: int  # sequences
    precision: str
    compiled: bool
    tokens_per_second: float = 0.0
    spread: float = 0.0  # (slowest − fastest step) / median
    step: float = 0.0  # seconds, the median
    flops_per_second: float = 0.0  # the model's FLOPs, by formula
    memory: int = 0  # bytes, the peak
    forecast: int = 0  # bytes, as forecast before training
    forecast_a_sequence: int = 0  # bytes per additional sequence
    starting: float = 0.0  # seconds of the first step, including compilation
    core_share: float = 1.0  # fraction of the time with a core available (hardware.core_share)
    problem: str = ""


@dataclass(frozen=True)
class Decoding:
    """Decoding speed of one model with a number of parallel sequences."""

    size: str
    parameters: int
    sequences: int
    tokens_per_second: float = 0.0  # of all sequences together
    core_share: float = 1.0  # as in Training
    problem: str = ""


@dataclass(frozen=True)
class Job:
    """One measurement; `config`: the model's, `settings`: params.yaml's section `train`. Kind `peak` needs neither."""

    kind: Literal["peak", "training", "decoding"]
    device: str
    precision: str = "fp32"
    compiled: bool = False
    size: str = ""
    batch: int = 1  # sequences
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


def matmul_peak(device: torch.device, precision: str) -> float:
    """FLOP/s of the fastest of several large square matrix products: the machine's practical peak."""
    best = 0.0
    for side in (1024, 2048, 4096) if device.type == "cpu" else (4096, 8192, 16384):
        x = torch.randn(side, side, device=device, dtype=hardware.DTYPES[precision])
        seconds = min(_timed(lambda x=x: x @ x, device) for _ in range(4))  # type: ignore[misc]
        best = max(best, 2 * side**3 / seconds)
    return best


def measure(
    config: GPTConfig, settings: Train, device: torch.device, precision: str, compiled: bool, size: str = ""
) -> Training:
    """Time training steps on random tokens after a warm-up (one step; three on CUDA), and measure peak memory.

    On a CPU, memory is the growth of this process's peak from before the model is created: call it in a new process.
    """
    _reset_peak()
    baseline = _peak_memory(device)
    state = initial_state(config, settings, 1, device, precision)
    shape = (settings.batch_size, config.context_length)
    batch = torch.randint(config.vocab_size, shape, device=device)  # (B, T)
    if compiled:
        compilation.compile_blocks(state.model)

    passes = Passes(state, precision)

    def step(take: Callable[..., object] = train_step) -> None:
        take(state, passes, (batch, batch), settings)

    state.best = state.kept()  # as in a run, which keeps a copy of the best weights
    # Every tenth step of a run is like this; it takes the most memory.
    starting = _timed(lambda: step(examined_step), device)
    seconds, core_share = _repeated(step, device)
    memory = _peak_memory(device) - baseline
    with compilation.eager():
        cost = forecast.count(state, settings, 1, precision)
    speed = batch.numel() / (median := statistics.median(seconds))
    return Training(
        size=size,
        parameters=cost.parameters,
        context=config.context_length,
        batch=settings.batch_size,
        precision=precision,
        compiled=compiled,
        tokens_per_second=speed,
        spread=(max(seconds) - min(seconds)) / median,
        step=median,
        flops_per_second=speed * training_flops_per_token(config),
        memory=memory,
        forecast=cost.memory,
        forecast_a_sequence=cost.memory_a_sequence,
        starting=starting,
        core_share=core_share,
    )


def _repeated(step: Callable[[], None], device: torch.device) -> tuple[list[float], float]:
    """The seconds of REPEATS steps, and the fraction of that time in which this process had a core."""
    for _ in range(2 if device.type == "cuda" else 0):  # the CUDA graph is captured in these steps
        step()
    since = hardware.clock()
    return [_timed(step, device) for _ in range(REPEATS)], hardware.core_share(since, device)


def decode(config: GPTConfig, sequences: int, device: torch.device, size: str = "", limit: float = 2.0) -> Decoding:
    """Tokens per second of `sequences` parallel continuations, until the context is full or for `limit` seconds.

    Prefill, with the first token, is not timed; sampling is.
    """
    model = GPT(config)
    model.initialise(torch.Generator().manual_seed(1))  # a CPU generator needs a model on the CPU
    model.to(device).eval()
    seeds, settings, count = list(range(sequences)), [Sampling()] * sequences, config.context_length - 1
    steps = generate.generate_ids(model, [[0]] * sequences, settings, seeds, count, stop_tokens=())
    next(steps)
    since, done = hardware.clock(), 0
    while time.perf_counter() - since[0] < limit and next(steps, None):
        done += 1
    speed = sequences * done / (time.perf_counter() - since[0])
    return Decoding(size, count_parameters(model), sequences, speed, hardware.core_share(since, device))


def fresh(job: Job, limit: float) -> dict[str, Any]:
    """Measure in a new process, stopped after `limit` seconds; returns a row, or `{"problem": …}`."""
    command = [sys.executable, "-m", "tinygpt.bench.measure"]
    text = json.dumps(dataclasses.asdict(job))
    # On few cores the compiler's worker processes would still be starting while the compiled steps are timed.
    env = os.environ | ({"TORCHINDUCTOR_COMPILE_THREADS": "1"} if job.device == "cpu" else {})
    try:
        pipes: Any = {"input": text, "capture_output": True, "text": True, "errors": "replace"}
        done = subprocess.run(command, **pipes, timeout=limit, check=False, env=env)
    except subprocess.TimeoutExpired:
        return {"problem": TOO_SLOW}
    if done.returncode == -9:  # SIGKILL from Linux's out-of-memory killer
        return {"problem": OUT_OF_MEMORY}
    if done.returncode:
        raise RuntimeError(f"Measuring failed, with exit status {done.returncode}:\n{done.stderr}")
    row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return row


def perform(job: Job) -> dict[str, Any]:
    """Measure in this process; running out of memory is a result."""
    device = torch.device(job.device)
    hardware.make_deterministic()
    hardware.keep_freed_memory()
    try:
        if job.kind == "peak":
            return {"flops_per_second": matmul_peak(device, job.precision)}
        config = GPTConfig(**job.config)
        if job.kind == "decoding":
            return dataclasses.asdict(decode(config, job.batch, device, job.size))
        settings = Train(**job.settings | {"batch_size": job.batch, "accumulation": 1})
        return dataclasses.asdict(measure(config, settings, device, job.precision, job.compiled, job.size))
    except (MemoryError, RuntimeError) as problem:  # PyTorch raises RuntimeError
        if not out_of_memory(problem):
            raise
        return {"problem": OUT_OF_MEMORY}


def free_memory(device: torch.device) -> int:
    """Bytes available to a run now."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return int(psutil.virtual_memory().available)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds that `work` takes, including asynchronous work on the device."""
    _wait(device)
    begin = time.perf_counter()
    work()
    _wait(device)
    return time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        getattr(torch, device.type).synchronize()


def _reset_peak() -> None:
    """Reset this process's peak memory, where Linux allows it: loading PyTorch has a higher one."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory(device: torch.device) -> int:
    """Peak memory in bytes: of PyTorch's allocator on CUDA, of this process on a CPU; on MPS, the driver's current."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "mps":
        return torch.mps.driver_allocated_memory()
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    status = Path("/proc/self/status")  # Linux, where getrusage includes the parent process
    if status.is_file():
        return 1024 * int(status.read_text(encoding="ascii").partition("VmHWM:")[2].split()[0])
    import resource  # missing on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on a Mac


if __name__ == "__main__":
    print(json.dumps(perform(Job(**json.load(sys.stdin)))), flush=True)
    os._exit(0)  # skip PyTorch's slow shutdown, which once aborted on a GPU after the row was printed

"""CUDA graphs: record the work of a CUDA device once, then replay it as a whole.

A step of a small model launches hundreds of kernels that take microseconds each. The CPU needs longer to launch a
kernel, so the GPU waits. With `replay = CUDAGraphRunner(device)`, `replay(work, used)` does the same as `work()`, with
the same kernels on the same memory and so the same bits, but after one or two calls with a single launch. On other
devices it just calls `work()`. Left out: work whose shapes change between calls, and work that waits for the GPU.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
LOCK = threading.Lock()  # all graphs of a device share a stream, and the workspaces that libraries keep for it


class CUDAGraphRunner(Generic[Result]):
    """Records work on tensors at fixed addresses, and replays it.

    plain: the number of calls on the same memory before recording. They allocate everything that the first call of a
    function creates: gradients, running means, compiled code, workspaces of libraries.
    """

    def __init__(self, device: torch.device, plain: int = 1) -> None:
        self.device, self.on_cuda, self.plain = device, device.type == "cuda", plain
        self.addresses: list[int] = []  # of the tensors that the last call used
        self.calls = 0  # with these addresses
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], Result], used: Sequence[Tensor | None]) -> Result:
        """What `work()` returns; the next call overwrites it. `work` must be the same each time.

        used: existing tensors that `work` uses and that may be reallocated between calls (None: does not exist yet). If
        an address changes, the work is recorded again.
        """
        if not self.on_cuda:
            return work()
        addresses = [tensor.data_ptr() for tensor in used if tensor is not None]
        if addresses != self.addresses:
            self.graph, self.calls, self.addresses = None, 0, addresses
        self.calls += 1
        with LOCK:
            if self.calls <= self.plain:
                return self._run_on_capture_stream(work)
            if self.graph is None:
                self._record(work)
            assert self.graph is not None
            self.graph.replay()
            return self.result

    def _run_on_capture_stream(self, work: Callable[[], Result]) -> Result:
        """Run the work on the stream that will be recorded; PyTorch requires such a warm-up."""
        current, capture = torch.cuda.current_stream(self.device), capture_stream(self.device)
        capture.wait_stream(current)
        try:
            with torch.cuda.stream(capture):
                return work()
        finally:
            current.wait_stream(capture)

    def _record(self, work: Callable[[], Result]) -> None:
        graph, capture = torch.cuda.CUDAGraph(), capture_stream(self.device)
        # The outer block restores this thread's stream if recording fails. "thread_local": other threads, such as those
        # of a server, may use the GPU meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
            torch.cuda.graph(graph, stream=capture, capture_error_mode="thread_local"),
        ):
            self.result = work()
        self.graph = graph


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream for recording: one per device, since libraries keep a workspace for each stream."""
    return torch.cuda.Stream(device)

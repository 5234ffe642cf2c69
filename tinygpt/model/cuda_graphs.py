"""CUDA graphs: record the work of a CUDA device once, then replay it as a whole.

A step of a small model is hundreds of kernels, each over in microseconds; a CPU needs longer than that to start one, so
the GPU waits. With `replay = CUDAGraphRunner(device)`, `replay(work, used)` does what `work()` does: the same kernels
on the same memory, and so the same bits, but after a call or two in one start. Elsewhere than on CUDA it is `work()`.
Left out: work whose shapes change from call to call, and work that waits for the GPU in its midst.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
ALONE = threading.Lock()  # all recordings share a stream, and the workspaces that libraries keep for it


class CUDAGraphRunner(Generic[Result]):
    """Records work on tensors at fixed addresses, and replays it.

    It is recorded once it has been called `plain` times on the same memory: then everything is there that a first call
    makes, such as gradients, running means, compiled code and the workspaces of libraries.
    """

    def __init__(self, device: torch.device, plain: int = 1) -> None:
        self.device, self.on_cuda, self.plain = device, device.type == "cuda", plain
        self.places: list[int] = []  # where the tensors lay that the last call used
        self.calls = 0  # with these places
        self.graph: torch.cuda.CUDAGraph | None = None

    def __call__(self, work: Callable[[], Result], used: Sequence[Tensor | None]) -> Result:
        """What `work()` returns; the next call writes over it. `work` is the same each time.

        used: the tensors that `work` finds already made, and that may come to lie elsewhere (None: not made yet). Where
        one does, the work is recorded anew.
        """
        if not self.on_cuda:
            return work()
        places = [tensor.data_ptr() for tensor in used if tensor is not None]
        if places != self.places:
            self.graph, self.calls, self.places = None, 0, places
        self.calls += 1
        with ALONE:
            if self.calls <= self.plain:
                return self._aside(work)
            if self.graph is None:
                self._record(work)
            assert self.graph is not None
            self.graph.replay()
            return self.result

    def _aside(self, work: Callable[[], Result]) -> Result:
        """Work on the stream that is recorded later, as PyTorch asks for."""
        here, side = torch.cuda.current_stream(self.device), capture_stream(self.device)
        side.wait_stream(here)
        try:
            with torch.cuda.stream(side):
                return work()
        finally:
            here.wait_stream(side)

    def _record(self, work: Callable[[], Result]) -> None:
        graph, side = torch.cuda.CUDAGraph(), capture_stream(self.device)
        # The outer block goes back to this thread's stream where recording fails. "thread_local": other threads, of a
        # server say, may use the GPU meanwhile.
        with (
            torch.cuda.stream(torch.cuda.current_stream(self.device)),
            torch.cuda.graph(graph, stream=side, capture_error_mode="thread_local"),
        ):
            self.result = work()
        self.graph = graph


@cache
def capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream that work is recorded on: one a device, since libraries keep a workspace for each."""
    return torch.cuda.Stream(device)

"""Work of a GPU, recorded once and started as a whole from then on (CUDA graphs).

A step of a small model is hundreds of kernels, each over in microseconds; a CPU needs longer than that to start one, so
the GPU waits. With `play = Recording(device)`, `play(work, used)` does what `work()` does: the same kernels on the same
memory, and so the same bits, but from about the third call on in one start. Elsewhere than on CUDA it is `work()`.
Left out: work whose shapes change from call to call, and work that waits for the GPU in its midst.
"""

import threading
from collections.abc import Callable, Sequence
from functools import cache
from typing import Generic, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")
ALONE = threading.Lock()  # what other threads start on the recorded stream would be recorded, too


class Recording(Generic[Result]):
    """Remembers a piece of work that reads and writes tensors which stay where they are.

    It is recorded when it is called on the same memory as the time before: then everything is there that a first call
    makes, such as gradients, running means, compiled code and the workspaces of libraries.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.on_cuda = device, device.type == "cuda"
        self.places: list[int] | None = None  # where the tensors lay that the last call used
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
            self.graph, self.places = None, places
            return self._aside(work)
        if self.graph is None:
            graph = torch.cuda.CUDAGraph()
            # "thread_local": other threads, of a server say, may use the GPU meanwhile
            with ALONE, torch.cuda.graph(graph, stream=side(self.device), capture_error_mode="thread_local"):
                self.result = work()
            self.graph = graph
        self.graph.replay()
        return self.result

    def _aside(self, work: Callable[[], Result]) -> Result:
        """Work on the stream that is recorded later, as PyTorch asks for."""
        with ALONE:
            side(self.device).wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side(self.device)):
                result = work()
        torch.cuda.current_stream().wait_stream(side(self.device))
        return result


@cache
def side(device: torch.device) -> torch.cuda.Stream:
    """The stream that work is recorded on: one a device, since libraries keep a workspace for each."""
    return torch.cuda.Stream(device)

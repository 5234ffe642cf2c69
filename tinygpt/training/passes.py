"""Forward and backward passes in one precision: `loss, scale = Passes(state, "bf16").accumulate(batch, batch_size)`.

On CUDA the pass for each batch shape is recorded once and then replayed (model/cuda_graphs.py). Recorded graphs are not
part of a run's state: make a new object for another precision, or after compiling the model.
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.data.dataset import Batch
from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.hardware import autocast
from tinygpt.model.loss import IGNORED, cross_entropy
from tinygpt.training import distributed
from tinygpt.training.state import State


class Passes:
    """The passes of a run, by batch shape. precision: fp32, bf16 or fp16. separator: as in GPT.forward."""

    def __init__(self, state: State, precision: str, separator: int | None = None) -> None:
        self.state, self.device, self.separator = state, next(state.model.parameters()).device, separator
        self.cast = autocast(self.device, precision)
        self._by_shape: dict[torch.Size, Pass] = {}

    def accumulate(self, batch: Batch, batch_size: int) -> tuple[Tensor, Tensor]:
        """Accumulate the gradient of the mean loss of `batch`, with at most `batch_size` sequences at a time.

        Returns two scalars: that loss, nats per token, and the activation scale, the root mean square of the last
        norm's input. Each part's loss is summed and divided by the counted tokens of the whole batch, over all
        processes, so that every counted token has the same weight. Without one, loss and gradients are zero.
        """
        inputs, targets = batch
        total = torch.zeros((), device=inputs.device)
        count = (targets != IGNORED).sum().float()  # of this process
        distributed.average([count])  # as the gradients below, so that their mean is that of all tokens
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            if x.shape not in self._by_shape:
                self._by_shape[x.shape] = Pass(self, x.shape)
            loss, scale = self._by_shape[x.shape](x, y, count)
            total += loss
        gradients = (p.grad for p in self.state.parameters.values() if p.grad is not None)
        distributed.average([total, *gradients])
        return total, scale


class Pass:
    """A forward and a backward pass for batches of one shape, (B, T)."""

    def __init__(self, passes: Passes, shape: torch.Size) -> None:
        state = passes.state
        self.model, self.scaler, self.cast, self.separator = state.model, state.scaler, passes.cast, passes.separator
        self.parameters = [parameter for parameter in state.parameters.values() if parameter.requires_grad]
        self.inputs, self.targets = torch.zeros(2, *shape, dtype=torch.int64, device=passes.device)  # (B, T) each
        self.count = torch.ones((), device=passes.device)  # counted tokens of the whole batch
        self.replay: CUDAGraphRunner[tuple[Tensor, Tensor]] = CUDAGraphRunner(passes.device)

    def __call__(self, inputs: Tensor, targets: Tensor, count: Tensor) -> tuple[Tensor, Tensor]:
        """Add to the gradients; returns the scalars of `run`, which the next call overwrites."""
        self.count.copy_(torch.where(count > 0, count, 1))
        self.inputs.copy_(inputs, non_blocking=True)
        self.targets.copy_(targets, non_blocking=True)
        if not self.model.training:  # walks all modules, so only if needed
            self.model.train()
        return self.replay(self.run, [*self.parameters, *(parameter.grad for parameter in self.parameters)])

    def run(self) -> tuple[Tensor, Tensor]:
        """The loss, summed and divided by `count`, and the activation scale: scalars on the device."""
        scale: list[Tensor] = []

        def note(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].detach()  # (B, T, C)
            scale.append(torch.linalg.vector_norm(x, dtype=torch.float32) / math.sqrt(x.numel()))

        hook = self.model.norm.register_forward_pre_hook(note)
        try:
            with self.cast:
                logits = self.model(self.inputs, self.separator)  # (B, T, V)
        finally:
            hook.remove()
        loss = cross_entropy(logits, self.targets, "sum") / self.count
        self.scaler.scale(loss).backward()
        return loss.detach(), scale[0]

"""Forward and backward passes in one precision: `loss, scale = Passes(state, "bf16").accumulate(batch, batch_size)`.

On CUDA a pass over batches of one shape is recorded once and then replayed (model/cuda_graphs.py). What is recorded is
no part of a run's state: make a new one for another precision, or once the model has been compiled.
"""

import math

import torch
from torch import Tensor, nn

from tinygpt.data.dataset import Batch
from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.hardware import autocast
from tinygpt.model.loss import cross_entropy
from tinygpt.training import distributed
from tinygpt.training.state import State


class Passes:
    """The passes of a run, by the shape of their batches. precision: fp32, bf16 or fp16."""

    def __init__(self, state: State, precision: str) -> None:
        self.state, self.device = state, next(state.model.parameters()).device
        self.cast = autocast(self.device, precision)
        self._by_shape: dict[tuple[torch.Size, int], Pass] = {}

    def accumulate(self, batch: Batch, batch_size: int) -> tuple[Tensor, Tensor]:
        """Add up the gradient of the mean loss of `batch`, at most `batch_size` sequences at a time. Returns scalars:
        that loss, nats per token, and the activation scale, the root mean square of what the last norm got.

        Each part's loss is summed and divided by the tokens of the whole batch, so that the parts weigh as they should.
        Of several processes each has as large a part of the step's batch, so the mean of theirs is that of the step.
        """
        inputs, targets = batch
        total = torch.zeros((), device=inputs.device)
        for x, y in zip(inputs.split(batch_size), targets.split(batch_size), strict=True):
            key = x.shape, targets.numel()
            if key not in self._by_shape:
                self._by_shape[key] = Pass(self, *key)
            loss, scale = self._by_shape[key](x, y)
            total += loss
        gradients = (p.grad for p in self.state.parameters.values() if p.grad is not None)
        distributed.average([total, *gradients])
        return total, scale


class Pass:
    """A forward and a backward pass over batches of one shape, (B, T); tokens: of the whole batch."""

    def __init__(self, passes: Passes, shape: torch.Size, tokens: int) -> None:
        state = passes.state
        self.model, self.scaler, self.cast, self.tokens = state.model, state.scaler, passes.cast, tokens
        self.parameters = [parameter for parameter in state.parameters.values() if parameter.requires_grad]
        self.inputs, self.targets = torch.zeros(2, *shape, dtype=torch.int64, device=passes.device)  # (B, T) each
        self.replay: CUDAGraphRunner[tuple[Tensor, Tensor]] = CUDAGraphRunner(passes.device)

    def __call__(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Add to the gradients; returns `run`'s scalars, which the next call writes over."""
        self.inputs.copy_(inputs, non_blocking=True)
        self.targets.copy_(targets, non_blocking=True)
        if not self.model.training:  # walks all modules, so only where it changes something
            self.model.train()
        return self.replay(self.run, [*self.parameters, *(parameter.grad for parameter in self.parameters)])

    def run(self) -> tuple[Tensor, Tensor]:
        """The loss, summed over the part and divided by `tokens`, and the activation scale: scalars on the device."""
        scale: list[Tensor] = []

        def note(_module: nn.Module, inputs: tuple[Tensor]) -> None:
            x = inputs[0].detach()  # (B, T, C)
            scale.append(torch.linalg.vector_norm(x, dtype=torch.float32) / math.sqrt(x.numel()))

        hook = self.model.norm.register_forward_pre_hook(note)
        try:
            with self.cast:
                logits = self.model(self.inputs)  # (B, T, V)
        finally:
            hook.remove()
        loss = cross_entropy(logits, self.targets, "sum") / self.tokens
        self.scaler.scale(loss).backward()
        return loss.detach(), scale[0]

"""Training state: everything that a run needs between two steps; saving and resuming it.

`initial_state(config, settings, …)` makes a new one; `state.tensors()` and `state.metadata()` are saved, `check`
validates a saved state, and `restore` restores it bit for bit. The training step is in loop.py.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn

from tinygpt.config import PositiveInt, Train
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.training.lora import adapt
from tinygpt.training.optimizer import Optimizers, build

Row = dict[str, float]
METADATA = ("step", "best_step", "best_loss", "validation_rows", "health_rows")  # fields of State saved as JSON


class ValidationRow(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """One row of validation_rows."""

    step: int
    loss: float


class Metadata(BaseModel, strict=True, extra="forbid", allow_inf_nan=False):
    """The schema of a saved state's metadata.json."""

    step: PositiveInt
    best_step: int
    best_loss: float
    validation_rows: Annotated[list[ValidationRow], Field(min_length=1)]
    health_rows: list[Row]
    scaler: Row


@dataclass
class State:
    """Everything that a run needs between two steps."""

    model: GPT  # on the training device, in float32
    optimizers: Optimizers
    scaler: torch.amp.GradScaler  # keeps fp16 gradients from underflowing; disabled in other precisions
    step: int = 0  # steps taken
    best_step: int = 0  # the step with the lowest validation loss
    best_loss: float = math.inf  # the lowest validation loss so far, nats per token
    best: dict[str, Tensor] = field(default_factory=dict)  # the weights with that loss, by parameter name
    average: dict[str, Tensor] = field(default_factory=dict)  # running mean of trainable weights, or empty
    train_rows: list[Row] = field(default_factory=list)  # one per step
    health_rows: list[Row] = field(default_factory=list)  # one every HEALTH_EVERY steps
    validation_rows: list[Row] = field(default_factory=list)  # one per validation

    @cached_property
    def parameters(self) -> dict[str, nn.Parameter]:
        """The model's, by name; cached, since finding them walks all modules, and a step needs them five times."""
        return dict(self.model.named_parameters())

    def kept(self) -> dict[str, Tensor]:
        """The weights to keep after this step: their running mean if train.average is on, else the current ones.

        By parameter name, of the parameter's shape, on the CPU.
        """
        return {name: self.average.get(name, p).detach().cpu().clone() for name, p in self.parameters.items()}

    def tensors(self) -> dict[str, Tensor]:
        """Everything to save that is a tensor, by `<part>.<name>`.

        Each is float32 and of its parameter's shape, except `rows.train`, float64 (steps, 4): step, loss, learning
        rate, gradient norm.
        """
        rows = {"train": torch.tensor([list(row.values()) for row in self.train_rows], dtype=torch.float64)}
        parts = {
            "model": weights(self.model),
            "best": self.best,
            "average": {name: tensor.cpu() for name, tensor in self.average.items()},
            "optimizers": self.optimizers.state_dict(),
            "rows": rows,
        }
        return {f"{part}.{name}": tensor for part, values in parts.items() for name, tensor in values.items()}

    def metadata(self) -> dict[str, Any]:
        """Everything to save that is JSON."""
        return {name: getattr(self, name) for name in METADATA} | {"scaler": self.scaler.state_dict()}

    def check(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """ValueError if a saved state does not fit this model and these optimizers: names, shapes and dtypes of
        tensors, names and types of metadata.
        """
        Metadata.model_validate(metadata)
        if metadata["scaler"].keys() != self.scaler.state_dict().keys():
            raise ValueError("The state was saved in another precision.")
        shapes = {f"{part}.{name}": p.shape for part in ("model", "best") for name, p in self.parameters.items()}
        shapes |= {f"average.{name}": tensor.shape for name, tensor in self.average.items()}
        if any(name.startswith("optimizers.") for name in tensors):  # none if every step so far overflowed
            shapes |= {f"optimizers.{name}": shape for name, shape in self.optimizers.shapes().items()}
        shapes["rows.train"] = torch.Size((metadata["step"], 4))
        for name in sorted(shapes.keys() | tensors.keys()):
            found = tensors[name].shape if name in tensors else "missing"
            dtype = torch.float64 if name == "rows.train" else torch.float32
            if found != shapes.get(name) or tensors[name].dtype != dtype:
                raise ValueError(f"The state does not fit this run: its {name} is {found}.")

    def restore(self, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Restore a saved state, on a model and optimizers built the same way; call `check` first (shapes, names)."""
        parts: dict[str, dict[str, Tensor]] = defaultdict(dict)
        for key, tensor in tensors.items():
            part, name = key.split(".", 1)
            parts[part][name] = tensor
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(parts["model"][name])
        self.best = parts["best"]
        for name, mean in self.average.items():
            mean.copy_(parts["average"][name])
        self.optimizers.load_state_dict(parts["optimizers"])
        self.scaler.load_state_dict(metadata["scaler"])
        for name in METADATA:
            setattr(self, name, metadata[name])
        names = ("step", "loss", "learning_rate", "gradient_norm")
        self.train_rows = [dict(zip(names, row, strict=True)) for row in parts["rows"]["train"].tolist()]


def weights(model: nn.Module) -> dict[str, Tensor]:
    """A copy of all parameters on the CPU, by name, in their own shapes; tied ones once."""
    return {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}


def initial_state(
    config: GPTConfig,
    settings: Train,
    seed: int,
    device: torch.device,
    precision: str,
    base: dict[str, Tensor] | None = None,
    new_tokens: Sequence[int] = (),
) -> State:
    """A new state on `device`: initial weights drawn from `seed`, or those of a `base`.

    base: parameter name → tensor, with the shapes of GPT(config). precision: fp32, bf16 or fp16. With
    settings.lora_rank the base is frozen, and low-rank changes are trained, and the rows of new_tokens (lora.py).
    """
    model, generator = GPT(config), torch.Generator().manual_seed(seed)
    model.initialise(generator)
    if base is not None:
        model.load_state_dict(base)
    if settings.lora_rank:
        adapt(model, settings.lora_rank, settings.lora_alpha, generator, new_tokens)
    model.to(device)
    muon_dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    state = State(model, build(model, settings, muon_dtype), scaler)
    if settings.average:
        state.average = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
    return state

"""Lesson 6's exercises, tested."""

from collections.abc import Callable
from typing import Any

import torch

from tinygpt.exercises import need, same, shown
from tinygpt.scratch import backward, loss
from tinygpt.scratch.optimizers import AdamW, parameter_group

NAMES = ("weight", "gradient", "mean", "square")
LOGITS = torch.tensor([2.0, -1.0, 0.5, 3.0])


def cross_entropy(yours: Callable[..., Any]) -> None:
    """as `cross_entropy` in tinygpt/scratch/loss.py"""
    for logits in (torch.zeros(4), LOGITS, LOGITS * 100):
        expected = loss.cross_entropy(logits[None, None], torch.tensor([[1]]))
        same(f"cross_entropy({logits.tolist()}, 1)", yours(logits.clone(), 1), expected)


def logit_gradient(yours: Callable[..., Any]) -> None:
    """as `output_layer_backward` in tinygpt/scratch/backward.py"""
    # with the identity as the head's weight, the logits are the vector, and dx is their gradient
    expected, _ = backward.output_layer_backward(LOGITS[None], torch.eye(4), torch.tensor([2]))
    same(f"logit_gradient({LOGITS.tolist()}, 2)", yours(LOGITS.clone(), 2), expected[0])


def adamw_step(yours: Callable[..., Any]) -> None:
    """as AdamW in tinygpt/scratch/optimizers.py"""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    optimizer = AdamW([parameter_group([parameter], weight_decay=0.1)], (0.9, 0.95))
    weight, mean, square = parameter.detach().clone(), torch.zeros(3), torch.zeros(3)
    for step, gradient in enumerate((torch.tensor([0.3, -4.0, 0.0]), torch.tensor([0.1, 5.0, 0.02])), start=1):
        parameter.grad = gradient.clone()
        optimizer.step(0.01)
        given = [tensor.clone() for tensor in (weight, gradient, mean, square)]
        call = f"adamw_step({', '.join(shown(tensor) for tensor in given)}, {step}, 0.01, 0.1)"
        found = yours(weight, gradient, mean, square, step, 0.01, 0.1)
        for name, now, before in zip(NAMES, (weight, gradient, mean, square), given, strict=True):
            need(torch.equal(now, before), f"adamw_step modified the input {name}; make a new tensor")
        state = optimizer.state[parameter]
        expected = (parameter.detach().clone(), state["mean"].clone(), state["square"].clone())
        same(call, found, expected)
        weight, mean, square = found

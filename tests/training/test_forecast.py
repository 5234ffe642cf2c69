"""The forecast counts rightly, takes little to make, and leaves the run as it was."""

import pytest
import torch

from tests.small_training import Data, settings, start
from tinygpt.training import forecast
from tinygpt.training.state import weights


def test_the_forecast_counts_and_leaves_the_run_as_it_was(data: Data) -> None:
    chosen = settings(steps=6, batch_size=4, accumulation=2)
    state = start(data, chosen, dropout=0.1)
    before = weights(state.model)
    cost = forecast.count(state, chosen, 1000, "fp32")
    assert cost.tokens == 6 * 4 * 2 * 16
    assert cost.epochs == cost.tokens / 1000
    assert cost.parameters == sum(p.numel() for p in state.model.parameters())
    assert forecast.seconds_left(state, chosen, 100, "fp32")[0] > 0
    assert all(torch.equal(before[name], after) for name, after in weights(state.model).items())
    assert all(p.grad is None for p in state.model.parameters())


def test_the_memory_forecast_grows_with_the_batch_by_what_a_sequence_keeps(data: Data) -> None:
    state = start(data, settings())
    memory = [forecast.count(state, settings(batch_size=size), 1000, "fp32").memory for size in (1, 2, 3)]
    kept, twice = (forecast.saved_for_backward(state, sequences, "fp32") for sequences in (1, 2))
    assert memory[1] - memory[0] == memory[2] - memory[1] > kept
    assert twice == pytest.approx(2 * kept, rel=0.2)  # what does not grow with the batch is small


def test_copies_of_the_weights_in_half_precision_are_counted_once_and_not_for_each_sequence(data: Data) -> None:
    state = start(data, settings(), n_embd=128, n_layer=2)
    matrices = sum(p.numel() for p in state.model.parameters() if p.dim() == 2)
    matrices -= state.model.token_embedding.weight.numel()  # which is looked up, and never multiplied
    once, each = forecast.memory_of_pass(state, "bf16")
    assert 2 * matrices <= once < 1.2 * 2 * matrices
    exact, _ = forecast.memory_of_pass(state, "fp32")
    assert exact < 0.1 * once
    assert each > 0

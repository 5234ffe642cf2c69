"""Muon's update is orthogonal, decay spares norms, schedules hit their marks, state goes through tensors."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch

from tests.conftest import CPU, gpt, params
from tinygpt.training.optimizer import Muon, build, orthogonalise, schedule, split_parameters


def settings(**changes: Any) -> Any:
    return params(**{f"train__{key}": value for key, value in changes.items()}).train


@pytest.mark.parametrize("shape", [(16, 16), (8, 32), (32, 8)])
def test_orthogonalising_brings_singular_values_near_one_and_keeps_directions(shape: tuple[int, int]) -> None:
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    result = orthogonalise(matrices)
    assert ((torch.linalg.svdvals(result) > 0.5) & (torch.linalg.svdvals(result) < 1.3)).all()
    u, _, vh = torch.linalg.svd(matrices, full_matrices=False)
    aligned = torch.diagonal(u.mT @ result @ vh.mT, dim1=-2, dim2=-1)  # u and v still diagonalise it
    torch.testing.assert_close(
        aligned, torch.linalg.svdvals(result).gather(1, aligned.argsort(descending=True).argsort())
    )


def test_muon_treats_matrices_of_one_shape_as_it_would_each_alone() -> None:
    starts = [torch.randn(8, 12, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    gradients = [torch.randn(8, 12, generator=torch.Generator().manual_seed(9 + i)) for i in range(3)]

    def stepped(group: list[int]) -> list[torch.Tensor]:
        parameters = [torch.nn.Parameter(starts[i].clone()) for i in group]
        optimizer = Muon(parameters, lr=0.1, weight_decay=0.1)
        for _ in range(3):
            for parameter, i in zip(parameters, group, strict=True):
                parameter.grad = gradients[i].clone()
            optimizer.step()
        return [parameter.detach() for parameter in parameters]

    for together, alone in zip(stepped([0, 1, 2]), [stepped([i])[0] for i in range(3)], strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_muons_update_has_the_size_that_was_asked_for() -> None:
    parameter = torch.nn.Parameter(torch.zeros(64, 64))
    parameter.grad = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    Muon([parameter], lr=0.01).step()
    assert parameter.square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.15)


def test_muon_is_orthogonalised_nesterov_momentum_with_decoupled_decay() -> None:
    """Two steps against the same written out."""
    random = torch.Generator().manual_seed(2)
    start, *gradients = (torch.randn(8, 12, generator=random) for _ in range(3))
    parameter = torch.nn.Parameter(start.clone())
    optimizer = Muon([parameter], lr=0.1, momentum=0.9, weight_decay=0.5)
    expected, mean = start.clone(), torch.zeros(8, 12)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
        mean = 0.9 * mean + 0.1 * gradient
        ahead = 0.9 * mean + 0.1 * gradient
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * 0.2 * math.sqrt(12) * orthogonalise(ahead[None])[0]
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-4, atol=1e-5)


def test_weight_decay_pulls_matrices_and_spares_norms_and_biases() -> None:
    model = gpt(norm="layernorm", bias=True)
    for optimizer in build(model, settings(optimizer="adamw", weight_decay=0.1)).members:
        for group in optimizer.param_groups:
            dims = {parameter.dim() for parameter in group["params"]}
            assert group["weight_decay"] == (0.1 if dims == {2} else 0.0), dims


def test_every_parameter_is_in_exactly_one_group(shape: dict[str, Any]) -> None:
    model = gpt(**shape)
    for name in ("muon", "adamw"):
        held = [p for o in build(model, settings(optimizer=name)).members for g in o.param_groups for p in g["params"]]
        assert sorted(map(id, held)) == sorted(map(id, model.parameters()))


def test_beside_muon_the_embedding_learns_faster_and_decays_as_the_rest() -> None:
    def stepped(gradient: float, **changes: Any) -> tuple[float, float]:
        """The embedding's first number and the head's, both 1 before a step at the learning rate 0.01."""
        model = gpt(tie_embeddings=changes.pop("tied", False))
        for parameter in model.parameters():
            torch.nn.init.ones_(parameter)
            parameter.grad = torch.full_like(parameter, gradient)
        build(model, settings(weight_decay=0.5, **changes)).step(0.01)
        return model.token_embedding.weight[0, 0].item(), model.head.weight[0, 0].item()

    assert stepped(0.0, optimizer="muon") == pytest.approx((0.995, 0.995))
    assert stepped(1.0, optimizer="muon") == pytest.approx((0.995 - 0.05, 0.995 - 0.01))
    assert stepped(1.0, optimizer="adamw") == pytest.approx((0.995 - 0.01, 0.995 - 0.01))
    assert stepped(1.0, optimizer="muon", tied=True) == pytest.approx((0.995 - 0.01, 0.995 - 0.01))


def test_muon_gets_the_matrices_inside_the_stack_only() -> None:
    model = gpt()
    hidden, ends, vectors = split_parameters(model)
    assert len(hidden) == 2 * 7  # layers × (q, k, v, output, gate, up, down)
    assert {id(p) for p in ends} == {id(model.token_embedding.weight), id(model.head.weight)}
    assert all(p.dim() == 1 for p in vectors)


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_optimizer_state_goes_through_flat_tensors_bit_for_bit(name: str) -> None:
    chosen = settings(optimizer=name)

    def advance(model: torch.nn.Module, optimizers: Any, seeds: range) -> None:
        for seed in seeds:
            tokens = torch.randint(0, 61, (2, 16), generator=torch.Generator().manual_seed(seed), device=CPU)
            model(tokens).square().mean().backward()
            optimizers.step(0.01)
            optimizers.zero_grad()

    first = gpt()
    optimizers = build(first, chosen)
    advance(first, optimizers, range(3))
    second = gpt()
    second.load_state_dict(first.state_dict())
    restored = build(second, chosen)
    kept, again = ({name: t.clone() for name, t in optimizers.state_dict().items()} for _ in range(2))
    restored.load_state_dict(kept)
    advance(first, optimizers, range(3, 6))
    advance(second, restored, range(3, 6))
    assert all(torch.equal(kept[name], again[name]) for name in again)  # what was given can be given once more
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_warm_up_rises_in_equal_steps_to_the_peak() -> None:
    chosen = settings(steps=100, warmup_steps=4, schedule="constant")
    assert [schedule(step, chosen) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_descents_fall_from_the_peak_to_the_final_fraction(kind: str) -> None:
    chosen = settings(steps=100, warmup_steps=10, schedule=kind, final_fraction=0.1)
    shares = [schedule(step, chosen) for step in range(101)]
    assert shares[10] == 1.0
    assert shares[100] == pytest.approx(0.1)
    assert shares[55] == pytest.approx(0.55)  # both are half-way down half-way through
    assert all(a > b for a, b in pairwise(shares[10:]))


def test_cosine_starts_slower_than_linear() -> None:
    linear, cosine = (schedule(20, settings(steps=100, warmup_steps=0, schedule=kind)) for kind in ("linear", "cosine"))
    assert (cosine, linear) == pytest.approx((0.5 * (1 + math.cos(0.2 * math.pi)), 0.8))


def test_a_warm_up_longer_than_the_run_is_cut_to_it() -> None:
    shares = [schedule(step, settings(steps=5, warmup_steps=1000)) for step in range(5)]
    assert shares == pytest.approx([1 / 6, 2 / 6, 3 / 6, 4 / 6, 5 / 6])

"""What is shown of a model's inside is what it really computes."""

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import gpt
from tinygpt.data.dataset import evaluation_windows
from tinygpt.evaluation.metrics import evaluate
from tinygpt.generation.sampling import Sampling
from tinygpt.inspection import activations
from tinygpt.inspection.activations import Activations, get_activations
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

IDS = [int(token) for token in np.random.default_rng(0).integers(0, 61, 13)]
TOKENS = torch.tensor([IDS])


@pytest.fixture
def model(shape: dict[str, Any]) -> GPT:
    return gpt(**shape)


@pytest.fixture
def acts(model: GPT) -> Activations:
    return get_activations(model, IDS)


def test_shares_are_none_of_what_lies_ahead_and_sum_to_one(acts: Activations) -> None:
    T = len(IDS)
    assert acts.attention.shape[-2:] == (T, T)
    assert torch.equal(acts.attention, acts.attention.tril())
    assert acts.attention.sum(-1).numpy() == pytest.approx(np.ones(acts.attention.shape[:-1]), abs=1e-6)
    assert acts.attention[..., -1, :].min() > 0


@torch.no_grad()
def test_shares_applied_to_the_values_are_what_the_fast_attention_hands_out(model: GPT, acts: Activations) -> None:
    for number, block in enumerate(model.blocks):
        x = block.norm1(acts.streams[number][None])  # type: ignore[operator]
        attention: Any = block.attention
        groups = model.config.n_head // model.config.kv_heads
        v = attention.value(x).view(len(IDS), -1, attention.D).repeat_interleave(groups, dim=1)  # (T, H, D)
        found = torch.einsum("hts,shd->thd", acts.attention[number], v).flatten(1)  # (T, H·D)
        assert torch.allclose(attention.output(found), attention(x, model.rotary)[0], atol=1e-5)


@torch.no_grad()
def test_a_look_ends_in_the_scores_of_the_model(model: GPT, acts: Activations) -> None:
    assert torch.equal(acts.logits, model(TOKENS)[0])
    assert torch.equal(acts.streams[0], model.embed(TOKENS)[0])
    assert len(acts.streams) == model.config.n_layer + 1


@torch.no_grad()
def test_the_first_tokens_look_as_they_do_alone(model: GPT, acts: Activations) -> None:
    first, alone = acts.first(5), get_activations(model, IDS[:5])
    for name in ("ids", "streams", "attention", "logits"):
        assert torch.allclose(getattr(first, name), getattr(alone, name), atol=1e-5)


def test_the_lens_ends_in_what_the_model_says_and_begins_with_the_embedding(model: GPT, acts: Activations) -> None:
    lens = activations.lens(model, acts)
    assert lens.best.shape == (model.config.n_layer + 1, len(IDS))
    assert np.array_equal(lens.best[-1], acts.logits.argmax(-1).numpy())
    assert np.array_equal(lens.bits[-1], acts.bits)
    assert np.array_equal(lens.ranks[-1], activations.ranks(acts.logits, acts.ids))
    with torch.no_grad():
        start = model.head(model.norm(model.embed(TOKENS)))[0]
    assert np.array_equal(lens.best[0], start.argmax(-1).numpy())


class Known:
    """As much of a tokenizer as evaluation asks for."""

    unknown: int | None = None
    has_roles = False

    def byte_lengths(self) -> np.ndarray:
        return np.ones(61, dtype=np.int64)


TOKENIZER: Any = Known()


def test_surprisal_adds_up_to_the_loss_that_evaluation_counts(model: GPT, acts: Activations) -> None:
    windows = evaluation_windows(np.array(IDS, dtype=np.uint16), len(IDS) - 1, 4)
    result = evaluate(model, windows, TOKENIZER, contextlib.nullcontext())
    assert acts.bits.sum() * math.log(2) == pytest.approx(result.nats.sum(), rel=1e-5)


def test_a_rank_counts_those_that_were_likelier(acts: Activations) -> None:
    ranks = activations.ranks(acts.logits, acts.ids)
    for step, token in enumerate(IDS[1:]):
        order = acts.logits[step].argsort(descending=True).tolist()
        assert order[ranks[step] - 1] == token


def by_hand(logits: Tensor, settings: Sampling) -> dict[str, list[set[int]]]:
    """What each filter keeps at each step, counted out one token at a time."""
    kept: dict[str, list[set[int]]] = {"top-k": [], "top-p": [], "min-p": []}
    for row in (logits.double() / settings.temperature).softmax(-1):
        order = row.argsort(descending=True).tolist()
        kept["top-k"].append(set(order[: settings.top_k]))
        held, count = 0.0, 0
        while held < settings.top_p:
            held, count = held + float(row[order[count]]), count + 1
        kept["top-p"].append(set(order[:count]))
        kept["min-p"].append({token for token in order if row[token] >= settings.min_p * row[order[0]]})
    return kept


def test_each_filter_keeps_what_the_sampler_would_keep_with_it_alone(acts: Activations) -> None:
    settings = Sampling(0.7, top_k=9, top_p=0.8, min_p=0.1)
    steps, expected = activations.steps(acts.logits, settings), by_hand(acts.logits, settings)
    assert list(steps.kept) == ["top-k 9", "top-p 0.8", "min-p 0.1"]
    for name, kept in steps.kept.items():
        assert [set(row.nonzero().flatten().tolist()) for row in kept] == expected[name.split()[0]]
    assert torch.allclose(steps.probs, acts.logits.softmax(-1), atol=1e-6)
    assert torch.allclose(steps.warmed, (acts.logits / 0.7).softmax(-1), atol=1e-6)


def test_a_filter_that_is_off_is_not_shown(acts: Activations) -> None:
    assert activations.steps(acts.logits, Sampling(1.0, 0, 1.0, 0.0)).kept == {}


def heads(*maps: Tensor) -> Tensor:
    return torch.stack(maps)[None]  # (1, H, T, T)


def test_habits_tell_heads_apart() -> None:
    T = 5
    itself, even = torch.eye(T), torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None]
    before = torch.eye(T).roll(1, 0).tril()
    before[0, 0] = 1
    first = torch.zeros(T, T)
    first[:, 0] = 1
    found = activations.head_statistics(heads(itself, before, first, even))
    assert found.itself[0] == pytest.approx([1, 0, 0, np.mean([1 / 2, 1 / 3, 1 / 4, 1 / 5])])
    assert found.previous[0, :3] == pytest.approx([0, 1, 1 / 4])  # the second token's first is its previous
    assert found.first[0, :3] == pytest.approx([0, 1 / 4, 1])
    assert found.distance[0] == pytest.approx([0, 1, 2.5, np.mean([0.5, 1, 1.5, 2])])
    assert found.spread[0] == pytest.approx([1, 1, 1, np.mean([2, 3, 4, 5])])


def test_neighbours_are_the_nearest_by_angle_and_never_the_token_itself() -> None:
    model = gpt(vocab_size=6)
    directions = torch.zeros(6, model.config.n_embd)
    directions[:, 0] = torch.tensor([1.0, 9.0, 1.0, -1.0, 0.0, 2.0])
    directions[:, 1] = torch.tensor([0.0, 1.0, 1.0, 0.0, 1.0, 0.1])
    model.token_embedding.weight.data = directions
    ids, cosines = activations.neighbours(model, [0, 4], 3)
    assert ids.tolist() == [[5, 1, 2], [2, 1, 5]]
    assert cosines[0, 2] == pytest.approx(math.sqrt(0.5))
    assert activations.neighbours(model, [0], 99)[0].tolist() == [[5, 1, 2, 4, 3]]


def test_the_rotary_curve_is_the_product_of_a_turned_query_and_the_same_key_turned() -> None:
    model = gpt(head_dim=8)
    products = activations.rotary_products(model)
    assert products is not None
    assert model.rotary is not None
    even = torch.ones(1, model.config.context_length, 1, 8)  # as strong in each pair
    turned = model.rotary(even, slice(even.shape[1]))[0, :, 0]
    for start in (0, 3):
        expected = (turned[start] * turned[start:]).sum(-1) / 8
        assert products.mean(axis=0)[: len(expected)] == pytest.approx(expected.numpy(), abs=1e-5)
    assert activations.position_similarity(model) is None


def test_learned_positions_are_compared_by_angle() -> None:
    model = gpt(position="learned")
    similarity = activations.position_similarity(model)
    assert similarity is not None
    assert activations.rotary_products(model) is None
    assert np.diagonal(similarity) == pytest.approx(np.ones(model.config.context_length), abs=1e-5)
    assert model.position_embedding is not None
    a, b = model.position_embedding.weight[2].detach(), model.position_embedding.weight[7].detach()
    assert similarity[2, 7] == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-5)
    assert activations.by_distance(similarity)[5] == pytest.approx(np.mean([similarity[i, i + 5] for i in range(11)]))


@pytest.mark.parametrize("length", [1, 2, 3, 8, 9, 128])
def test_octaves_leave_no_position_out(length: int) -> None:
    groups = activations.octaves(np.arange(1, length + 1))
    assert [value for _, group in groups for value in group] == list(range(1, length + 1))
    assert all(group[0] == first for first, group in groups)
    assert [first for first, _ in groups] == [1, 2, 3, 5, 9, 17, 33, 65][: len(groups)]


def test_loss_by_position_is_evaluations(characters: Tokenizer, tokens: dict[str, np.ndarray]) -> None:
    model = gpt(characters.vocab_size)
    windows = evaluation_windows(tokens["validation"], 16, 4)
    expected = evaluate(model, windows, characters, contextlib.nullcontext()).by_position
    whole = tokens["validation"][: (len(tokens["validation"]) - 1) // 16 * 16 + 1]
    found = activations.by_position(model, characters, whole)
    assert found.shape == expected.shape
    assert found[-1] == pytest.approx(expected[-1], rel=1e-6)


def test_a_part_is_spread_evenly_with_both_ends() -> None:
    assert activations.spread(5, 9) == [0, 1, 2, 3, 4]
    assert activations.spread(13, 4) == [0, 4, 8, 12]
    assert activations.spread(1, 4) == [0]


def test_blocks_and_heads_are_counted_from_one() -> None:
    assert activations.chosen(None, 3, "layer") == [0, 1, 2]
    assert activations.chosen(3, 3, "layer") == [2]
    for number in (0, 4, -1):
        with pytest.raises(ValueError, match=f"--head is {number}; this model has 3, counted from 1."):
            activations.chosen(number, 3, "head")

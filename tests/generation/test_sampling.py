"""Each filter keeps what it says, in a fixed order, and the draw has exactly the probabilities that it should."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tinygpt.generation.sampling import (
    Sampling,
    keep_min_p,
    keep_top_p,
    probabilities,
    sample,
    sample_from,
    validated_integer,
)

PLAIN = Sampling(temperature=1.0, top_p=1.0)
LOGITS = torch.tensor([[2.0, 1.0, 0.5, 0.0, -1.0]])


def softmax(temperature: float = 1.0) -> torch.Tensor:
    return torch.softmax(LOGITS / temperature, -1)


def kept(**settings: float) -> list[int]:
    """Which of the five tokens remain."""
    return probabilities(LOGITS, Sampling(**{"temperature": 1.0, "top_p": 1.0, **settings})).nonzero()[:, 1].tolist()  # type: ignore[arg-type]


def test_nothing_switched_on_is_the_softmax() -> None:
    torch.testing.assert_close(probabilities(LOGITS, PLAIN), softmax())


def test_the_defaults_are_those_that_the_command_line_documents() -> None:
    assert Sampling() == Sampling(temperature=0.8, top_k=0, top_p=0.95, min_p=0.0, repetition_penalty=1.0)


@pytest.mark.parametrize("temperature", [0.0, 0.7])
def test_scores_in_half_precision_are_filtered_in_full(temperature: float) -> None:
    settings, seen = Sampling(temperature, repetition_penalty=1.3), torch.ones(1, 5, dtype=torch.bool)
    half = 7.3 * LOGITS.bfloat16()
    found = probabilities(half, settings, seen)
    assert found.dtype == torch.float32
    assert torch.equal(found, probabilities(half.float(), settings, seen))


def test_scores_with_a_gradient_can_be_sampled() -> None:
    assert torch.equal(probabilities(LOGITS.clone().requires_grad_(), Sampling()), probabilities(LOGITS, Sampling()))


def test_greedy_puts_everything_on_the_first_of_the_likeliest() -> None:
    tie = torch.tensor([[1.0, 3.0, 3.0]])
    assert probabilities(tie, Sampling(temperature=0.0)).tolist() == [[0.0, 1.0, 0.0]]


def test_temperature_divides_the_scores() -> None:
    torch.testing.assert_close(probabilities(LOGITS, Sampling(temperature=0.5, top_p=1.0)), softmax(0.5))


@pytest.mark.parametrize(
    "settings", [{"temperature": 0.0}, {"temperature": math.ulp(0.0)}, {"top_k": 1}, {"top_p": 1e-9}, {"min_p": 0.999}]
)
def test_the_tightest_setting_of_each_filter_is_greedy(settings: dict[str, float]) -> None:
    assert kept(**settings) == [0]


def test_top_k_keeps_exactly_k_also_among_equals_and_all_beyond_the_vocabulary() -> None:
    assert kept(top_k=2) == [0, 1]
    assert kept(top_k=99) == [0, 1, 2, 3, 4]
    equal = probabilities(torch.zeros(1, 6), Sampling(temperature=1.0, top_k=2, top_p=1.0))
    assert (equal > 0).sum() == 2


def test_top_p_keeps_the_smallest_set_that_holds_p() -> None:
    cumulative = softmax()[0].cumsum(0)  # 0.56 0.77 0.90 0.97 1.00
    assert kept(top_p=float(cumulative[1]) - 0.01) == [0, 1]
    assert kept(top_p=float(cumulative[1]) + 0.01) == [0, 1, 2]
    assert keep_top_p(torch.tensor([[0.5, 0.25, 0.25]]), 0.5).tolist() == [[1.0, 0.0, 0.0]]  # exactly p is enough


def test_top_p_of_one_keeps_what_rounding_does_not_see() -> None:
    assert (probabilities(torch.tensor([[0.0, -20.0, -21.0]]), PLAIN) > 0).all()


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30).filter(any), st.floats(0.001, 0.999))
def test_top_p_is_that_of_a_stable_sort_among_equals_too(weights: list[int], p: float) -> None:
    probs = torch.tensor([weights]) / sum(weights)
    kept, held = [], 0.0
    for token in sorted(range(len(weights)), key=lambda token: -weights[token]):  # stable: first come, first kept
        if held < p - 1e-6:
            kept.append(token)
        elif held < p + 1e-6:
            return  # too close to p to say
        held += weights[token] / sum(weights)
    expected = [token for token in sorted(kept) if weights[token]]
    assert keep_top_p(probs, p).nonzero()[:, 1].tolist() == expected


def test_rows_are_drawn_by_their_own_settings() -> None:
    settings = [Sampling(temperature=0), PLAIN, Sampling(temperature=0), Sampling(top_k=2)]
    seen, uniforms = torch.zeros(4, 5, dtype=torch.bool), torch.full((4,), 0.99)
    assert sample(LOGITS.expand(4, -1), settings, seen, uniforms).tolist() == [0, 4, 0, 1]


def test_min_p_drops_what_is_unlikely_beside_the_likeliest() -> None:
    share = math.exp(0.5 - 2.0)  # the third token's probability over the first's
    assert kept(min_p=share * 0.99) == [0, 1, 2]
    assert kept(min_p=share * 1.01) == [0, 1]
    assert keep_min_p(torch.tensor([[0.5, 0.25, 0.25]]), 0.5).tolist() == [[0.5, 0.25, 0.25]]  # exactly the share stays


@pytest.mark.parametrize("penalty", [1.5, 2.0])
def test_the_penalty_lowers_seen_tokens_only_whatever_their_sign(penalty: float) -> None:
    seen = torch.tensor([[True, False, False, False, True]])
    before, after = softmax()[0], probabilities(LOGITS, Sampling(1.0, top_p=1.0, repetition_penalty=penalty), seen)[0]
    expected = torch.softmax(torch.tensor([2.0 / penalty, 1.0, 0.5, 0.0, -penalty]), -1)
    torch.testing.assert_close(after, expected)
    assert after[0] < before[0]
    assert after[4] < before[4]


def test_filters_apply_in_their_order() -> None:
    """Temperature flattens before top-p counts, so top-p keeps more at a high temperature."""
    assert kept(temperature=1.0, top_p=0.7) == [0, 1]
    assert kept(temperature=5.0, top_p=0.7) == [0, 1, 2, 3]
    # top-k leaves 0.73 and 0.27 of the first two; only after that does top-p 0.7 cut to the first alone
    assert kept(top_k=2, top_p=0.7) == [0]


@given(
    st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=40),
    st.floats(0, 5),
    st.integers(0, 60),
    st.floats(0.001, 1),
    st.floats(0, 0.999),
    st.floats(0.1, 10),
)
def test_something_always_remains_and_sums_to_one(
    scores: list[float], temperature: float, top_k: int, top_p: float, min_p: float, penalty: float
) -> None:
    settings = Sampling(temperature, top_k, top_p, min_p, penalty)
    probs = probabilities(torch.tensor([scores]), settings, torch.ones(1, len(scores), dtype=torch.bool))
    assert probs.isfinite().all()
    assert (probs >= 0).all()
    assert probs.sum().item() == pytest.approx(1, abs=1e-4)


def test_sampled_frequencies_match_the_probabilities() -> None:
    """Chi-square over five tokens: 4 degrees of freedom, 18.47 is exceeded once in a thousand; the seed is fixed."""
    settings = Sampling(temperature=0.9, top_k=4, top_p=0.99, min_p=0.01)
    probs, n = probabilities(LOGITS, settings), 100_000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(1))
    counts = torch.bincount(sample_from(probs.expand(n, -1), uniforms), minlength=5).double()
    expected = probs[0].double() * n
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert ((counts - expected)[possible] ** 2 / expected[possible]).sum() < 18.47


def test_a_rows_draw_depends_on_its_own_number_only() -> None:
    probs, uniforms = softmax().expand(8, -1), torch.rand(8)
    together = sample_from(probs, uniforms)
    alone = torch.cat([sample_from(probs[i : i + 1], uniforms[i : i + 1]) for i in range(8)])
    assert torch.equal(together, alone)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    probs = torch.tensor([[0.0, 0.5, 0.0, 0.5, 0.0]])
    edges = torch.tensor([0.0, 0.4999, 0.5, 0.5001, 1 - 2**-24])
    drawn = sample_from(probs.expand(5, -1), edges)
    assert set(drawn.tolist()) == {1, 3}


def test_what_does_not_sum_to_one_is_drawn_by_its_shares() -> None:
    assert sample_from(torch.full((2, 2), 0.25), torch.tensor([0.4, 0.6])).tolist() == [0, 1]


def test_a_token_too_unlikely_for_float32_to_count_can_still_be_drawn() -> None:
    probs, uniforms = torch.tensor([[1.0, 1e-9]]), torch.tensor([0.5, 1 - 1e-10], dtype=torch.float64)
    assert sample_from(probs.expand(2, -1), uniforms).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("name", "values", "allowed"),
    [
        ("temperature", [-1, math.nan, math.inf], "0 or more"),
        ("top_k", [-1], "0 (off) or more"),
        ("top_p", [0, 1.1], "above 0 and at most 1"),
        ("min_p", [-0.1, 1], "0 or more, and below 1"),
        ("repetition_penalty", [0, -1, math.nan, math.inf], "above 0"),
    ],
)
def test_settings_out_of_bounds_are_refused_in_a_sentence(name: str, values: list[float], allowed: str) -> None:
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"{name} is {value}; it must be {allowed}.")):
            Sampling(**{name: value})  # type: ignore[arg-type]


def test_numbers_of_numpy_become_pythons() -> None:
    settings = Sampling(temperature=np.float32(0.5), top_k=np.int64(3))  # type: ignore[arg-type]
    assert (type(settings.temperature), type(settings.top_k)) == (float, int)


def test_whole_numbers_may_be_as_large_as_the_limit_and_no_larger() -> None:
    assert validated_integer("seed", 2**62, 0) == 2**62
    with pytest.raises(ValueError, match=re.escape(f"seed is {2**62 + 1}; it must be 0 or more, and at most {2**62}.")):
        validated_integer("seed", 2**62 + 1, 0)
    with pytest.raises(ValueError, match="seed is inf; it must be a whole number"):
        validated_integer("seed", math.inf, 0)

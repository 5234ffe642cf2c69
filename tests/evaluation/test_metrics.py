"""Evaluation counts every token once, speaks in bits per byte, and says how sure it is."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import CPU, gpt
from tinygpt.data.dataset import evaluation_windows
from tinygpt.evaluation.metrics import Evaluation, evaluate, metrics, verdict
from tinygpt.model.hardware import autocast

TOKENS = np.random.default_rng(0).integers(0, 61, 203).astype(np.uint16)
LENGTHS = np.arange(61) % 4 + 1
UNKNOWN = 7


class Known:
    """As much of a tokenizer as evaluation asks for."""

    unknown: int | None = None
    has_roles = False

    def byte_lengths(self) -> np.ndarray:
        return LENGTHS


TOKENIZER: Any = Known()


def run(batch_size: int = 4) -> Evaluation:
    windows = evaluation_windows(TOKENS, 16, batch_size)
    return evaluate(gpt(), windows, TOKENIZER, autocast(CPU, "fp32"))


def by_hand() -> list[float]:
    """The loss of each token but the first, window by window."""
    model, losses = gpt(), []
    for start in range(0, len(TOKENS) - 1, 16):
        window = torch.from_numpy(TOKENS[start : start + 17].astype(np.int64))
        log_p = torch.log_softmax(model(window[None, :-1]), -1)[0]
        losses += [-log_p[i, token].item() for i, token in enumerate(window[1:])]
    return losses


def test_every_token_but_the_first_is_predicted_once() -> None:
    result, expected = run(), by_hand()
    assert result.tokens == len(TOKENS) - 1 == len(expected)
    assert result.loss == pytest.approx(sum(expected) / len(expected), rel=1e-5)
    assert result.bytes.sum() == LENGTHS[TOKENS[1:]].sum()


def test_dropout_is_off_whatever_mode_the_model_was_in() -> None:
    model = gpt(dropout=0.5).train()
    noisy = evaluate(model, evaluation_windows(TOKENS, 16, 4), TOKENIZER, autocast(CPU, "fp32"))
    assert noisy.loss == pytest.approx(run().loss)


def test_the_result_does_not_depend_on_the_batch() -> None:
    assert run(1).loss == pytest.approx(run(64).loss, rel=1e-6)


def test_loss_by_position_averages_over_windows() -> None:
    expected = by_hand()
    assert run().by_position[0] == pytest.approx(np.mean(expected[::16]), rel=1e-5)
    assert run().by_position[-1] == pytest.approx(np.mean(expected[15::16]), rel=1e-5)


def test_bits_per_byte_is_nats_over_ln2_and_bytes() -> None:
    bits, _ = run().bits_per_byte(500)
    assert bits == pytest.approx(sum(by_hand()) / math.log(2) / 500, rel=1e-5)


def test_the_standard_error_is_the_spread_over_texts_of_this_length() -> None:
    """Against the truth: draw many texts of 400 windows, and see how far their bits per byte lie apart."""
    random = np.random.default_rng(1)

    def text() -> Evaluation:
        sizes = random.integers(20, 60, 400)
        nats = random.normal(2.0, 0.5, 400) * sizes * math.log(2)
        return Evaluation(nats, sizes, unknown=np.zeros(400), by_position=np.ones(1), tokens=1)

    texts = [text() for _ in range(300)]
    spread = np.std([t.bits_per_byte(int(t.bytes.sum()))[0] for t in texts])
    claimed = np.mean([t.bits_per_byte(int(t.bytes.sum()))[1] for t in texts])
    assert claimed == pytest.approx(spread, rel=0.15)


BASELINES = {"validation_bytes": 500, "bits_per_byte": {"uniform": 6.0, "xz": 2.5, "ppmd": 0.1}}


def test_one_window_has_no_standard_error() -> None:
    one = evaluate(gpt(), evaluation_windows(TOKENS[:17], 16, 4), TOKENIZER, autocast(CPU, "fp32"))
    bits, error = one.bits_per_byte(40)
    assert error is None
    numbers = metrics(one, BASELINES)
    assert json.loads(json.dumps(numbers, allow_nan=False))["bits_per_byte_standard_error"] is None
    assert "±" not in verdict(numbers, None)
    assert bits > 0


def test_an_unknown_character_also_costs_the_bits_that_name_it() -> None:
    class Partly(Known):
        unknown = UNKNOWN

    plain, charged = run(), evaluate(gpt(), evaluation_windows(TOKENS, 16, 4), Partly(), autocast(CPU, "fp32"))  # type: ignore[arg-type]
    count = int((TOKENS[1:] == UNKNOWN).sum())
    assert count > 0
    assert metrics(charged, BASELINES)["unknown_characters"] == count
    assert charged.loss == plain.loss
    extra = charged.bits_per_byte(500)[0] - plain.bits_per_byte(500)[0]
    assert extra == pytest.approx(count * math.log2(0x110000) / 500)


def test_metrics_stand_beside_the_baselines() -> None:
    numbers = metrics(run(), BASELINES)
    assert numbers["perplexity"] == pytest.approx(math.exp(numbers["loss"]))
    assert numbers["baselines"] == BASELINES["bits_per_byte"]


@pytest.mark.parametrize(
    ("before", "says"),
    [
        (None, "not yet ppmd 0.100."),
        ({"bits_per_byte": 2.5}, "The run before: 2.500 (-0.500)."),
        ({"bits_per_byte": 2.5, "bytes": 499}, "The run before was on another text."),
    ],
)
def test_the_verdict_compares_with_baselines_and_with_the_run_before(before: Any, says: str) -> None:
    numbers: dict[str, Any] = {"bits_per_byte": 2.0, "bits_per_byte_standard_error": 0.01, "bytes": 500}
    numbers["baselines"] = BASELINES["bits_per_byte"]
    line = verdict(numbers, before and numbers | before)
    assert "better than uniform 6.000, xz 2.500; not yet ppmd 0.100" in line
    assert line.endswith(says)

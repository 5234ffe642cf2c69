"""Samples can be traced and read, and a model's text cannot break the page; figures are the same bytes every time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinygpt
from tests.conftest import params
from tinygpt import figures
from tinygpt.checkpoint import hashes
from tinygpt.generation import Completion
from tinygpt.samples import as_markdown, collect, record
from tinygpt.sampling import Sampling

HASHES = {"model": "m" * 64, "tokenizer": "t" * 64}


@pytest.fixture
def records(model_folder: Path) -> list[dict[str, Any]]:
    model, tokenizer = tinygpt.load(model_folder)
    section = params(sample__prompts=["ROMEO:", "JULIET:"], sample__max_new_tokens=10, sample__num_samples=2).sample
    return list(collect(model, tokenizer, section, 5, hashes(model_folder)))


def test_every_prompt_is_continued_and_every_pair_of_the_grid_tried(records: list[dict[str, Any]]) -> None:
    assert [(sample["prompt"], sample["seed"]) for sample in records[:4]] == [
        ("ROMEO:", 5),
        ("ROMEO:", 6),
        ("JULIET:", 5),
        ("JULIET:", 6),
    ]
    knobs = [(sample["settings"]["temperature"], sample["settings"]["top_p"]) for sample in records[4:]]
    assert knobs == [(0.4, 0.8), (0.4, 1.0), (0.8, 0.8), (0.8, 1.0), (1.2, 0.8), (1.2, 1.0)]


def test_a_sample_can_be_made_again_from_its_record(records: list[dict[str, Any]], model_folder: Path) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    for sample in records[1], records[-1]:
        settings = dict(sample["settings"])
        length = settings.pop("max_new_tokens")
        made = tinygpt.generate(
            model,
            tokenizer,
            sample["prompt"],
            max_new_tokens=length,
            sampling=Sampling(**settings),
            seed=sample["seed"],
        )
        assert made[0].text == sample["text"]


def test_the_page_shows_every_sample(records: list[dict[str, Any]]) -> None:
    page = as_markdown(records)
    assert page.count("```text") == len(records) == 10
    assert page.count("temperature 1.2") == 2


def test_model_text_cannot_leave_its_block() -> None:
    text = "```\n# not a heading\n````\n<script>"
    page = as_markdown([record(Completion("", text, 1), Sampling(), 9, HASHES)])
    assert page.count("`````") == 2  # a fence longer than any in the text opens and closes it


ROWS = [{"step": float(step), "loss": 7 / (1 + step / 30)} for step in range(1, 200)]


@pytest.mark.parametrize("name", ["loss", "position", "bars"])
def test_a_figure_is_the_same_bytes_every_time(tmp_path: Path, name: str) -> None:
    for path in (tmp_path / "a.png", tmp_path / "b.png"):
        match name:
            case "loss":
                figures.loss_curves(path, ROWS, ROWS[::20], {"xz": 2.0, "uniform": 99.0})
            case "position":
                figures.loss_by_position(path, np.linspace(5, 3, 64))
            case "bars":
                figures.yardstick_bars(path, 2.0, 0.01, {"uniform": 6.0, "ppmd": 1.9})
    data = (tmp_path / "a.png").read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert data == (tmp_path / "b.png").read_bytes()


def test_smoothing_keeps_a_level_and_evens_out_noise() -> None:
    assert figures.smoothed(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    noise = np.random.default_rng(0).normal(size=1000)
    assert figures.smoothed(noise).std() < 0.4 * noise.std()
    assert len(figures.smoothed(np.ones(3))) == 3


def test_bits_per_byte_become_nats_per_token() -> None:
    assert figures.nats_per_token({"xz": 2.0}, 3.0)["xz"] == pytest.approx(2 * 3 * np.log(2))

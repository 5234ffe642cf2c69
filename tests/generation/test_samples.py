"""Samples can be traced and read, and a model's text cannot break the page; figures are the same bytes every time."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import stages.sample
import tinygpt
from tests.conftest import TEXT, params
from tinygpt.checkpoints.model_folder import hashes
from tinygpt.files.paths import Paths
from tinygpt.generation.generate import Completion
from tinygpt.generation.samples import (
    GRID_SAMPLES,
    add_overlap,
    as_markdown,
    as_table,
    collect,
    grid_table,
    held_out_records,
    metrics_line,
    record,
    summary,
)
from tinygpt.generation.sampling import Sampling
from tinygpt.plots import curves, style

HASHES = {"model": "m" * 64, "tokenizer": "t" * 64}


SECTION = params(sample__prompts=["ROMEO:", "JULIET:"], sample__max_new_tokens=10, sample__num_samples=2).sample
ROWS_OF_TEXT = [("play", TEXT)]


@pytest.fixture
def records(model_folder: Path) -> list[dict[str, Any]]:
    model, tokenizer = tinygpt.load(model_folder)
    return list(collect(model, tokenizer, SECTION, 5, hashes(model_folder)))


def test_every_prompt_is_continued_and_every_pair_of_the_grid_tried(records: list[dict[str, Any]]) -> None:
    assert [(sample["prompt"], sample["seed"]) for sample in records[:4]] == [
        ("ROMEO:", 5),
        ("ROMEO:", 6),
        ("JULIET:", 5),
        ("JULIET:", 6),
    ]
    grid = records[4:]
    settings = [(sample["settings"]["temperature"], sample["settings"]["top_p"]) for sample in grid[::GRID_SAMPLES]]
    assert settings == [(0.4, 0.8), (0.4, 1.0), (0.8, 0.8), (0.8, 1.0), (1.2, 0.8), (1.2, 1.0)]
    assert [sample["seed"] for sample in grid] == [*range(5, 5 + GRID_SAMPLES)] * 6


def test_a_sample_can_be_made_again_from_its_record(records: list[dict[str, Any]], model_folder: Path) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    for sample in records[1], records[-1]:
        made = tinygpt.generate(model, tokenizer, sample["prompt"], seed=sample["seed"], **sample["settings"])
        assert made[0].text == sample["text"]


def test_the_grid_is_laid_out_once_for_every_writer() -> None:
    cell = {"bits_per_byte": 1.5, "distinct_2": 0.25, "known_words": 0.9, "longest_copy": 12.0}
    found = {"grid": [{"temperature": t, "top_p": p, **cell} for t, p in ((0.4, 0.8), (0.4, 1.0), (0.8, 0.8))]}
    text = "1.50 · 0.25 · 90% · 12"
    heads, rows = grid_table(found | {"held_out": cell})
    assert heads == ["temperature", "top-p 0.8", "top-p 1"]
    assert rows == [("0.4", [text, text]), ("0.8", [text, "–"]), ("held-out text", [text, ""])]


def test_the_page_shows_every_sample_with_its_metrics_and_one_of_each_pair(
    records: list[dict[str, Any]], model_folder: Path
) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    passages = held_out_records(model, tokenizer, SECTION, ROWS_OF_TEXT)
    add_overlap([*records, *passages], ROWS_OF_TEXT)
    page = as_markdown(records, summary(records, passages), [])
    assert page.count("```text") == 4 + 6
    assert all(metrics_line(sample["metrics"]) in page for sample in records[:4])
    assert page.count("**temperature 1.2") == 2
    rows = [line for line in page.splitlines() if line.startswith("|")]
    assert [row.split(" | ")[0] for row in rows] == [
        "| temperature",
        "|---|---|---|",
        "| 0.4",
        "| 0.8",
        "| 1.2",
        "| *held-out text*",
    ]


def test_a_cell_of_the_grid_is_that_of_its_own_samples(records: list[dict[str, Any]]) -> None:
    add_overlap(records, ROWS_OF_TEXT)
    found = summary(records, [])
    cell = found["grid"][3]
    assert (cell["temperature"], cell["top_p"], cell["samples"]) == (0.8, 1.0, GRID_SAMPLES)
    ours = [s["metrics"] for s in records[4 + 3 * GRID_SAMPLES :][:GRID_SAMPLES]]
    assert cell["bits_per_byte"] == pytest.approx(np.mean([one["bits_per_byte"] for one in ours]), abs=1e-4)
    assert cell["longest_copy"] == pytest.approx(np.mean([one["longest_copy"] for one in ours]), abs=1e-4)
    lines = as_table(found["grid"]).splitlines()
    assert lines[0].split("\t")[:2] == ["temperature", "top_p"]
    assert len(lines) == 1 + 6
    assert found["held_out"]["bits_per_byte"] is None


def test_a_page_without_the_training_text_or_a_grid_leaves_out_what_is_not_known(records: list[dict[str, Any]]) -> None:
    page = as_markdown(records, summary(records, []), [])
    assert "words known" not in page
    assert " · – · – |" in page
    assert as_table([]) == "temperature\ttop_p\n"
    assert "What temperature and top-p do" not in as_markdown(records[:4], summary(records[:4], []), [])


def test_samples_are_made_where_the_training_text_is_not_and_where_there_is_no_grid(
    model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model_folder, tmp_path / "data/model")
    settings = params(
        sample__prompts=["ROMEO:"], sample__max_new_tokens=5, sample__grid={"temperature": [], "top_p": []}
    )
    stages.sample.main(settings, Paths(tmp_path))
    assert "The training text of this model is not in" in capsys.readouterr().out
    made = {file.relative_to(tmp_path / "data/samples").as_posix() for file in (tmp_path / "data/samples").rglob("*.*")}
    assert made == {"samples.jsonl", "samples.md", "sample_metrics.json", "grid.tsv", "figures/temperatures.png"}


def test_model_text_cannot_leave_its_block() -> None:
    text = "```\n# not a heading\n````\n<script>"
    sample = record(Completion("", text, 1), Sampling(), 9, HASHES)
    nothing = dict.fromkeys(
        ("bits_per_byte", "bits_per_token", "distinct_1", "distinct_2", "distinct_3", "known_words")
    )
    sample["metrics"] = nothing | {"longest_copy": 5, "copied": "``<b>"}
    page = as_markdown([sample], summary([sample], []), [])
    assert page.count("`````") == 2  # a fence longer than any in the text opens and closes it
    assert "longest copy 5 characters: ``` ``<b> ```" in page


ROWS = [
    {"step": float(step), "loss": 7 / (1 + step / 30), "learning_rate": 1 / step, "gradient_norm": 9 / step}
    for step in range(1, 200)
]


LEARNED = [(0.0, 6.0), (1.0, 4.0), (2.0, 3.0), (3.0, 3.1)]
GRID = [{"temperature": t, "top_p": p, "distinct_2": t / 2, "bits_per_byte": t} for t in (0.4, 0.8) for p in (0.8, 1.0)]


@pytest.mark.parametrize("kind", ["png", "svg"])
@pytest.mark.parametrize(
    "name", ["loss", "learning rate", "gradient norm", "learning", "position", "bars", "temperatures"]
)
def test_a_figure_is_the_same_bytes_every_time(tmp_path: Path, name: str, kind: str) -> None:
    for path in (tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"):
        match name:
            case "learning rate":
                curves.learning_rate(path, ROWS)
            case "gradient norm":
                curves.gradient_norm(path, ROWS, 1.0)
            case "learning":
                curves.learning(path, {"$a": LEARNED, "_b": LEARNED[:2]}, {"xz": 3.5}, "TFLOP", "x")
            case "temperatures":
                curves.temperatures(path, GRID, {"distinct_2": 0.3, "bits_per_byte": None})
            case "loss":
                curves.loss_curves(path, ROWS, ROWS[::20], {"xz": 2.0, "uniform": 99.0})
            case "position":
                curves.loss_by_position(path, np.linspace(5, 3, 64))
            case "bars":
                curves.baseline_bars(path, {"$a": (2.0, 0.01), "_b": (2.1, None)}, {"uniform": 6.0, "ppmd": 1.9})
    data = (tmp_path / f"a.{kind}").read_bytes()
    assert data[:8] == (b"\x89PNG\r\n\x1a\n" if kind == "png" else b"<?xml ve")
    assert data == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("context", [1, 3, 9, 100])
def test_loss_by_position_is_drawn_without_a_warning_for_every_context(tmp_path: Path, context: int) -> None:
    curves.loss_by_position(tmp_path / "a.png", np.linspace(5, 3, context))  # NumPy's warnings are errors in tests
    assert (tmp_path / "a.png").stat().st_size > 1000


def test_smoothing_keeps_a_level_and_evens_out_noise() -> None:
    assert style.smoothed(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    noise = np.random.default_rng(0).normal(size=1000)
    assert style.smoothed(noise).std() < 0.4 * noise.std()
    assert len(style.smoothed(np.ones(3))) == 3


def test_bits_per_byte_become_nats_per_token() -> None:
    assert curves.nats_per_token({"xz": 2.0}, 3.0)["xz"] == pytest.approx(2 * 3 * np.log(2))

"""Samples: a continuation of every prompt, and a grid over temperature and top-p.

`collect` makes the records, a dictionary for each sample with its seed, settings, metrics (sample_metrics.py) and the
hashes that trace it. `add_overlap` compares them with the training text, `summary` aggregates each pair of the grid,
and `as_markdown` formats everything for reading.
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tinygpt.config import Sample
from tinygpt.data.corpus import Rows
from tinygpt.files.text import write_json, write_text
from tinygpt.generation import sample_metrics
from tinygpt.generation.generate import Completion, Prompt, generate_batch
from tinygpt.generation.sampling import Sampling
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

Record = dict[str, Any]
GRID_TOKENS = 60  # enough to show the difference, short enough to compare
OPENING = 16  # lines
GRID_SAMPLES = 16  # for each pair; one is shown, metrics are over all, since those of a single sample are mostly noise
SHOWN = 60  # characters of a copied passage that are shown


def settings_of(section: Sample) -> Sampling:
    """The sampling settings of the `sample` section."""
    return Sampling(
        temperature=section.temperature,
        top_k=section.top_k,
        top_p=section.top_p,
        min_p=section.min_p,
        repetition_penalty=section.repetition_penalty,
    )


def prompts_of(section: Sample) -> list[Prompt]:
    """The prompts of the section: texts, and messages as dictionaries."""
    return [
        prompt if isinstance(prompt, str) else [message.model_dump() for message in prompt]
        for prompt in section.prompts
    ]


def title(prompt: Prompt) -> str:
    """A prompt in one line: the text, or the last message."""
    return " ".join((prompt if isinstance(prompt, str) else prompt[-1]["content"]).split()) or "(nothing)"


def collect(model: GPT, tokenizer: Tokenizer, section: Sample, seed: int, hashes: dict[str, Any]) -> Iterator[Record]:
    """All samples of the section: `num_samples` of each prompt, then GRID_SAMPLES for each pair of the grid."""
    yield from continue_prompts(model, tokenizer, section, seed, hashes)
    plain, length = settings_of(section), min(GRID_TOKENS, section.max_new_tokens)
    seeds = [seed + i for i in range(GRID_SAMPLES)]
    pairs = [(temperature, top_p) for temperature in section.grid.temperature for top_p in section.grid.top_p]
    for temperature, top_p in pairs:
        settings = replace(plain, temperature=temperature, top_p=top_p)
        prompts = prompts_of(section)[:1] * GRID_SAMPLES
        options: Any = {"max_new_tokens": length, "seed": seeds, **asdict(settings)}
        for completion in generate_batch(model, tokenizer, prompts, **options):
            metrics = sample_metrics.model_metrics(model, tokenizer, completion)
            yield record(completion, settings, length, hashes) | {"metrics": metrics, "grid": True}


def continue_prompts(
    model: GPT, tokenizer: Tokenizer, section: Sample, seed: int, hashes: dict[str, Any]
) -> Iterator[Record]:
    """`num_samples` records for each prompt."""
    plain, length = settings_of(section), section.max_new_tokens
    prompts = [prompt for prompt in prompts_of(section) for _ in range(section.num_samples)]
    seeds = [seed + i for _ in section.prompts for i in range(section.num_samples)]
    options: Any = {"max_new_tokens": length, "seed": seeds, **asdict(plain)}
    for completion in generate_batch(model, tokenizer, prompts, **options):
        metrics = sample_metrics.model_metrics(model, tokenizer, completion)
        yield record(completion, plain, length, hashes) | {"metrics": metrics}


def held_out_records(model: GPT, tokenizer: Tokenizer, section: Sample, rows: Rows) -> list[Record]:
    """Passages of held-out text with their metrics, as many and as long as the samples of a pair of the grid."""
    length = min(GRID_TOKENS, section.max_new_tokens)
    return [
        {"completion": passage.completion, "metrics": sample_metrics.model_metrics(model, tokenizer, passage)}
        for passage in sample_metrics.held_out_passages(rows, tokenizer, GRID_SAMPLES, length)
    ]


def add_overlap(records: list[Record], rows: Rows, advance: Callable[[int], object] = lambda size: None) -> None:
    """Add each record's overlap with the training text to its metrics; the text is read once."""
    overlaps = sample_metrics.training_overlap([sample["completion"] for sample in records], rows, advance)
    for sample, overlap in zip(records, overlaps, strict=True):
        sample["metrics"] |= overlap


def summary(records: list[Record], held_out: list[Record]) -> dict[str, Any]:
    """Metrics over all samples of a pair: {"grid": [a row for each pair], "held_out": the same for held-out text}."""
    pairs: dict[tuple[float, float], list[Record]] = {}
    for sample in records:
        if "grid" in sample:
            pairs.setdefault((sample["settings"]["temperature"], sample["settings"]["top_p"]), []).append(sample)
    rows = [
        {"temperature": t, "top_p": p, "samples": len(group), **_aggregate(group)} for (t, p), group in pairs.items()
    ]
    return {"grid": rows, "held_out": {"samples": len(held_out), **_aggregate(held_out)}}


def count(section: Sample) -> int:
    """The number of records that `collect` makes."""
    pairs = len(section.grid.temperature) * len(section.grid.top_p)
    return len(section.prompts) * section.num_samples + pairs * GRID_SAMPLES


def opening(text: str) -> str:
    """The first OPENING lines, so that a 24-line screen also shows the output before."""
    lines = text.splitlines()
    return "\n".join(lines[:OPENING] + ["…"] * (len(lines) > OPENING))


def write(folder: Path, records: list[Record], metrics: dict[str, Any], before: list[Record]) -> None:
    """Write samples.jsonl, before.jsonl where there is something before, samples.md, sample_metrics.json, grid.tsv."""
    folder.mkdir()
    for name, found in (("samples.jsonl", records), ("before.jsonl", before)):
        if found:
            lines = (json.dumps(sample, ensure_ascii=False) + "\n" for sample in found)
            write_text(folder / name, "".join(lines))
    write_text(folder / "samples.md", as_markdown(records, metrics, before))
    write_json(folder / "sample_metrics.json", metrics)
    write_text(folder / "grid.tsv", as_table(metrics["grid"]))


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows of the grid as tab-separated values, for `dvc plots`; missing values are blank."""
    names = list(rows[0]) if rows else ["temperature", "top_p"]
    lines = ["\t".join("" if row[name] is None else f"{row[name]:g}" for name in names) for row in rows]
    return "\n".join(["\t".join(names), *lines]) + "\n"


def _aggregate(records: list[Record]) -> sample_metrics.Metrics:
    texts = [sample["completion"] for sample in records]
    return sample_metrics.aggregate([sample["metrics"] for sample in records], texts)


def record(completion: Completion, settings: Sampling, max_new_tokens: int, hashes: dict[str, Any]) -> Record:
    """One sample as a dictionary, as in `tinygpt generate --json` and samples.jsonl."""
    return {
        "prompt": completion.prompt,
        "completion": completion.completion,
        "text": completion.text,
        "seed": completion.seed,
        "settings": asdict(settings) | {"max_new_tokens": max_new_tokens},
        "hashes": hashes,
    }


def as_markdown(records: list[Record], metrics: dict[str, Any], before: list[Record]) -> str:
    """The samples as Markdown, with generated text in code blocks so that it is not interpreted.

    metrics: from `summary`. The first sample of each pair of the grid is shown. before: for a fine-tuned model, the
    base model's samples for the same prompts and seeds; else empty.
    """
    plain = [sample for sample in records if "grid" not in sample]
    grid = [sample for sample in records if "grid" in sample]
    first, hashes = records[0], records[0]["hashes"]
    lines = [
        "# Samples",
        "",
        f"Model `{hashes['model'][:12]}`, tokenizer `{hashes['tokenizer'][:12]}`; {_settings_line(first['settings'])}.",
    ]
    lines.append("Each text begins with its prompt. samples.jsonl holds the settings and full hashes.")
    for sample, older in itertools.zip_longest(plain, before):
        lines += ["", f"## {title(sample['prompt'])} · seed {sample['seed']}", ""]
        if older:
            lines += ["Before fine-tuning:", "", *fenced(older["text"]), "", metrics_line(older["metrics"])]
            lines += ["", "After:", ""]
        lines += [*fenced(sample["text"]), "", metrics_line(sample["metrics"])]
    if grid:
        lines += [
            "",
            "# What temperature and top-p do",
            "",
            f"{GRID_SAMPLES} samples of up to {grid[0]['settings']['max_new_tokens']} tokens at each pair, continuing "
            "the first prompt; in each cell bits per byte · distinct-2 · known words · copied:",
            "",
            *_table(metrics),
            "",
            "The last row is of passages of the held-out text, as long and as many: what real text has.",
            "",
            *(f"- **{name}**: {text}" for name, text in sample_metrics.MEANING.items()),
            "",
            f"The first of each, all with seed {grid[0]['seed']}; samples.jsonl holds the others:",
        ]
    for sample in (sample for sample in grid if sample["seed"] == grid[0]["seed"]):
        pair = sample["settings"]
        lines += ["", f"**temperature {pair['temperature']:g}, top-p {pair['top_p']:g}**", "", *fenced(sample["text"])]
    return "\n".join(lines) + "\n"


def metrics_line(metrics: sample_metrics.Metrics) -> str:
    """The metrics of a sample, as a line of Markdown."""
    distinct = " / ".join(format_number(metrics[f"distinct_{n}"], ".2f") for n in (1, 2, 3))
    per_byte, per_token = (format_number(metrics[f"bits_per_{unit}"], ".2f") for unit in ("byte", "token"))
    parts = [f"{per_byte} bits per byte ({per_token} a token)", f"distinct-1/2/3 {distinct}"]
    if "longest_copy" in metrics:
        parts.append(f"{format_number(metrics['known_words'], '.0%')} of its words known")
        copied = metrics["copied"]
        parts.append(f"longest copy {len(copied)} characters" + (f": {_inline(copied)}" if copied else ""))
    return " · ".join(parts)


def grid_table(metrics: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The grid as (column headings, rows of a name and its cells): one row for each temperature, one column for each
    top-p. The last row, of the held-out text, has one cell.
    """
    cells = {(row["temperature"], row["top_p"]): cell(row) for row in metrics["grid"]}
    columns = list(dict.fromkeys(top_p for _, top_p in cells))
    temperatures = dict.fromkeys(temperature for temperature, _ in cells)
    rows = [(f"{t:g}", [cells.get((t, p), "–") for p in columns]) for t in temperatures]
    rows.append(("held-out text", [cell(metrics["held_out"]), *[""] * (len(columns) - 1)]))
    return ["temperature", *(f"top-p {p:g}" for p in columns)], rows


def _table(metrics: dict[str, Any]) -> list[str]:
    """The grid in Markdown."""
    headings, rows = grid_table(metrics)
    *pairs, (name, cells) = rows
    lines = [[name, *cells] for name, cells in [*pairs, (f"*{name}*", cells)]]
    return [_row(headings), "|---" * len(headings) + "|", *map(_row, lines)]


def _row(cells: list[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def cell(row: dict[str, Any]) -> str:
    """The four metrics in a cell of the grid."""
    names = (("bits_per_byte", ".2f"), ("distinct_2", ".2f"), ("known_words", ".0%"), ("longest_copy", ".0f"))
    return " · ".join(format_number(row.get(name), spec) for name, spec in names)


def format_number(value: float | None, spec: str) -> str:
    """A number in Python's format `spec`; – for None."""
    return "–" if value is None else format(value, spec)


def _inline(text: str) -> str:
    """A passage as inline code: white space collapsed, the middle of a long one left out."""
    text = " ".join(text.split())
    if len(text) > SHOWN:
        text = f"{text[: SHOWN // 2].rstrip()} … {text[-SHOWN // 2 :].lstrip()}"
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence} {text} {fence}" if "`" in text else f"`{text}`"


def fenced(text: str, language: str = "text") -> list[str]:
    """A code block whose fence is longer than any run of backticks in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _settings_line(settings: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())

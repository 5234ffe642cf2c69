"""Samples: a continuation of every prompt, and a grid over temperature and top-p.

`collect` makes the records, one dictionary a sample, each with its seed, its settings, the hashes that trace it, and
what sample_metrics.py says of it; `beside` sets them beside the training text, `summary` sums up each pair of the grid,
and `as_markdown` lays all out for reading.
"""

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

from tinygpt.config import Sample
from tinygpt.data.corpus import Rows
from tinygpt.generation import sample_metrics
from tinygpt.generation.generate import Completion, generate_batch
from tinygpt.generation.sampling import Sampling
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

Record = dict[str, Any]
GRID_TOKENS = 60  # enough to hear the difference, short enough to compare
GRID_SAMPLES = 16  # at each pair; one is shown, all are measured: the numbers of a single one are mostly chance
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


def collect(model: GPT, tokenizer: Tokenizer, section: Sample, seed: int, hashes: dict[str, Any]) -> Iterator[Record]:
    """All samples of the section: `num_samples` of each prompt, then GRID_SAMPLES at each pair of the grid."""
    yield from continued(model, tokenizer, section, seed, hashes)
    plain, length = settings_of(section), min(GRID_TOKENS, section.max_new_tokens)
    seeds = [seed + i for i in range(GRID_SAMPLES)]
    pairs = [(temperature, top_p) for temperature in section.grid.temperature for top_p in section.grid.top_p]
    for temperature, top_p in pairs:
        settings = replace(plain, temperature=temperature, top_p=top_p)
        prompts = [section.prompts[0]] * GRID_SAMPLES
        asked: Any = {"max_new_tokens": length, "seed": seeds, **asdict(settings)}
        for completion in generate_batch(model, tokenizer, prompts, **asked):
            yield record(completion, settings, length, hashes) | measured(model, tokenizer, completion) | {"grid": True}


def continued(model: GPT, tokenizer: Tokenizer, section: Sample, seed: int, hashes: dict[str, Any]) -> Iterator[Record]:
    """`num_samples` of each prompt."""
    plain, length = settings_of(section), section.max_new_tokens
    prompts = [prompt for prompt in section.prompts for _ in range(section.num_samples)]
    seeds = [seed + i for _ in section.prompts for i in range(section.num_samples)]
    asked: Any = {"max_new_tokens": length, "seed": seeds, **asdict(plain)}
    for completion in generate_batch(model, tokenizer, prompts, **asked):
        yield record(completion, plain, length, hashes) | measured(model, tokenizer, completion)


def real(model: GPT, tokenizer: Tokenizer, section: Sample, rows: Rows) -> list[Record]:
    """Passages of the held-out text, as many and as long as the samples of a pair of the grid, and their metrics."""
    passages = sample_metrics.held_out(rows, tokenizer, GRID_SAMPLES, min(GRID_TOKENS, section.max_new_tokens))
    return [{"completion": one.completion} | measured(model, tokenizer, one) for one in passages]


def measured(model: GPT, tokenizer: Tokenizer, completion: Completion) -> Record:
    """`metrics` of a sample, as far as it needs no other text."""
    return {"metrics": sample_metrics.of_model(model, tokenizer, completion)}


def beside(records: list[Record], rows: Rows, advance: Callable[[int], object] = lambda size: None) -> None:
    """Add the overlap of each record with the training text, which is read once, to its metrics."""
    found = sample_metrics.of_text([sample["completion"] for sample in records], rows, advance)
    for sample, more in zip(records, found, strict=True):
        sample["metrics"] |= more


def summary(records: list[Record], real: list[Record]) -> dict[str, Any]:
    """{"grid": [a row for each pair], "held_out": the same numbers of real text}: samples of one pair as one."""
    pairs: dict[tuple[float, float], list[Record]] = {}
    for sample in records:
        if "grid" in sample:
            pairs.setdefault((sample["settings"]["temperature"], sample["settings"]["top_p"]), []).append(sample)
    rows = [
        {"temperature": t, "top_p": p, "samples": len(group), **_together(group)} for (t, p), group in pairs.items()
    ]
    return {"grid": rows, "held_out": {"samples": len(real), **_together(real)}}


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows of the grid as tab-separated values, for `dvc plots`; what is not known is left blank."""
    names = list(rows[0]) if rows else ["temperature", "top_p"]
    lines = ["\t".join("" if row[name] is None else f"{row[name]:g}" for name in names) for row in rows]
    return "\n".join(["\t".join(names), *lines]) + "\n"


def _together(records: list[Record]) -> sample_metrics.Metrics:
    texts = [sample["completion"] for sample in records]
    return sample_metrics.together([sample["metrics"] for sample in records], texts)


def record(completion: Completion, settings: Sampling, max_new_tokens: int, hashes: dict[str, Any]) -> Record:
    """One sample as `tinygpt generate --json` prints it and samples.jsonl holds it."""
    return {
        "prompt": completion.prompt,
        "completion": completion.completion,
        "text": completion.text,
        "seed": completion.seed,
        "settings": asdict(settings) | {"max_new_tokens": max_new_tokens},
        "hashes": hashes,
    }


def as_markdown(records: list[Record], metrics: dict[str, Any], before: list[Record]) -> str:
    """The samples as Markdown; model text is in code blocks, so that it is never interpreted.

    metrics: what `summary` made. Of each pair of the grid the first sample is shown. before: what the model that it
    was fine-tuned from makes of the same prompts with the same seeds, if there is one.
    """
    plain = [sample for sample in records if "grid" not in sample]
    grid = [sample for sample in records if "grid" in sample]
    first, hashes = records[0], records[0]["hashes"]
    lines = [
        "# Samples",
        "",
        f"Model `{hashes['model'][:12]}`, tokenizer `{hashes['tokenizer'][:12]}`; {_shown(first['settings'])}.",
    ]
    lines.append("Each text begins with its prompt. samples.jsonl holds the settings and full hashes.")
    for sample, older in itertools.zip_longest(plain, before):
        lines += ["", f"## {' '.join(sample['prompt'].split()) or '(nothing)'} · seed {sample['seed']}", ""]
        if older:
            lines += ["Before fine-tuning:", "", *fenced(older["text"]), "", told(older["metrics"]), "", "After:", ""]
        lines += [*fenced(sample["text"]), "", told(sample["metrics"])]
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
        settings = sample["settings"]
        lines += [
            "",
            f"**temperature {settings['temperature']:g}, top-p {settings['top_p']:g}**",
            "",
            *fenced(sample["text"]),
        ]
    return "\n".join(lines) + "\n"


def told(metrics: sample_metrics.Metrics) -> str:
    """The metrics of a sample, in a line of Markdown."""
    distinct = " / ".join(number(metrics[f"distinct_{n}"], ".2f") for n in (1, 2, 3))
    bits, each = (number(metrics[f"bits_per_{unit}"], ".2f") for unit in ("byte", "token"))
    parts = [f"{bits} bits per byte ({each} a token)", f"distinct-1/2/3 {distinct}"]
    if "longest_copy" in metrics:
        parts.append(f"{number(metrics['known_words'], '.0%')} of its words known")
        copied = metrics["copied"]
        parts.append(f"longest copy {len(copied)} characters" + (f": {_inline(copied)}" if copied else ""))
    return " · ".join(parts)


def laid_out(metrics: dict[str, Any]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The grid as cells: (heads, rows of a name and its cells); down are temperatures, across top-p.

    The last row is of the held-out text, which has one cell. This is the one place that says where a number stands.
    """
    found = {(row["temperature"], row["top_p"]): four(row) for row in metrics["grid"]}
    across = list(dict.fromkeys(top_p for _, top_p in found))
    down = dict.fromkeys(temperature for temperature, _ in found)
    rows = [(f"{t:g}", [found.get((t, p), "–") for p in across]) for t in down]
    rows.append(("held-out text", [four(metrics["held_out"]), *[""] * (len(across) - 1)]))
    return ["temperature", *(f"top-p {p:g}" for p in across)], rows


def _table(metrics: dict[str, Any]) -> list[str]:
    """The grid in Markdown."""
    heads, rows = laid_out(metrics)
    *pairs, (name, cells) = rows
    lines = [[name, *cells] for name, cells in [*pairs, (f"*{name}*", cells)]]
    return [_row(heads), "|---" * len(heads) + "|", *map(_row, lines)]


def _row(cells: list[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def four(row: dict[str, Any]) -> str:
    """The numbers of a cell of the grid."""
    names = (("bits_per_byte", ".2f"), ("distinct_2", ".2f"), ("known_words", ".0%"), ("longest_copy", ".0f"))
    return " · ".join(number(row.get(name), form) for name, form in names)


def number(value: float | None, form: str) -> str:
    """A number for people; – for one that is not known."""
    return "–" if value is None else format(value, form)


def _inline(text: str) -> str:
    """A passage as code within a line: white space as one space, the middle left out where it is long."""
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


def _shown(settings: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())

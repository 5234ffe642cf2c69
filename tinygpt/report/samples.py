"""The report's samples with their metrics, and the table over temperature and top-p."""

import html
from collections.abc import Sequence
from typing import Any

from tinygpt.experiments.artifacts import Outputs
from tinygpt.generation import sample_metrics
from tinygpt.generation.samples import format_number, grid_table
from tinygpt.report import charts
from tinygpt.report.parts import section, table


def texts(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    """The samples of each prompt: all of a single run; of several the first, the others behind a click."""
    plain = [[sample for sample in each.samples if "grid" not in sample] for each in runs]
    parts = []
    for prompt in dict.fromkeys(sample["prompt"] for samples in plain for sample in samples):
        parts.append(f"<h3>{html.escape(' '.join(prompt.split()) or '(nothing)')}</h3>")
        columns = []
        for name, samples in zip(names, plain, strict=True):
            ours = [_sample(sample) for sample in samples if sample["prompt"] == prompt] or ["<p>not there</p>"]
            if len(runs) == 1:
                columns = [f"<div>{one}</div>" for one in ours]
                continue
            more = f"<details><summary>{len(ours) - 1} more</summary>{''.join(ours[1:])}</details>"
            columns.append(f"<div><b>{html.escape(name)}</b>{ours[0]}{more if ours[1:] else ''}</div>")
        parts.append(f'<div class="runs">{"".join(columns)}</div>')
    return section("samples", "Samples", parts)


def _sample(sample: dict[str, Any]) -> str:
    prompt, completion = html.escape(sample["prompt"]), html.escape(sample["completion"])
    text = f"<pre><b>{prompt}</b>{completion}</pre>"
    return text + (_metrics(sample["metrics"], sample["seed"]) if "metrics" in sample else "")


def _metrics(metrics: dict[str, Any], seed: int) -> str:
    distinct = " / ".join(format_number(metrics.get(f"distinct_{n}"), ".2f") for n in (1, 2, 3))
    parts = [
        f"seed {seed}",
        f"{format_number(metrics.get('bits_per_byte'), '.2f')} bits per byte",
        f"distinct-1/2/3 {distinct}",
    ]
    if "longest_copy" in metrics:
        parts.append(f"{format_number(metrics['known_words'], '.0%')} of its words known")
        copied = html.escape(" ".join(metrics["copied"].split()))
        parts.append(
            f"longest copy {metrics['longest_copy']} characters" + (f": <code>{copied}</code>" if copied else "")
        )
    return f'<p class="soft metrics">{" · ".join(parts)}</p>'


def grids(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    """For each run the table over temperature and top-p, the picture, and a sample of each pair."""
    columns = []
    for each, name in zip(runs, names, strict=True):
        if not each.sample_metrics.get("grid"):
            continue
        title = f"<h3>{html.escape(name)}</h3>" if len(runs) > 1 else ""
        pairs = {
            (s["settings"]["temperature"], s["settings"]["top_p"]): s for s in reversed(each.samples) if "grid" in s
        }
        shown = "".join(f"<h3>temperature {t:g}, top-p {p:g}</h3>{_sample(s)}" for (t, p), s in sorted(pairs.items()))
        more = f"<details><summary>a sample of each pair</summary>{shown}</details>"
        settings = table(*grid_table(each.sample_metrics))
        columns.append(f"<div>{title}{settings}{charts.temperatures(each, name)}{more}</div>")
    if not columns:
        return ""
    how = "".join(f"<li><b>{name}</b>: {html.escape(text)}</li>" for name, text in sample_metrics.MEANING.items())
    lead = "<p>In each cell bits per byte · distinct-2 · known words · copied; the last row is of real text.</p>"
    return section(
        "grid",
        "What temperature and top-p do",
        [lead, f'<div class="runs">{"".join(columns)}</div>', f"<ul>{how}</ul>"],
    )

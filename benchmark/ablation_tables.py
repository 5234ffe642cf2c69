"""Update the tables and the figure of docs/experiments.md from a results file.

A table is between `<!-- table: NAME -->` and `<!-- end -->`; the rest of the page is unchanged. The entries are defined
and trained in benchmark/ablations.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmark import scaling
from benchmark.common import ROOT
from tinygpt.bench import figures
from tinygpt.experiments.compare import Side, welch
from tinygpt.experiments.runs import Run
from tinygpt.files.text import write_text

if TYPE_CHECKING:
    from benchmark.ablations import Entry

PAGE, FIGURE = ROOT / "docs/experiments.md", ROOT / "docs/scaling.png"


def renew_page(entries: Sequence["Entry"], known: Sequence[Run], page: Path = PAGE, figure: Path = FIGURE) -> None:
    """Update every table of the page, and the figure; entries without runs are left out."""
    text = page.read_text(encoding="utf-8")
    text = renewed(text, "runs", run_counts(entries, known))
    groups = dict.fromkeys(entry.group for entry in entries if entry.group not in ("default", "scaling", "forecast"))
    for group in groups:
        default = [entry for entry in entries if entry.group == "default"]
        shown = default + [entry for entry in entries if entry.group == group]
        text = renewed(text, group, table(shown, known))
    sizes, last = ([(e, e.of(known)) for e in entries if e.group == group] for group in ("scaling", "forecast"))
    small, large = ([run for _, found in pairs for run in found] for pairs in (sizes, last))
    best = scaling.frontier(small)
    if len(best) > 3 and large:
        text = renewed(text, "scaling", sizes_table([*sizes, *last], best))
        text = renewed(text, "forecast", forecast_lines(best, large))
        figures.scaling(figure, points(sizes), points(last), scaling.law_of(best).loss)
    write_text(page, text)


def renewed(text: str, name: str, lines: Sequence[str]) -> str:
    """A page with one of its tables replaced. Raises ValueError if it lacks the table's markers."""
    start, end = f"<!-- table: {name} -->\n", "<!-- end -->"
    if text.count(start) != 1 or end not in text.partition(start)[2]:
        raise ValueError(f"The page has no place for the table {name}: write {start.strip()} and {end} on two lines.")
    pattern = re.escape(start) + "(.*?)" + re.escape(end)
    return re.sub(pattern, lambda _: start + "\n" + "\n".join(lines) + "\n\n" + end, text, flags=re.DOTALL)


def table(entries: Sequence["Entry"], known: Sequence[Run]) -> list[str]:
    """Best first: each entry compared with the default (the first entry), with Welch's test over seeds."""
    first = entries[0].of(known)
    rows = []
    for entry in entries:
        found = entry.of(known)
        if len(found) > 1:
            side = Side(entry.name, found)
            against = ["", "", ""] if entry is entries[0] else beside(first, found)
            flops = f"{found[0].flops / scaling.TERA:.2f}"
            cells = [entry.name, changes(entry), flops, f"{side.mean:.3f} ± {side.deviation:.3f}", len(found), *against]
            rows.append((side.mean, cells))
    head = ("name", "changed", "TFLOP", "bits per byte", "n", "against the default", "p", "beyond the seeds")
    return markdown(head, [row for _, row in sorted(rows, key=lambda row: row[0])])


def beside(default: Sequence[Run], found: Sequence[Run]) -> list[str]:
    """The difference to the default with its 95% interval, the p-value, and a verdict."""
    if len(default) < 2:
        return ["", "", ""]
    test = welch(*([run.bits_per_byte for run in sample] for sample in (default, found)))
    verdict = "yes" if test.p < 0.01 else "perhaps" if test.p < 0.05 else "no"
    return [f"{test.difference:+.3f} ({test.low:+.3f} to {test.high:+.3f})", f"{test.p:.2g}", verdict]


def changes(entry: "Entry") -> str:
    """What an entry sets, as values for -S."""
    return " ".join(f"`{key}={str(value).lower()}`" for key, value in entry.changes.items()) or "nothing"


def run_counts(entries: Sequence["Entry"], known: Sequence[Run]) -> list[str]:
    """The number of runs on the page, and the version of their code."""
    used = [run for entry in entries for run in entry.of(known)]
    codes = sorted({run.settings["code"] for run in used})
    wanted = sum(len(entry.seeds) for entry in entries)
    lines = [f"{len(used)} of {wanted} runs, of code {', '.join(f'`{code}`' for code in codes) or 'none yet'}."]
    if len(used) < wanted:
        lines.append(
            "**The plan has not been run to its end**: a table shows the rows that have; `make ablations` goes on."
        )
    if len(codes) > 1:
        lines.append("**Of more than one version of the code**: `make ablations` runs those of the older again.")
    return lines


def sizes_table(pairs: Sequence[tuple["Entry", list[Run]]], best: Sequence[Run]) -> list[str]:
    """The runs of the scaling study, by compute."""
    rows = []
    for entry, found in pairs:
        for run in found:
            flops = f"{run.flops / scaling.TERA:.3f}"
            ratio = f"{run.tokens / run.parameters:.1f}"
            role = "best" if run in best else "forecast" if entry.group == "forecast" else ""
            size = f"{run.settings['model.n_layer']} × {run.settings['model.n_embd']}"
            cells = [size, f"{run.parameters:,}", run.steps, flops, ratio, run.seed, f"{run.bits_per_byte:.3f}", role]
            rows.append((run.flops, cells))
    head = ("size", "parameters", "steps", "TFLOP", "tokens a parameter", "seed", "bits per byte", "of its budget")
    return markdown(head, [row for _, row in sorted(rows, key=lambda row: row[0])])


def forecast_lines(best: Sequence[Run], large: Sequence[Run]) -> list[str]:
    """The scaling law, its forecast for the larger size, and the measurement."""
    law, compute = scaling.law_of(best), large[0].flops / scaling.TERA
    whole, least, most = scaling.forecasts(best, compute)
    side = Side("", list(large))
    measured = f"{side.mean:.3f}" + (f" ± {side.deviation:.3f}" if side.deviation is not None else "")
    return [
        "![Loss against compute, the law, and its forecast](scaling.png)",
        "",
        f"L = {law.floor:.2f} + {law.factor:.2f} · C^−{law.exponent:.2f}, from {len(best)} budgets of "
        f"{best[0].flops / scaling.TERA:.2f} to {best[-1].flops / scaling.TERA:.2f} TFLOP.",
        "",
        *markdown(
            ("at TFLOP", "the law says", "with any one budget left out", "measured", "n"),
            [[f"{compute:.2f}", f"{whole:.3f}", f"{least:.3f} to {most:.3f}", measured, len(large)]],
        ),
    ]


def points(pairs: Sequence[tuple["Entry", list[Run]]]) -> dict[str, list[tuple[float, float]]]:
    """Size → its (TFLOP, bits per byte), by increasing budget."""
    found: dict[str, list[tuple[float, float]]] = {}
    for _, runs in pairs:
        for run in runs:
            size = f"{run.settings['model.n_layer']} × {run.settings['model.n_embd']}"
            found.setdefault(size, []).append((run.flops / scaling.TERA, run.bits_per_byte))
    return {size: sorted(curve) for size, curve in found.items()}


def markdown(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines]

"""The report on a run, or of several side by side: `write(file, [gather(run), …], comparisons)`.

A single HTML file without scripts that needs nothing else: pictures are inside it, so it opens offline, can be mailed
and printed, and follows the reader's light or dark setting. Its look is report.html, its pictures are charts.py's,
its samples samples.py's. Everything that a run wrote is escaped.
"""

import contextlib
import html
import itertools
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from tinygpt.experiments import compare
from tinygpt.experiments.artifacts import Outputs, gather
from tinygpt.experiments.compare import Comparison
from tinygpt.experiments.runs import commit_here, distinct
from tinygpt.files.text import write_text
from tinygpt.plots.style import LABELS
from tinygpt.report import charts, samples
from tinygpt.report.parts import section, table

BASELINES = {
    "uniform": "every byte value that occurs, equally likely",
    "unigram": "how often each byte occurs",
    "bigram": "given the byte before",
    "five_gram": "given the four before, smoothed",
    "bz2": "what the held-out text adds to the archive",
    "xz": "what the held-out text adds to the archive",
    "ppmd": "likewise, and it goes on learning as it reads",
}
PLACES = {  # of sections, and what the links at the top call them
    "baselines": "How good",
    "curves": "Curves",
    "settings": "Settings",
    "samples": "Samples",
    "grid": "Temperature",
    "lineage": "Lineage",
    "inside": "Inside",
}
MOST = 8  # runs in a report
FEW = 4  # runs from which on a report is about all of them: less is said of each, and tables need its whole width


def write(
    file: Path, runs: Sequence[Outputs], comparisons: Sequence[Comparison] = (), notes: Sequence[str] = ()
) -> None:
    """Write the report on one or more runs, with the verdict of a comparison of them, and sentences to go before."""
    names = labels(runs)
    parts = [
        _goodness(runs, names),
        section("curves", "How it learned", charts.curves_of(runs, names)),
        _settings(runs, names),
        samples.texts(runs, names),
        samples.grids(runs, names),
        _lineage(runs, names),
        _inside(runs),
    ]
    links = (f'<a href="#{at}">{text}</a>' for at, text in PLACES.items() if any(f'id="{at}"' in p for p in parts))
    body = [_head(runs, names, comparisons, notes), f"<nav>{''.join(links)}</nav>", *filter(None, parts)]
    template = Template(resources.files("tinygpt.report").joinpath("report.html").read_text(encoding="utf-8"))
    title = html.escape(f"TinyGPT: {', '.join(names)}")
    write_text(file, template.substitute(title=title, body="\n".join(body)))


def make(
    file: Path, sets: Sequence[str], results: Path | None, allowed: Sequence[str], say: Callable[[str], object]
) -> None:
    """Find the runs of the sets, as experiments/compare.py names them, write their report, and say where it is.

    Of two sets the report holds the verdict, too, or why there is none. ValueError, in a sentence, where a set is
    empty.
    """
    members = [compare.members(name, results) for name in sets]
    notes: list[str] = []
    comparisons: list[Comparison] = []
    if len(sets) == 2:
        try:
            comparisons = compare.compare(sets[0], sets[1], results, allowed)
            members = [comparisons[0].a.runs, comparisons[0].b.runs]
        except ValueError as problem:
            notes.append(f"No verdict: {problem}")
    found = distinct([run for turn in itertools.zip_longest(*members) for run in turn if run is not None])
    if len(found) > MOST:
        counted = "; the verdict counts them" if comparisons else ""
        notes.append(f"More runs than have a place in the report: {len(found) - MOST} are left out{counted}.")
    for line in [*notes, *compare.report(comparisons)]:
        say(line)
    write(file, [gather(run) for run in found[:MOST]], comparisons, notes)
    say(f"{file}: {file.stat().st_size / 1e6:.1f} MB, opens in a browser, offline")


def labels(runs: Sequence[Outputs]) -> list[str]:
    """What the report calls each run: its name; a number behind it where several have the same."""
    plain = ["this folder" if each.run.name == "." else each.run.name for each in runs]
    return [name if plain.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(plain, 1)]


def _head(
    runs: Sequence[Outputs], names: Sequence[str], comparisons: Sequence[Comparison], notes: Sequence[str]
) -> str:
    title = " beside ".join(names) if len(runs) < FEW else f"{len(runs)} runs"
    lines = [f"<h1>TinyGPT: {html.escape(title)}</h1>"]
    for each, name in zip(runs, names, strict=True) if len(runs) < FEW else ():
        before = f"<b>{html.escape(name)}</b>: " if len(runs) > 1 else ""
        lines.append(f'<p class="lead">{before}{html.escape(_verdict(each))}</p>')
    lines += [f'<p class="soft">{html.escape(note)}</p>' for note in notes]
    if comparisons:
        told = html.escape("\n".join(compare.report(comparisons)))
        lines.append(f'<div class="verdict" id="verdict"><pre>{told}</pre></div>')
    lacking: dict[str, list[str]] = {}
    for each, name in zip(runs, names, strict=True):
        if each.missing:
            lacking.setdefault(f"the report lacks {', '.join(each.missing)}: {each.hint}.", []).append(name)
    for text, ours in lacking.items():
        of = html.escape(f"Of {', '.join(ours)} {text}")
        lines.append(f'<p class="soft missing">{of}</p>')
    return "\n".join(lines)


def _verdict(each: Outputs) -> str:
    from tinygpt.evaluation.metrics import verdict

    if each.evaluation:
        return verdict(each.evaluation, None)
    return f"{each.run.bits_per_byte:.3f} bits per byte."


def _goodness(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    """The metrics, and all runs among the baselines of the same text."""
    baselines = charts.marks_of(runs)
    rows = [(label, [_number(each, key, form) for each in runs]) for label, key, form in charts.METRICS]
    rows.append(("seconds of training, on this machine", [_seconds(each) for each in runs]))
    side_by_side = "runs" if len(runs) < FEW else "stack"
    parts = [f'<div class="{side_by_side}"><div>{table(["", *names], rows)}{charts.bars(runs, names)}']
    if baselines:
        ours = [(each.run.bits_per_byte, name, "") for each, name in zip(runs, names, strict=True)]
        theirs = [(value, LABELS.get(name, name), BASELINES.get(name, "")) for name, value in baselines.items()]
        lines = [
            f"<tr{' class=ours' if (value, name, what) in ours else ''}>"
            f"<td>{html.escape(name)}<br><span class=soft>{what}</span></td><td>{value:.3f}</td></tr>"
            for value, name, what in sorted([*ours, *theirs], reverse=True)
        ]
        head = "<thead><tr><th>beside baselines</th><th>bits per byte</th></tr></thead>"
        parts.append(f"</div><div><table>{head}<tbody>{''.join(lines)}</tbody></table>")
    elif len(runs) > 1:
        parts.append("<p>No baselines: the runs were measured on different texts, or theirs is not known.</p>")
    parts.append("</div></div>")
    return section("baselines", "How good it is", parts)


def _number(each: Outputs, key: str, form: str) -> str:
    value = {**each.evaluation, **each.training, **vars(each.run), "tflop": each.run.flops / 1e12}.get(key)
    if value is None:
        return "–"
    error = each.evaluation.get("bits_per_byte_standard_error") if key == "bits_per_byte" else None
    return format(value, form) + ("" if error is None else f" ± {error:.3f}")


def _seconds(each: Outputs) -> str:
    return f"{max(each.seconds.values()):.0f}" if each.seconds else "not kept"


def _settings(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    apart = compare.differing([each.run for each in runs])
    values = [{"seed": each.run.seed} | each.run.settings for each in runs]
    keys = list(dict.fromkeys(itertools.chain.from_iterable(values)))
    seeds = len({each.run.seed for each in runs}) > 1
    marked = {*apart, *(["seed"] if seeds else [])}
    rows = [(key, [str(one.get(key, "–")) for one in values]) for key in keys]
    whole = table(["", *names], rows, marked)
    if len(runs) == 1:
        return section("settings", "Settings", [f"<details><summary>all {len(rows)}</summary>{whole}</details>"])
    differing = [row for row in rows if row[0] in marked]
    first = table(["", *names], differing, marked) if differing else "<p>These runs have the same settings.</p>"
    return section("settings", "Settings that differ", [first, f"<details><summary>all</summary>{whole}</details>"])


def _lineage(runs: Sequence[Outputs], names: Sequence[str]) -> str:
    """What each run comes from: text → tokenizer → model → samples, by hash; those that differ are marked."""
    found = [_hashes(each) for each in runs]
    marked = {key for key in found[0] if len({one[key] for one in found}) > 1}
    short = [(key, [one[key][:16] or "not known" for one in found]) for key in found[0]]
    lead = (
        "<p>SHA-256, the first 16 digits; equal ones are the same bytes. <code>tinygpt info</code> follows them to the "
        "files.</p>"
    )
    return section(
        "lineage",
        "Where it comes from: text → tokenizer → model → samples",
        [lead, table(["", *names], short, marked)],
    )


def _hashes(each: Outputs) -> dict[str, str]:
    text = each.lineage.get("text", {})
    writers = {sample["hashes"]["model"] for sample in each.samples}
    return {
        "git commit": each.run.commit or (_commit_here() if each.run.name == "." else ""),
        "code (of training and evaluation)": str(each.run.settings.get("code", "")),
        "training text": text.get("train", ""),
        "held-out text": text.get("validation", ""),
        "tokenizer": each.lineage.get("tokenizer", ""),
        "parameters": each.lineage.get("params", ""),
        "model": each.weights,
        "samples were written by model": " ".join(sorted(writers)),
    }


def _commit_here() -> str:
    """The current commit; "" where there is none, as in an unpacked folder of results."""
    with contextlib.suppress(OSError):
        return commit_here()
    return ""


def _inside(runs: Sequence[Outputs]) -> str:
    if len(runs) > 1:
        alone = "The report on a single run (<code>tinygpt compare --html FILE RUN</code>) also shows its inside."
        return f'<p class="soft">{alone}</p>'
    return section("inside", "Inside the model", charts.pictures(runs[0]))

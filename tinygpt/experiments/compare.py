"""Do two sets of runs differ beyond their seeds? `for found in compare(a, b, runs): found.verdict`.

A set is given by settings (`train.optimizer=muon`), or by comma-separated names of DVC experiments, git revisions,
folders or rows of a results file. Bits per byte vary with the seed; Welch's t-test says whether two settings differ by
more than that. Both sets must be equal in everything but the seed and the compared setting; any other difference
raises ValueError unless it is allowed.
"""

import fnmatch
import json
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.evaluation.tasks.table import aligned, label
from tinygpt.experiments import runs
from tinygpt.experiments.runs import Run

ALPHA = 0.05  # significance level: one comparison of equal settings in twenty has a lower p


@dataclass(frozen=True)
class Welch:
    """Welch's t-test (1947): do two means differ, where the variances may differ?"""

    difference: float  # second mean minus first
    low: float  # 95% interval of the difference
    high: float
    p: float  # probability of a difference at least as large, if the means were equal


@dataclass(frozen=True)
class Side:
    """One of the two sets."""

    name: str
    runs: list[Run]

    @property
    def bits(self) -> list[float]:
        return [run.bits_per_byte for run in self.runs]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.bits)

    @property
    def deviation(self) -> float | None:
        """The sample's standard deviation; None for a single run."""
        return statistics.stdev(self.bits) if len(self.bits) > 1 else None


@dataclass(frozen=True)
class Comparison:
    """Two sets of runs; within a set, only the seed differs."""

    a: Side
    b: Side
    differing: dict[str, tuple[Any, Any]]  # setting → (value in a, value in b)
    welch: Welch | None  # None if a set has fewer than two runs

    @property
    def verdict(self) -> str:
        """One sentence."""
        if self.welch is None:
            return "Too few runs: a spread needs at least two of each, with different seeds (-S seed=1,2,3)."
        if self.welch.p >= ALPHA:
            return "These seeds cannot tell them apart."
        better = "A" if self.welch.difference > 0 else "B"
        return f"They differ beyond their seeds: {better} is better."


def compare(a: str, b: str, results: Path | None, allowed: Sequence[str] = ()) -> list[Comparison]:
    """Compare two sets; returns several comparisons if settings match several groups of runs.

    results: a results file, read if it exists. allowed: further settings that may differ. Raises ValueError for a set
    that is empty or mixed, and for sets that differ in anything else.
    """
    if ("=" in a) != ("=" in b):
        raise ValueError("Name both sets by settings (key=value), or both by names.")
    rows = runs.of_results(results) if results is not None and results.is_file() else []
    if "=" in a:
        return by_settings(a, b, runs.distinct([*rows, *runs.of_experiments(), *_workspace()]), allowed)
    first, second = (Side(name, runs.distinct(named(name, rows))) for name in (a, b))
    return [pair(first, second, allowed)]


def members(name: str, results: Path | None) -> list[Run]:
    """The distinct runs of one set: all known runs with its settings, or the runs with its names."""
    rows = runs.of_results(results) if results is not None and results.is_file() else []
    if "=" not in name:
        return runs.distinct(named(name, rows))
    known = runs.distinct([*_workspace(), *runs.of_experiments(), *rows])
    keys = sorted({key for run in known for key in run.settings})
    wanted = {_full_key(key, keys): value for key, value in runs.parse(name).items()}
    found = [run for run in known if all(run.settings.get(key) == value for key, value in wanted.items())]
    if not found:
        raise ValueError(f"No known run has {name}.")
    return found


def by_settings(a: str, b: str, known: list[Run], allowed: Sequence[str] = ()) -> list[Comparison]:
    """Compare the known runs with a's settings to those with b's, in groups that are equal in everything else.

    Groups with the most runs come first; groups with runs of one side only are left out.
    """
    keys = sorted({key for run in known for key in run.settings})
    wanted = [{_full_key(key, keys): value for key, value in runs.parse(text).items()} for text in (a, b)]
    free = {*wanted[0], *wanted[1], *allowed}
    groups: dict[str, tuple[list[Run], list[Run]]] = {}
    for run in known:
        rest = json.dumps({k: v for k, v in run.settings.items() if k not in free}, sort_keys=True)
        for side, settings in enumerate(wanted):
            if all(key in run.settings and run.settings[key] == value for key, value in settings.items()):
                groups.setdefault(rest, ([], []))[side].append(run)
    both = [group for group in groups.values() if all(group)]
    if not both:
        whole = [" ".join(f"{key}={value}" for key, value in settings.items()) for settings in wanted]
        raise ValueError(_no_match(whole, list(groups.values()), free))
    both.sort(key=lambda group: -min(map(len, group)))
    return [pair(Side(a, first), Side(b, second), [*free]) for first, second in both]


def named(names: str, rows: list[Run]) -> list[Run]:
    """The runs with these comma-separated names.

    A name is a folder; a pattern (`*` matches any characters) of experiments or rows; or a git revision: the run
    committed there (`main:chat` is that of chat/), and the experiments based on it that differ only in the seed.
    """
    found: list[Run] = []
    for name in names.split(","):
        if not name.strip():
            raise ValueError(
                f"{names!r} holds an empty name; put one comma between names, and write . for this folder."
            )
        if Path(name).is_dir():
            found.append(runs.of_folder(Path(name)))
            continue
        matching = [run for run in rows if fnmatch.fnmatchcase(run.name, name)] or runs.of_experiments(name)
        if not matching:
            try:
                revision, _, pipeline = name.partition(":")
                first = runs.of_revision(revision, name, pipeline and f"{pipeline.rstrip('/')}/")
            except FileNotFoundError as problem:
                raise ValueError(f"{name!r} is not a folder, experiment or row of results, and {problem}") from None
            grown = runs.of_experiments(baseline=first.commit)
            matching = [first, *(run for run in grown if run.settings == first.settings)]
        found += matching
    return found


def pair(a: Side, b: Side, allowed: Sequence[str] = ()) -> Comparison:
    """Compare two sets. Raises ValueError if a set is mixed, or if the sets differ in more than is allowed.

    One setting may always differ: it is the compared one. More than one must be allowed by name.
    """
    for side in (a, b):
        mixed = differing(side.runs)
        if mixed:
            raise ValueError(f"The runs of {side.name} differ among themselves in {_listed(mixed)}. Choose one value.")
    apart = differing([a.runs[0], b.runs[0]])
    unasked = {key: values for key, values in apart.items() if key not in allowed}
    if unasked and len(apart) > 1:
        words = " ".join(f"--allow {key}" for key in unasked)
        raise ValueError(
            f"{a.name} and {b.name} differ in more than the seed and one setting: {_listed(apart)}. "
            f"Their effects cannot be separated; to compare anyway, add {words}."
        )
    if {run.identity for run in a.runs} & {run.identity for run in b.runs}:
        raise ValueError(f"{a.name} and {b.name} contain the same run.")
    test = welch(a.bits, b.bits) if min(len(a.runs), len(b.runs)) > 1 else None
    return Comparison(a, b, {key: (values[0], values[-1]) for key, values in apart.items()}, test)


def report(found: Sequence[Comparison]) -> Iterator[str]:
    """All comparisons as lines of text. Several get a heading each: the settings that tell their groups apart."""
    varying = differing([each.a.runs[0] for each in found])
    for number, each in enumerate(found):
        if len(found) > 1:
            settings = each.a.runs[0].settings
            where = ", ".join(f"{key}={settings.get(key)}" for key in varying if key not in each.differing)
            yield ("\n" if number else "") + f"Where {where}:"
        yield from summary(each)


def summary(found: Comparison) -> list[str]:
    """A comparison as lines of text."""
    width = max(len(found.a.name), len(found.b.name))
    lines = []
    for letter, side in (("A", found.a), ("B", found.b)):
        spread = "" if side.deviation is None else f" ± {side.deviation:.4f}"
        lines.append(f"{letter}  {side.name:{width}}  n = {len(side.runs)}  {side.mean:.4f}{spread} bits per byte")
    for key, (first, second) in found.differing.items():
        lines.append(f"differ in {key}: {first} | {second}")
    if found.welch is not None:
        test = found.welch
        interval = f"95% interval {test.low:+.4f} to {test.high:+.4f}"
        lines.append(f"B − A = {test.difference:+.4f}, {interval}, p = {test.p:.2g} (Welch's t-test)")
    return [*lines, found.verdict, *_task_table(found)]


def _task_table(found: Comparison) -> Iterator[str]:
    """The task scores that all runs have, with each set's spread over seeds and the interval of their difference."""
    sides = (found.a.runs, found.b.runs)
    names = [name for name in sides[0][0].tasks if all(name in run.tasks for runs in sides for run in runs)]
    if not names:
        return
    rows: list[tuple[str, ...]] = [("task, %", "A", "B", "B − A", "95% interval")]
    for name in names:
        a, b = ([100 * run.tasks[name] for run in runs] for runs in sides)
        test = welch(a, b) if min(len(a), len(b)) > 1 else None
        reach = f"{test.low:+.1f} to {test.high:+.1f}" if test else "–"
        rows.append((label(name), _spread(a), _spread(b), f"{statistics.fmean(b) - statistics.fmean(a):+.1f}", reach))
    yield from aligned(rows)


def _spread(values: list[float]) -> str:
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def differing(alike: Sequence[Run]) -> dict[str, list[Any]]:
    """Settings that differ between runs → their distinct values, in order; None for a missing one."""
    found: dict[str, list[Any]] = {}
    for key in sorted({key for run in alike for key in run.settings}):
        values: list[Any] = []
        for run in alike:
            if run.settings.get(key) not in values:
                values.append(run.settings.get(key))
        if len(values) > 1:
            found[key] = values
    return found


def welch(a: Sequence[float], b: Sequence[float]) -> Welch:
    """Welch's t-test on two samples, each of two values or more."""
    from scipy.stats import t as student  # late: it takes half a second to import

    difference = statistics.fmean(b) - statistics.fmean(a)
    parts = [statistics.variance(sample) / len(sample) for sample in (a, b)]  # squared errors of the two means
    error = math.sqrt(sum(parts))
    if error == 0:  # no variance in either sample
        return Welch(difference, difference, difference, 0.0 if difference else 1.0)
    freedom = sum(parts) ** 2 / sum(part**2 / (len(s) - 1) for part, s in zip(parts, (a, b), strict=True))
    reach = error * float(student.isf(ALPHA / 2, freedom))
    p = 2 * float(student.sf(abs(difference / error), freedom))
    return Welch(difference, difference - reach, difference + reach, p)


def _full_key(key: str, keys: Sequence[str]) -> str:
    """`n_layer` → `model.n_layer`: the only key that ends like this. Raises ValueError for none or several."""
    ends = [name for name in keys if name == key or name.endswith(f".{key}")]
    if len(ends) != 1:
        raise ValueError(
            f"No known run has a setting {key!r}." if not ends else f"{key!r} is ambiguous: {' or '.join(ends)}."
        )
    return ends[0]


def _no_match(names: Sequence[str], groups: Sequence[tuple[list[Run], list[Run]]], free: Iterable[str]) -> str:
    sides = [[run for group in groups for run in group[side]] for side in (0, 1)]
    for name, found in zip(names, sides, strict=True):
        if not found:
            command = f"dvc exp run --queue -S seed=1,2,3 -S {' -S '.join(name.split())}"
            return f"No known run has {name}. Queue some: {command}"
    gaps = [differing([first, second]) for first in sides[0] for second in sides[1]]
    nearest = min(({k: v for k, v in gap.items() if k not in free} for gap in gaps), key=len)
    more = _listed(nearest)
    return f"No runs of {names[0]} and {names[1]} are equal in everything else; the closest also differ in {more}."


def _listed(values: dict[str, list[Any]]) -> str:
    return ", ".join(f"{key} ({' | '.join(map(str, found))})" for key, found in values.items())


def _workspace() -> list[Run]:
    """The run in the current folder, if there is a complete one."""
    try:
        return [runs.of_folder(Path())]
    except (FileNotFoundError, ValueError):
        return []

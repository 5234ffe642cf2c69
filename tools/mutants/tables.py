"""Tables of mutants' outcomes: results.tsv with all of them, docs/mutants.md with counts and survivors.

mutator.py makes the mutants, __main__.py runs them.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.mutants.mutator import Mutant


@dataclass(frozen=True)
class Outcome:
    """The outcome of a mutant."""

    file: str
    mutant: Mutant
    result: str  # killed, timed out or survived
    by: str  # the test that failed, if any


def reasons(file: Path) -> dict[tuple[str, str], str]:
    """(file, name) of a mutant → why it need not be killed."""
    groups = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    return {
        (name, mutant): group["reason"]
        for name, some in groups.items()
        for group in some
        for mutant in group["mutants"]
    }


HEAD = ("file", "mutants", "killed", "timed out", "survived", "killed or timed out", "survived unexplained")


def counts(found: Sequence[Outcome], explained: dict[tuple[str, str], str]) -> list[list[Any]]:
    """How many mutants of each file were killed, and how many survived: a row a file."""
    table: list[list[Any]] = []
    for file in dict.fromkeys(one.file for one in found):
        here = [one for one in found if one.file == file]
        number = Counter(one.result for one in here)
        unexplained = sum(one.result == "survived" and key(one) not in explained for one in here)
        detected = f"{100 * (number['killed'] + number['timed out']) / len(here):.1f}%"
        table.append(
            [file, len(here), number["killed"], number["timed out"], number["survived"], detected, unexplained]
        )
    return table


def survivors(found: Sequence[Outcome], explained: dict[tuple[str, str], str]) -> list[tuple[str, str, int, str]]:
    """File, functions, number of mutants and reason: a row for each reason of a file."""
    grouped: dict[tuple[str, str], list[str]] = {}
    for one in found:
        if one.result == "survived":
            grouped.setdefault((one.file, explained.get(key(one), "")), []).append(one.mutant.where)
    return [
        (file.removeprefix("tinygpt/"), ", ".join(map(code, dict.fromkeys(where))), len(where), reason)
        for (file, reason), where in grouped.items()
    ]


def key(one: Outcome) -> tuple[str, str]:
    return one.file, one.mutant.name


def code(text: str) -> str:
    """A text as code in a table cell."""
    return f"`{text}`".replace("|", "\\|")


def line(one: Outcome) -> str:
    """A mutant's line in results.tsv: its outcome, the test that failed, its digest, and so on."""
    mutant = one.mutant
    cells = one.file, mutant.lines.start, mutant.where, mutant.kind, mutant.change, one.result, one.by, digest(mutant)
    return "\t".join(map(str, cells)) + "\n"


def digest(mutant: Mutant) -> str:
    return hashlib.sha256(mutant.source.encode()).hexdigest()[:12]


def rows(file: Path) -> list[list[str]]:
    """The rows of results.tsv; empty if there is no file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    return [line.split("\t") for line in lines]


def killed_before(file: Path) -> dict[str, tuple[str, str]]:
    """Digest → result and test of the mutants in results.tsv that did not survive."""
    return {row[-1]: (row[5], row[6]) for row in rows(file) if row[5] != "survived"}


def update(page: Path, found: Sequence[Outcome], explained: dict[tuple[str, str], str]) -> None:
    """Update the tables of a page."""
    from benchmark.ablation_tables import markdown, renewed  # imports tinygpt, which must not be loaded before forking

    text = page.read_text(encoding="utf-8")
    text = renewed(text, "counts", markdown(HEAD, counts(found, explained)))
    head = ("file", "functions", "mutants", "why they may survive")
    text = renewed(text, "survivors", markdown(head, survivors(found, explained)))
    page.write_text(text, encoding="utf-8")

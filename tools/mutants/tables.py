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


def counts(found: Sequence[Outcome], explained: dict[tuple[str, str], str]) -> list[list[Any]]:
    """Counts by file and kind, one row each; the last row of a file is its total."""
    table: list[list[Any]] = []
    for file in dict.fromkeys(one.file for one in found):
        here = [one for one in found if one.file == file]
        kinds = sorted({one.mutant.kind for one in here})
        for kind in [*kinds, "all"]:
            some = [one for one in here if kind in (one.mutant.kind, "all")]
            number = Counter(one.result for one in some)
            dead = number["killed"] + number["timed out"]
            open_ = sum(one.result == "survived" and (file, one.mutant.name) not in explained for one in some)
            detected = f"{100 * dead / len(some):.1f}%"
            table.append(
                [file, kind, len(some), number["killed"], number["timed out"], number["survived"], detected, open_]
            )
    return table


HEAD = ("file", "kind", "mutants", "killed", "timed out", "survived", "killed or timed out", "survived unexplained")


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
    cells = [
        (
            one.file.removeprefix("tinygpt/"),
            code(one.mutant.where),
            code(one.mutant.change),
            explained.get(key(one), ""),
        )
        for one in found
        if one.result == "survived"
    ]
    text = renewed(text, "survivors", markdown(("file", "where", "change", "why"), cells))
    page.write_text(text, encoding="utf-8")

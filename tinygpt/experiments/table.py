"""All experiments in a table that fits a terminal: `table()`, or `tinygpt compare` without names.

`dvc exp show` has about two hundred columns; this table has bits per byte and the parameters that differ.
"""

import csv
import io
import subprocess
import sys

from tinygpt.config import Params
from tinygpt.experiments.runs import EVALUATION

SCORES = f"{EVALUATION}:"  # before a score, where more than one pipeline has run


def table() -> list[str]:
    """The lines of the table, from `dvc exp show --csv`. Raises ValueError with DVC's message if DVC fails."""
    done = subprocess.run([sys.executable, "-m", "dvc", "exp", "show", "--csv"], capture_output=True, check=False)
    if done.returncode != 0:
        raise ValueError(f"`dvc exp show` failed: {done.stderr.decode('utf-8', 'replace').strip()}")
    return lines(done.stdout.decode("utf-8"))


def lines(text: str) -> list[str]:
    """The lines of the table, from CSV text."""
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    kept = [column for column in rows[0] if _is_shown(column, {row[column] for row in rows} - {""})]
    heads = ["experiment", *(column.removeprefix("params.yaml:").replace(SCORES, "") for column in kept)]
    cells = [[row["Experiment"] or row["rev"], *(_cell(column, row[column]) for column in kept)] for row in rows]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in [heads, *cells]]


def _is_shown(column: str, values: set[str]) -> bool:
    """True for the state, bits per byte and parameters that differ. DVC writes `file:` before ambiguous names."""
    name = column.rpartition(":")[2]
    if name in ("State", "bits_per_byte"):
        return bool(values - {"!"})
    return name.partition(".")[0] in Params.model_fields and len(values) > 1


def _cell(column: str, value: str) -> str:
    if column.endswith("bits_per_byte") and value not in ("", "!"):
        return f"{float(value):.3f}"
    return value.replace("\n", "\\n") or "-"

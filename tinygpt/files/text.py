"""Text, JSON and .tsv files: written whole or not at all, read with errors that say what is wrong."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.files.atomic import writing
from tinygpt.files.paths import hidden

POINTERS = {  # how files begin that stand for others → what wrote them, and what brings the others
    b"version https://git-lfs.github.com/spec/": ("git-lfs", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get ."),
}
LARGEST_JSON = 2**28  # bytes; a tokenizer of a million entries, the most that params.yaml allows, takes less than half


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, whole or not at all."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write JSON, indented, keys in the order given, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON; ValueError in a sentence where it is not."""
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} is damaged: it is larger than {LARGEST_JSON:,} bytes.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        check_fetched(path)
        raise ValueError(f"{path} is damaged: it is not JSON ({problem}).") from problem


def check_fetched(path: Path) -> None:
    """ValueError, in a sentence, for what git-lfs or git-annex leaves in place of a file that was not fetched."""
    with path.open("rb") as file:
        beginning = file.read(64)
    program, command = next((told for start, told in POINTERS.items() if beginning.startswith(start)), ("", ""))
    if program and path.parent == hidden("downloads"):
        raise ValueError(
            f"What download.url gave is a pointer of {program}, not the file itself. Set download.url to the address "
            "of the site's download button, and download.sha256 to null."
        )
    if program:
        raise ValueError(
            f"{path} is a pointer of {program}, not the file itself. Run `{command}` in its repository, which fetches "
            "what it stands for."
        )


def lines(text: str) -> list[str]:
    """The lines of a text, cut at newlines alone; str.splitlines() also cuts at U+2028 and other signs."""
    return text.removesuffix("\n").split("\n") if text else []


def write_table(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write one row or more as a .tsv file with a line of names, each number to six digits, whole or not at all."""
    lines = ["\t".join(rows[0])]
    for row in rows:
        lines.append("\t".join(f"{value:.0f}" if key == "step" else f"{value:.6g}" for key, value in row.items()))
    write_text(path, "\n".join(lines) + "\n")


def read_table(path: Path) -> list[dict[str, float]]:
    """Read back a file that `write_table` wrote, a row a line; FileNotFoundError where there is none."""
    names, *rows = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(names.split("\t"), map(float, row.split("\t")), strict=True)) for row in rows]

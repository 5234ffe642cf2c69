"""Text, JSON and .tsv files: atomic writes, and reads with user-facing errors."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tinygpt.files.atomic import writing
from tinygpt.files.paths import hidden

POINTERS = {  # first bytes of a pointer file → the program that wrote it, and the command that fetches the content
    b"version https://git-lfs.github.com/spec/": ("git-lfs", "git lfs pull"),
    b"/annex/objects/": ("git-annex", "git annex get ."),
}
LARGEST_JSON = 2**28  # bytes; twice a tokenizer of a million entries, the most that params.yaml allows


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text with Unix line ends, atomically."""
    with writing(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON, keys in the order given, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Read JSON. Raises ValueError if the file is not JSON or larger than LARGEST_JSON."""
    if path.stat().st_size > LARGEST_JSON:
        raise ValueError(f"{path} is damaged: it is larger than {LARGEST_JSON:,} bytes.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as problem:
        check_fetched(path)
        raise ValueError(f"{path} is damaged: it is not JSON ({problem}).") from problem


def check_fetched(path: Path) -> None:
    """Raise ValueError if `path` is a git-lfs or git-annex pointer instead of the file itself."""
    with path.open("rb") as file:
        beginning = file.read(64)
    program, command = next((origin for start, origin in POINTERS.items() if beginning.startswith(start)), ("", ""))
    if program and path.parent == hidden("downloads"):
        raise ValueError(
            f"What download.url gave is a pointer of {program}, not the file itself. Set download.url to the address "
            "of the site's download button, and download.sha256 to null."
        )
    if program:
        raise ValueError(
            f"{path} is a pointer of {program}, not the file itself. Run `{command}` in its repository to fetch it."
        )


def lines(text: str) -> list[str]:
    """The lines of a text, split at \\n only; str.splitlines() also splits at U+2028 and other characters."""
    return text.removesuffix("\n").split("\n") if text else []


def write_table(path: Path, rows: Sequence[dict[str, float]]) -> None:
    """Write one or more rows as a .tsv file with a header, numbers to six significant digits, atomically."""
    lines = ["\t".join(rows[0])]
    for row in rows:
        lines.append("\t".join(f"{value:.0f}" if key == "step" else f"{value:.6g}" for key, value in row.items()))
    write_text(path, "\n".join(lines) + "\n")


def read_table(path: Path) -> list[dict[str, float]]:
    """Read the rows of a file that `write_table` wrote. Raises FileNotFoundError if there is none."""
    names, *rows = path.read_text(encoding="utf-8").splitlines()
    return [dict(zip(names.split("\t"), map(float, row.split("\t")), strict=True)) for row in rows]

"""SHA-256 of files and values, and SHA256SUMS of a folder, in the format of `sha256sum -c`.

`seal(folder)` writes the sums; `verify(folder)` checks them and names the first file that differs.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from tinygpt.files.text import check_fetched, write_text

SUMS = "SHA256SUMS"


def sha256(path: Path) -> str:
    """The SHA-256 of a file, as 64 hexadecimal digits; memory use is constant."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seal(folder: Path) -> None:
    """Write SHA256SUMS of every file in `folder`; `sha256sum -c SHA256SUMS` checks it without TinyGPT."""
    names = sorted(file.name for file in folder.iterdir() if file.name != SUMS)
    write_text(folder / SUMS, "".join(f"{sha256(folder / name)}  {name}\n" for name in names))


def read_sums(folder: Path) -> dict[str, str]:
    """File name → SHA-256, read from SHA256SUMS. Raises ValueError if the file is malformed."""
    text = (folder / SUMS).read_bytes().decode("utf-8", errors="replace")
    if not re.fullmatch(r"([0-9a-f]{64}  [^/\n]+\n)*", text):
        raise ValueError(f"{folder} is damaged: its {SUMS} is malformed.")
    return {line[66:]: line[:64] for line in text.split("\n")[:-1]}


def verify(folder: Path) -> None:
    """Check `folder` against its SHA256SUMS; raises ValueError for the first file that differs, is missing or extra."""
    sums = read_sums(folder)
    present = {file.name for file in folder.iterdir() if file.name != SUMS}
    for name in sorted(present | sums.keys()):
        if name not in present:
            raise ValueError(f"{folder} is damaged: {name} is missing.")
        if name not in sums:
            raise ValueError(f"{folder} is damaged: {name} is not in its {SUMS}.")
        if not (folder / name).is_file() or sha256(folder / name) != sums[name]:
            if (folder / name).is_file():
                check_fetched(folder / name)
            raise ValueError(f"{folder} is damaged: {name} does not match its {SUMS}.")


def digest(value: Any) -> str:
    """SHA-256 of a JSON value; the order of keys does not matter."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

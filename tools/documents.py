"""Test the commands in documents: run them and compare their output with the document.

    python -m tools.documents docs/lessons/*.md             # exit status 1, and the differences, if one differs
    python -m tools.documents --update docs/lessons/*.md    # replaces the output in the documents
    python -m tools.documents --root FOLDER docs/dvc.md     # runs them in FOLDER, a small copy (tests/project.py)

A fenced `console` block contains commands, each after `$ `, followed by their output (stdout and stderr). A command
continues on the next line while a quote is open. A comment just above the block sets the tolerance:

    (nothing)               every character must match
    <!-- within 2% -->      a number with a decimal point may differ by so much, and by one in its last digit
    <!-- shape only -->     there must be some output: for timings, and for generated text

Add `fails` (`<!-- fails -->`, `<!-- fails, within 2% -->`) to expect an exit status other than 0. Commands run in order
from the project's root, or from FOLDER, with `.venv/bin` first on PATH. Needs only Python.
"""

import argparse
import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tinygpt import console

ROOT = Path(__file__).resolve().parent.parent
MARK = re.compile(r"<!-- (?P<fails>fails(, )?)?(?P<kind>within (?P<percent>[\d.]+)%|shape only)? ?-->")
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[+-]?\d+)?")


@dataclass(frozen=True)
class Mark:
    """The tolerance of a block."""

    fails: bool = False
    shape_only: bool = False
    percent: float | None = None  # None: every character must match


@dataclass(frozen=True)
class Command:
    """A command of a document and its expected output."""

    line: int  # counted from 1
    text: str
    output: str


@dataclass(frozen=True)
class Block:
    """A block of commands: lines[start:end] of the document, without its fences."""

    start: int
    end: int
    mark: Mark
    commands: list[Command]


def blocks(text: str) -> Iterator[Block]:
    """All console blocks of a document. Raises ValueError, with the line, for a malformed one."""
    lines = text.splitlines()
    start = 0
    while "```console" in lines[start:]:
        start = lines.index("```console", start) + 1
        if "```" not in lines[start:]:
            raise ValueError(f"line {start}: this block has no end.")
        end = lines.index("```", start)
        yield Block(
            start, end, mark_of(lines[start - 2] if start > 1 else "", start), commands(lines[start:end], start)
        )
        start = end


def mark_of(line: str, number: int) -> Mark:
    """The tolerance in the line above a block. Raises ValueError for any other comment."""
    found = MARK.fullmatch(line.strip())
    if line.strip().startswith("<!--") and (found is None or not (found["fails"] or found["kind"])):
        raise ValueError(f"line {number - 1}: {line!r} is no mark; there are within N%, shape only and fails.")
    if found is None:
        return Mark()
    percent = float(found["percent"]) if found["percent"] else None
    return Mark(bool(found["fails"]), found["kind"] == "shape only", percent)


def commands(lines: list[str], before: int) -> list[Command]:
    """The commands between two fences; `before` is the number of lines above them."""
    found: list[Command] = []
    remaining = list(enumerate(lines, start=before + 1))
    while remaining:
        number, line = remaining.pop(0)
        if not line.startswith("$ "):
            raise ValueError(f"line {number}: {line!r} should be a command that begins with `$ `.")
        text = line[2:]
        while remaining and is_open(text):
            text += "\n" + remaining.pop(0)[1]
        output = []
        while remaining and not remaining[0][1].startswith("$ "):
            output.append(remaining.pop(0)[1])
        found.append(Command(number, text, "\n".join(output)))
    if not found:
        raise ValueError(f"line {before}: this block has no command.")
    return found


def is_open(command: str) -> bool:
    """Whether a shell would wait for more input: an open quote, or a backslash at the end."""
    try:
        shlex.split(command, comments=True)
    except ValueError:
        return True
    return False


def run(command: str, root: Path = ROOT) -> tuple[int, str]:
    """(exit status, output on both streams, without trailing white space)."""
    path = f"{ROOT / '.venv/bin'}{os.pathsep}{os.environ['PATH']}"
    # a fixed hash seed, because DVC prints sets
    changes = {"PATH": path, "PYTHONPATH": str(root), "COLUMNS": "100", "PYTHONUTF8": "1", "PYTHONHASHSEED": "0"}
    with tempfile.TemporaryFile() as out:  # not a pipe, which the workers of `dvc queue start` would keep open
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            cwd=root,
            env=os.environ | changes,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            check=False,
        )
        out.seek(0)
        printed = out.read().decode()
    return done.returncode, "\n".join(in_order([line.rstrip() for line in printed.strip("\n").splitlines()]))


def in_order(lines: list[str]) -> list[str]:
    """DVC's output with evaluate before sample: they are independent, so DVC may run either first."""
    kept = "Stage 'evaluate' didn't change, skipping"
    sample = next((number for number, line in enumerate(lines) if "tage 'sample'" in line), len(lines))
    if kept not in lines[sample:]:
        return lines
    place = lines.index(kept, sample)
    gap = place - 1 if not lines[place - 1] else place  # an empty line stands before it where sample ran
    return [*lines[:sample], kept, *lines[sample:gap], *lines[place + 1 :]]


def problem(mark: Mark, command: Command, status: int, printed: str) -> str | None:
    """What is wrong with what a command did, if anything."""
    if (status != 0) != mark.fails:
        return f"exit status {status}, where {'another than 0' if mark.fails else '0'} is meant:\n{printed}"
    if mark.shape_only:
        return None if printed else "it prints nothing."
    if mark.percent is None:
        return None if printed == command.output else difference(command.output, printed)
    old, new = spaced(NUMBER.sub("#", command.output)), spaced(NUMBER.sub("#", printed))
    pairs = zip(NUMBER.findall(command.output), NUMBER.findall(printed), strict=False)
    apart = [f"{one} is now {other}" for one, other in pairs if not near(one, other, mark.percent)]
    if old == new and not apart:
        return None
    return difference(command.output, printed) + "".join(f"\n{pair}: more than {mark.percent:g}%" for pair in apart)


def near(one: str, other: str, percent: float) -> bool:
    """Whether two printed numbers agree; integers must be equal."""
    if "." not in one or "." not in other:
        return one == other
    a, b = float(one.replace(",", "")), float(other.replace(",", ""))
    digit = max(last_digit(one), last_digit(other))
    return abs(a - b) <= percent / 100 * max(abs(a), abs(b)) + 1.001 * digit


def last_digit(number: str) -> float:
    """The value of one unit in the last digit of a printed number: 2.50 → 0.01, 2.5e-3 → 0.0001."""
    digits, _, exponent = number.partition("e")
    return 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))


def spaced(text: str) -> str:
    """The text with runs of spaces collapsed, so that a number may be one digit longer."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def difference(old: str, new: str) -> str:
    """A unified diff of the document's output and the new one."""
    lines = difflib.unified_diff(old.splitlines(), new.splitlines(), "in the document", "now", n=1, lineterm="")
    return "\n".join(lines)


def check(file: Path, root: Path = ROOT) -> list[str]:
    """Run all commands of a document; one paragraph per problem."""
    problems = []
    for block in blocks(file.read_text(encoding="utf-8")):
        for command in block.commands:
            found = problem(block.mark, command, *run(command.text, root))
            if found:
                problems.append(f"{file}:{command.line}: $ {command.text}\n{found}")
    return problems


def update(file: Path, root: Path = ROOT) -> list[str]:
    """Run all commands of a document and write their output into it; returns what went wrong, which leaves it alone."""
    lines, problems = file.read_text(encoding="utf-8").splitlines(), []
    updates = []
    for block in blocks("\n".join(lines)):
        now: list[str] = []
        for command in block.commands:
            status, printed = run(command.text, root)
            if (status != 0) != block.mark.fails:
                problems.append(f"{file}:{command.line}: $ {command.text}\nexit status {status}:\n{printed}")
            if any(line.startswith("```") for line in printed.splitlines()):
                problems.append(f"{file}:{command.line}: $ {command.text}\nits output would end the block:\n{printed}")
            now += [*f"$ {command.text}".split("\n"), *printed.splitlines()]
        updates.append((block, now))
    for block, now in reversed(updates):
        lines[block.start : block.end] = now
    text = "\n".join(lines) + "\n"
    list(blocks(text))  # raises ValueError if the output looks like a command
    if not problems:
        file.write_text(text, encoding="utf-8")
    return problems


def main() -> None:
    parser = argparse.ArgumentParser(description="Run the commands in documents and compare their output.")
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--update", action="store_true", help="write the output into the documents")
    parser.add_argument("--root", type=Path, default=ROOT, help="the copy of the project to run them in")
    options = parser.parse_args()
    problems = []
    for file in options.files:
        begin = time.perf_counter()
        problems += (update if options.update else check)(file, options.root.resolve())
        seconds = time.perf_counter() - begin
        print(f"{file}: {'updated' if options.update else 'checked'} in {seconds:.0f} s", flush=True)
    if problems:
        sys.exit("\n" + "\n\n".join(problems))


if __name__ == "__main__":
    with console.prepared():
        main()

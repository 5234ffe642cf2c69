"""Mutation tests: run the tests of the fast path on many slightly wrong versions of its files.

    python -m tools.mutants                          # the files of PINNED; exit status 1 if one survives unexplained
    python -m tools.mutants tinygpt/generation/sampling.py      # one of them
    python -m tools.mutants --update                 # the same, and updates the tables of docs/mutants.md

A mutant is killed if a test fails or times out, and survives if all pass. reasons.yaml explains survivors that change
no result. results.tsv records the outcomes: a killed mutant runs again only if its file has changed, so that an
interrupted run continues (delete the file to run all). mutator.py makes mutants, tables.py the tables. Mutants run in a
copy of the project, each in a process forked after PyTorch is loaded, with only the tests that run the changed line:
first those that killed most so far, then the fastest.

mutmut 3 skips decorated functions and deletes no statements; cosmic-ray starts Python for each mutant, which takes
seconds with PyTorch. Left out: slow tests that start processes of their own.
"""

import argparse
import contextlib
import gc
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import hypothesis
import pytest

from tinygpt import console
from tools.mutants.mutator import Mutant, mutants
from tools.mutants.tables import Outcome, counts, digest, key, killed_before, line, reasons, rows, update

ROOT = Path(__file__).resolve().parents[2]
PINNED = {
    "tinygpt/model/gpt.py": ["model/test_gpt", "scratch/test_model", "generation/test_decoder"],
    "tinygpt/model/kernels.py": ["model/test_kernels", "model/test_gpt", "scratch/test_model"],
    "tinygpt/generation/sampling.py": ["generation/test_sampling", "scratch/test_text", "generation/test_generate"],
}
Seen = dict[str, tuple[float, set[int]]]  # test → seconds, and the lines that it runs
PLAIN = [
    "-x",
    "-q",
    "--assert=plain",
    "-p",
    "no:cacheprovider",
    "-p",
    "no:faulthandler",
    "-p",
    "no:unraisableexception",
]


class Watch:
    """A pytest plugin that records the lines of a file that each test runs, including those of its fixtures."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: set[int] = set()
        self.tests: Seen = {}
        self.shared: dict[str, set[int]] = {}  # fixture → lines

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        self.lines, start = set(), time.perf_counter()
        sys.settrace(self.enter)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            lines = self.lines.union(*(self.shared.get(name, ()) for name in item.fixturenames))
            self.tests[item.nodeid] = time.perf_counter() - start, lines

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[None]:
        own = self.lines
        if fixturedef.scope != "function":
            self.lines = self.shared.setdefault(fixturedef.argname, set())
        try:
            return (yield)
        finally:
            self.lines = own

    def enter(self, frame: FrameType, _event: str, _value: Any) -> Any:
        return self.line if frame.f_code.co_filename == self.file else None

    def line(self, frame: FrameType, _event: str, _value: Any) -> Any:
        self.lines.add(frame.f_lineno)
        return self.line


class Choose:
    """A pytest plugin that runs the given tests in this order, and records the first that fails."""

    def __init__(self, tests: Sequence[str], note: Path) -> None:
        self.rank, self.note = {test: place for place, test in enumerate(tests)}, note

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items[:] = sorted((item for item in items if item.nodeid in self.rank), key=lambda item: self.rank[item.nodeid])

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            self.note.write_text(report.nodeid)


def forked(folder: Path, tests: Sequence[str], plugin: object, limit: float = 0) -> int:
    """Start pytest on files of a copy of the project in a forked process, killed after `limit` seconds."""
    process = os.fork()
    if process:
        return process
    try:
        signal.alarm(int(limit))  # no handler is installed
        os.chdir(folder)
        with (folder / "output").open("w") as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("tests", "tinygpt")]:
            del sys.modules[name]  # those of the copy are meant
        sys.path.insert(0, str(folder))
        code = int(pytest.main([*PLAIN, *tests], plugins=[plugin]))
        if isinstance(plugin, Watch):
            modules = [n for n, m in sys.modules.items() if str(folder) not in str(getattr(m, "__file__", None))]
            seen = {test: [seconds, sorted(lines)] for test, (seconds, lines) in plugin.tests.items()}
            (folder / "seen").write_text(json.dumps([seen, modules]))
        os._exit(code)
    finally:
        os._exit(70)  # an exception that pytest did not expect


def watched(folder: Path, file: str, tests: Sequence[str]) -> Seen:
    """Seconds and lines of each test on the unmutated file; also imports their modules, for the forked processes."""
    status = os.waitpid(forked(folder, tests, Watch(str(folder / file))), 0)[1]
    if status:
        sys.exit(f"The tests of {file} do not pass as it is:\n{(folder / 'output').read_text()}")
    seen, modules = json.loads((folder / "seen").read_text())
    if not any(lines for _, lines in seen.values()):
        sys.exit(f"None of its tests runs a line of {file}.")
    for name in modules:
        with contextlib.suppress(Exception):  # some cannot be imported on their own
            importlib.import_module(name)
    gc.freeze()  # forked processes need not scan these objects
    return {test: (seconds, set(lines)) for test, (seconds, lines) in seen.items()}


def without_results(folder: str, names: list[str]) -> set[str]:
    """What no copy needs: hidden files, compiled ones, and a pipeline's `data`."""
    pipeline = {"data"} if "params.yaml" in names else set[str]()
    return pipeline | {name for name in names if name.startswith(".") or name == "__pycache__"}


def outcomes(root: Path, file: str, made: list[Mutant], tests: Sequence[str], workers: int) -> Iterator[Outcome]:
    """Run mutants of a file, after the unmutated file."""
    with tempfile.TemporaryDirectory() as place:
        free = [Path(place, str(number)) for number in range(workers)]
        shutil.copytree(root, free[0], ignore=without_results)
        seen = watched(free[0], file, tests)
        for folder in free[1:]:
            shutil.copytree(free[0], folder)
        source = (free[0] / file).read_text(encoding="utf-8")
        kills: Counter[str] = Counter()
        waiting = [Mutant("", "none", "", range(0), source), *made]
        running: dict[int, tuple[Mutant, Path]] = {}
        while waiting or running:
            if waiting and free:
                mutant, folder = waiting.pop(0), free.pop()
                running[started(folder, file, mutant, seen, kills)] = mutant, folder
                continue
            process, status = os.wait()
            mutant, folder = running.pop(process)
            free.append(folder)
            late = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM
            kills[(folder / "first").read_text()] += 1
            if mutant.kind != "none":
                result = "timed out" if late else "killed" if status else "survived"
                yield Outcome(file, mutant, result, (folder / "first").read_text())
            elif status:
                sys.exit(f"The tests of {file}, the quickest first, do not pass:\n{(folder / 'output').read_text()}")


def started(folder: Path, file: str, mutant: Mutant, seen: Seen, kills: Counter[str]) -> int:
    """Start a mutant's tests: those that run its lines, or all if its lines run at import; returns the process id."""
    (folder / file).write_text(mutant.source, encoding="utf-8")
    for old in (folder / file).parent.glob(f"__pycache__/{Path(file).stem}.*"):
        old.unlink()  # otherwise Python would use the bytecode of another mutant of the same size and second
    (folder / "first").write_text("")
    reach = [test for test, (_, lines) in seen.items() if lines.intersection(mutant.lines)] or list(seen)
    order = sorted(reach, key=lambda test: (-kills[test], seen[test][0]))
    files = sorted({test.partition("::")[0] for test in order})
    return forked(folder, files, Choose(order, folder / "first"), 30 + 5 * sum(seen[test][0] for test in order))


def main() -> None:
    parser = argparse.ArgumentParser(description="Run mutation tests of the fast path.")
    parser.add_argument("files", nargs="*", default=[*PINNED], help="files to mutate; by default those of PINNED")
    parser.add_argument("--tests", nargs="+", help="test files, instead of those of PINNED")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's root; for tests of this tool")
    parser.add_argument("--workers", type=int, default=2, help="mutants in parallel")
    parser.add_argument("--update", action="store_true", help="update the tables of docs/mutants.md")
    options = parser.parse_args()
    sys.dont_write_bytecode = False  # compile unchanged modules once
    os.environ["OMP_NUM_THREADS"] = "1"  # before PyTorch is loaded: forking a process with threads is unsafe
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # loading them takes longer than most tests
    hypothesis.settings.register_profile("mutants", derandomize=True, database=None, deadline=None)
    hypothesis.settings.load_profile("mutants")
    results = options.root / "tools/mutants/results.tsv"
    explained, known, found = reasons(results.with_name("reasons.yaml")), killed_before(results), list[Outcome]()
    for file in options.files:
        made = mutants((options.root / file).read_text(encoding="utf-8"))
        found += [Outcome(file, one, *known[digest(one)]) for one in made if digest(one) in known]
        tests = options.tests or [f"tests/{name}.py" for name in PINNED[file]]
        waiting = [one for one in made if digest(one) not in known]
        for one in outcomes(options.root, file, waiting, tests, options.workers) if waiting else ():
            found.append(one)
            with results.open("a", encoding="utf-8") as output:
                output.write(line(one))
            if one.result == "survived":
                print(f"{file}:{one.mutant.lines.start} {one.mutant.kind}: {one.mutant.name}", end="   # ")
                print(explained.get(key(one), "unexplained"), flush=True)
    found.sort(key=lambda one: (one.file, one.mutant.lines.start))
    others = [row for row in rows(results) if row[0] not in options.files]
    results.write_text("".join(map(line, found)) + "".join("\t".join(row) + "\n" for row in others), encoding="utf-8")
    for row in counts(found, explained):
        print(*row, sep="\t")
    if options.update:
        update(ROOT / "docs/mutants.md", found, explained)
    survived = {key(one) for one in found if one.result == "survived"}
    killed = [f"{file}: {name}" for file, name in explained if file in options.files and (file, name) not in survived]
    if killed:
        sys.exit("\n".join(["In tools/mutants/reasons.yaml, but killed, or no longer made:", *killed]))
    if survived - explained.keys():
        sys.exit(
            "Some survived unexplained: write a test that fails on each, or the reason in tools/mutants/reasons.yaml."
        )


if __name__ == "__main__":
    with console.prepared():
        main()

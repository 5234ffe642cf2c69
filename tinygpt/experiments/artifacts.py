"""A run's artifacts, in a folder, git or DVC's cache: `gather(run)` reads curves, samples, figures and lineage.

A folder's are read as they are; those of a git revision or an experiment come from git and DVC's cache, and the
workspace stays as it is. What is not there is left empty, and said in a sentence. Left out: what it means
(report/build.py).
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tinygpt.experiments.runs import EVALUATION, LOCK, TRAINING, Run, check_names
from tinygpt.files.checksums import SUMS
from tinygpt.files.paths import Paths
from tinygpt.files.text import lines
from tinygpt.plots.curves import Rows
from tinygpt.training.results import seconds_of_curve

READERS = (
    FileNotFoundError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    yaml.YAMLError,
)  # what a missing or a damaged file raises
Reader = Callable[[str], bytes]


@dataclass
class Outputs:
    """A run with what it left."""

    run: Run
    evaluation: dict[str, Any] = field(default_factory=dict)  # metrics.json
    training: dict[str, Any] = field(default_factory=dict)  # metrics.json
    train: Rows = field(default_factory=list)
    validation: Rows = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)  # step → seconds, where this machine made the run
    samples: list[dict[str, Any]] = field(default_factory=list)
    sample_metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    weights: str = ""  # SHA-256
    pictures: dict[str, bytes] = field(default_factory=dict)  # name → PNG
    missing: list[str] = field(default_factory=list)  # what is not there
    hint: str = ""  # how to get it


def gather(run: Run) -> Outputs:
    """Read all that is there of a run."""
    found, paths = Outputs(run), Paths()
    read, names, found.hint = _reader(run)

    def take(path: str | Path, parse: Callable[[bytes], Any], empty: Any) -> Any:
        try:
            return parse(read(Path(path).as_posix()))
        except READERS:
            found.missing.append(Path(path).as_posix())
            return empty

    found.evaluation, found.training = (take(path, json.loads, {}) for path in (EVALUATION, TRAINING))
    check_names(found.evaluation, run.name)
    found.train, found.validation = (
        take(paths.training / f"{split}.tsv", _table, []) for split in ("train", "validation")
    )
    found.seconds = take(LOCK, _seconds, {})
    found.samples = take(paths.samples / "samples.jsonl", _lines, [])
    found.sample_metrics = take(paths.samples / "sample_metrics.json", _sample_metrics, {})
    found.lineage = take(paths.model / "lineage.json", json.loads, {})
    found.weights = take(paths.model / SUMS, _weights, "")
    if LOCK in found.missing:  # no commit of this repository
        found.hint = "only the numbers in the results file are known here"
    for folder in (paths.evaluation / "figures", paths.samples / "figures"):
        pictures = names(folder.as_posix())
        if not pictures:
            found.missing.append(folder.as_posix())
        found.pictures |= {Path(name).stem: take(name, _png, b"") for name in pictures}
    return found


def _reader(run: Run) -> tuple[Reader, Callable[[str], list[str]], str]:
    """How to read a file of a run, how to list a folder's pictures, and how to get what is not there."""
    folder = Path(run.name)
    if not run.commit and folder.is_dir():
        return (
            lambda path: (folder / path).read_bytes(),
            lambda path: sorted(file.relative_to(folder).as_posix() for file in (folder / path).glob("*.png")),
            "`dvc repro` in its folder makes it",
        )
    return _of_revision(run.commit)


def _of_revision(commit: str) -> tuple[Reader, Callable[[str], list[str]], str]:
    from dvc.api import DVCFileSystem

    hint = "it was not made then, or DVC's cache has lost it (`dvc pull` fetches it from a remote that has it)"
    try:
        if not commit:
            raise FileNotFoundError
        system = DVCFileSystem(rev=commit)
    except Exception:  # no repository, no such commit: DVC has an exception of its own for each
        return _nothing, lambda path: [], "it is not there"

    def read(path: str) -> bytes:
        try:
            data: bytes = system.read_bytes(path)
        except Exception as problem:  # from git, from the cache, from a remote that does not answer
            raise FileNotFoundError(path) from problem
        return data

    def names(path: str) -> list[str]:
        try:
            return sorted(name for name in system.ls(path, detail=False) if name.endswith(".png"))
        except Exception:
            return []

    return read, names, hint


def _nothing(path: str) -> bytes:
    raise FileNotFoundError(path)


def _seconds(lock: bytes) -> dict[int, float]:
    """The seconds of the run that a dvc.lock describes, found by the hash of its curve."""
    outs = yaml.safe_load(lock)["stages"]["train"]["outs"]
    curve = (Paths().training / "train.tsv").as_posix()
    return seconds_of_curve(next((out["md5"] for out in outs if out["path"] == curve), ""))


def _table(data: bytes) -> Rows:
    """A curve, as training/results.py wrote it."""
    names, *lines = data.decode().splitlines()
    return [dict(zip(names.split("\t"), map(float, line.split("\t")), strict=True)) for line in lines]


def _lines(data: bytes) -> list[dict[str, Any]]:
    """samples.jsonl; KeyError for a line without what a report shows."""
    samples = [json.loads(line) for line in lines(data.decode())]
    for sample in samples:
        str(sample["prompt"] + sample["completion"]), sample["seed"], sample["hashes"]["model"]
    return samples


def _sample_metrics(data: bytes) -> dict[str, Any]:
    """sample_metrics.json; KeyError for a row of the grid without its place."""
    metrics: dict[str, Any] = json.loads(data)
    for row in metrics["grid"]:
        row["temperature"], row["top_p"], metrics["held_out"]
    return metrics


def _weights(sums: bytes) -> str:
    return next((line[:64] for line in sums.decode().splitlines() if line.endswith("  model.safetensors")), "")


def _png(data: bytes) -> bytes:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("no PNG")
    return data

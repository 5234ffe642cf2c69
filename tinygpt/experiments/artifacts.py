"""A run's artifacts, in a folder, git or DVC's cache: `gather(run)` reads curves, samples, figures and lineage.

Artifacts of a git revision or an experiment come from git and DVC's cache; the workspace does not change. Missing
artifacts stay empty and are listed in `missing`.
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

UNREADABLE = (FileNotFoundError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError)  # missing or damaged
Reader = Callable[[str], bytes]


@dataclass
class Outputs:
    """A run with its artifacts."""

    run: Run
    evaluation: dict[str, Any] = field(default_factory=dict)  # metrics.json
    training: dict[str, Any] = field(default_factory=dict)  # metrics.json
    train: Rows = field(default_factory=list)
    validation: Rows = field(default_factory=list)
    seconds: dict[int, float] = field(default_factory=dict)  # step → seconds; empty if another machine trained the run
    samples: list[dict[str, Any]] = field(default_factory=list)
    sample_metrics: dict[str, Any] = field(default_factory=dict)
    lineage: dict[str, Any] = field(default_factory=dict)
    weights: str = ""  # SHA-256 of model.safetensors
    pictures: dict[str, bytes] = field(default_factory=dict)  # name → PNG
    missing: list[str] = field(default_factory=list)  # paths that could not be read
    hint: str = ""  # how to get them


def gather(run: Run) -> Outputs:
    """Read all artifacts of a run that exist."""
    found, paths = Outputs(run), Paths()
    read, names, found.hint = _reader(run)

    def take(path: str | Path, parse: Callable[[bytes], Any], empty: Any) -> Any:
        try:
            return parse(read(Path(path).as_posix()))
        except UNREADABLE:
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
    if LOCK in found.missing:  # neither a folder nor a commit of this repository
        found.hint = "only the numbers in the results file are known"
    for folder in (paths.evaluation / "figures", paths.samples / "figures"):
        pictures = names(folder.as_posix())
        if not pictures:
            found.missing.append(folder.as_posix())
        found.pictures |= {Path(name).stem: take(name, _png, b"") for name in pictures}
    return found


def _reader(run: Run) -> tuple[Reader, Callable[[str], list[str]], str]:
    """A function that reads a file, one that lists a folder's PNGs, and a hint how to get missing files."""
    folder = Path(run.name)
    if not run.commit and folder.is_dir():
        return (
            lambda path: (folder / path).read_bytes(),
            lambda path: sorted(file.relative_to(folder).as_posix() for file in (folder / path).glob("*.png")),
            "run `dvc repro` in its folder",
        )
    return _of_revision(run.commit, run.pipeline)


def _of_revision(commit: str, pipeline: str) -> tuple[Reader, Callable[[str], list[str]], str]:
    from dvc.api import DVCFileSystem

    hint = "the run did not make it, or DVC's cache has lost it (`dvc pull` fetches it from a remote)"
    if pipeline:
        hint = f"{pipeline}dvc.yaml keeps it only in the workspace, of the run that is there now"
    try:
        if not commit:
            raise FileNotFoundError
        system = DVCFileSystem(rev=commit)
    except Exception:  # no repository or no such commit: DVC raises various exceptions
        return _nothing, lambda path: [], ""

    def read(path: str) -> bytes:
        try:
            data: bytes = system.read_bytes(pipeline + path)
        except Exception as problem:  # git, the cache and remotes raise various ones
            raise FileNotFoundError(path) from problem
        return data

    def names(path: str) -> list[str]:
        try:
            found = system.ls(pipeline + path, detail=False)
            return sorted(name.removeprefix(pipeline) for name in found if name.endswith(".png"))
        except Exception:
            return []

    return read, names, hint


def _nothing(path: str) -> bytes:
    raise FileNotFoundError(path)


def _seconds(lock: bytes) -> dict[int, float]:
    """Step → seconds of the run that a dvc.lock describes, found by the hash of its training curve."""
    outs = yaml.safe_load(lock)["stages"]["train"]["outs"]
    curve = (Paths().training / "train.tsv").as_posix()
    return seconds_of_curve(next((out["md5"] for out in outs if out["path"].endswith(curve)), ""))


def _table(data: bytes) -> Rows:
    """A curve in the format of training/results.py."""
    names, *lines = data.decode().splitlines()
    return [dict(zip(names.split("\t"), map(float, line.split("\t")), strict=True)) for line in lines]


def _lines(data: bytes) -> list[dict[str, Any]]:
    """Parse samples.jsonl. Raises KeyError or TypeError for a line without the fields of a report."""
    samples = [json.loads(line) for line in lines(data.decode())]
    for sample in samples:
        str(sample["prompt"] + sample["completion"]), sample["seed"], sample["hashes"]["model"]
    return samples


def _sample_metrics(data: bytes) -> dict[str, Any]:
    """Parse sample_metrics.json. Raises KeyError for a row of the grid without its settings."""
    metrics: dict[str, Any] = json.loads(data)
    for row in metrics["grid"]:
        row["temperature"], row["top_p"], metrics["held_out"]
    return metrics


def _weights(sums: bytes) -> str:
    return next((line[:64] for line in sums.decode().splitlines() if line.endswith("  model.safetensors")), "")


def _png(data: bytes) -> bytes:
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("not a PNG")
    return data

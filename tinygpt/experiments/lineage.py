"""Lineage of a model or a sample: compare each recorded hash with the file that it should match.

`follow(folder, params, paths)` yields a `Link` for each hash. A model folder records its weights (SHA256SUMS),
tokenizer, text and parameters (lineage.json); dvc.lock records the model. A sample (a line of samples.jsonl) records
the same hashes as its model.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.checkpoints.model_folder import WEIGHTS, hashes
from tinygpt.config import Params
from tinygpt.experiments.runs import check_names
from tinygpt.files.checksums import digest, sha256
from tinygpt.files.paths import Paths, find_folder
from tinygpt.files.text import lines, read_json
from tinygpt.yaml_files import read_value


@dataclass(frozen=True)
class Link:
    """A recorded hash and the actual one."""

    what: str
    claimed: str  # hexadecimal
    where: Path
    found: str | None  # None if the file does not exist

    @property
    def verdict(self) -> str:
        """`the same`, `another`, or `not there`."""
        return "not there" if self.found is None else "the same" if self.found == self.claimed else "another"


def follow(model: Path, params: Params, paths: Paths) -> Iterator[Link]:
    """Every hash that a model folder records, compared with the pipeline at `paths`."""
    yield from follow_hashes(hashes(model), model, params, paths)
    base = read_json(model / "lineage.json").get("base")
    if base is not None:
        here = find_folder(base["init_from"])
        found = hashes(here)["model"] if here else None
        yield Link("base model", base["model"], here or Path(base["init_from"]), found)
    locked = locked_md5(paths)
    if locked is not None:
        yield Link("model in dvc.lock", locked, model, folder_md5(model))


def follow_hashes(claimed: dict[str, Any], model: Path, params: Params, paths: Paths) -> Iterator[Link]:
    """The same for the hashes of a sample (`claimed`) and a model folder."""
    yield _file("model", claimed["model"], model / WEIGHTS)
    yield _file("tokenizer", claimed["tokenizer"], paths.tokenizer / "tokenizer.json")
    for split, value in claimed["text"].items():
        yield _file(f"{split} text", value, paths.text(split))
    values = params.model_dump()
    now = digest({name: values[name] for name in ("seed", "model", "train")})
    if claimed["params"]:  # "" for a model that was not trained here
        yield Link("parameters", claimed["params"], paths.params, now)


def sample_hashes(file: Path) -> list[dict[str, Any]]:
    """The distinct sets of hashes in a samples.jsonl. Raises ValueError for any other file."""
    found: list[dict[str, Any]] = []
    for sample in _samples(file):
        if sample["hashes"] not in found:
            found.append(sample["hashes"])
    return found


def evaluation_of(model: Path, paths: Paths) -> dict[str, Any] | None:
    """The content of data/evaluation/metrics.json; None unless dvc.lock says that it is of this model folder."""
    file = paths.evaluation / "metrics.json"
    same = file.is_file() and locked_md5(paths, "evaluate", "deps") == folder_md5(model)
    numbers: dict[str, Any] | None = read_json(file) if same else None
    check_names(numbers or {}, str(paths.folder))
    return numbers


def sample_of(model: Path, paths: Paths) -> dict[str, Any] | None:
    """The first sample in data/samples/samples.jsonl that was written by this model folder; None without one."""
    file = paths.samples / "samples.jsonl"
    samples, named = _samples(file) if file.is_file() else [], hashes(model)
    return next((sample for sample in samples if sample["hashes"] == named), None)


def locked_md5(paths: Paths, stage: str = "train", side: str = "outs") -> str | None:
    """The MD5 of data/model in dvc.lock: as output of the train stage, or as dependency ("deps") of another."""
    lock = paths.folder / "dvc.lock"
    if not lock.is_file():
        return None
    names = ("data/model", f"{paths.folder.name}/data/model")  # the name in a pipeline in a subfolder
    try:
        entries = read_value(lock.read_text(encoding="utf-8")).get("stages", {}).get(stage, {}).get(side, [])
        return next((entry["md5"] for entry in entries if entry["path"] in names), None)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError):  # for example because of merge conflict markers
        raise ValueError(f"{lock} cannot be read. Finish the merge, or `git checkout HEAD -- {lock}`.") from None


def folder_md5(folder: Path) -> str:
    """DVC's MD5 of a folder: that of the JSON list of its files' MD5s, sorted by name."""
    entries = [
        {"md5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": file.name}
        for file in sorted(folder.iterdir())
    ]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _samples(file: Path) -> list[dict[str, Any]]:
    """The samples in a samples.jsonl. Raises ValueError for a line that is not a sample."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines(file.read_text(encoding="utf-8")), 1):
        try:
            sample = json.loads(line)
            named = sample["hashes"]
            str(named["model"] + named["tokenizer"] + named["params"]), dict(named["text"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}, line {number} is not a sample of TinyGPT.") from None
        found.append(sample)
    return found


def _file(what: str, claimed: str, path: Path) -> Link:
    return Link(what, claimed, path, sha256(path) if path.is_file() else None)

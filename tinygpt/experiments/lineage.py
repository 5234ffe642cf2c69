"""Lineage of a model or a sample: each hash that it names is compared with the file it should be the hash of.

`follow(folder, params, paths)` yields one `Link` for each: what it is, what was claimed, and what is there now. A model
names its weights (SHA256SUMS), tokenizer, text and parameters (lineage.json); dvc.lock names the model. A sample (a
line of samples.jsonl) names the same as its model does.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tinygpt.checkpoints.model_folder import WEIGHTS, hashes
from tinygpt.config import Params, read_value
from tinygpt.experiments.runs import check_names
from tinygpt.files.checksums import digest, sha256
from tinygpt.files.paths import Paths, find_folder
from tinygpt.files.text import lines, read_json


@dataclass(frozen=True)
class Link:
    """One hash, followed."""

    what: str
    claimed: str  # hexadecimal
    where: Path
    found: str | None  # None where nothing is there

    @property
    def verdict(self) -> str:
        """`the same`, `another`, or `not there`."""
        return "not there" if self.found is None else "the same" if self.found == self.claimed else "another"


def follow(model: Path, params: Params, paths: Paths) -> Iterator[Link]:
    """Every hash that a model folder names, and what the pipeline at `paths` holds now."""
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
    """The same for the hashes of a sample, or of a model folder (`model`)."""
    yield _file("model", claimed["model"], model / WEIGHTS)
    yield _file("tokenizer", claimed["tokenizer"], paths.tokenizer / "tokenizer.json")
    for split, value in claimed["text"].items():
        yield _file(f"{split} text", value, paths.text(split))
    values = params.model_dump()
    now = digest({name: values[name] for name in ("seed", "model", "train")})
    if claimed["params"]:  # a model from elsewhere names none
        yield Link("parameters", claimed["params"], paths.params, now)


def sample_hashes(file: Path) -> list[dict[str, Any]]:
    """The different sets of hashes that the lines of a samples.jsonl name. ValueError where it is not such a file."""
    found: list[dict[str, Any]] = []
    for sample in _samples(file):
        if sample["hashes"] not in found:
            found.append(sample["hashes"])
    return found


def evaluation_of(model: Path, paths: Paths) -> dict[str, Any] | None:
    """The numbers of data/evaluation/metrics.json, where dvc.lock says that they are of this model folder."""
    file = paths.evaluation / "metrics.json"
    same = file.is_file() and locked_md5(paths, "evaluate", "deps") == folder_md5(model)
    numbers: dict[str, Any] | None = read_json(file) if same else None
    check_names(numbers or {}, str(paths.folder))
    return numbers


def sample_of(model: Path, paths: Paths) -> dict[str, Any] | None:
    """The first line of data/samples/samples.jsonl that names this model folder's hashes."""
    file = paths.samples / "samples.jsonl"
    samples, named = _samples(file) if file.is_file() else [], hashes(model)
    return next((sample for sample in samples if sample["hashes"] == named), None)


def locked_md5(paths: Paths, stage: str = "train", side: str = "outs") -> str | None:
    """What dvc.lock says that data/model was when the train stage made it, or when another stage read it ("deps")."""
    lock = paths.folder / "dvc.lock"
    if not lock.is_file():
        return None
    names = ("data/model", f"{paths.folder.name}/data/model")  # as a pipeline in a folder below the top names it
    try:
        entries = read_value(lock.read_text(encoding="utf-8")).get("stages", {}).get(stage, {}).get(side, [])
        return next((entry["md5"] for entry in entries if entry["path"] in names), None)
    except (AttributeError, KeyError, TypeError, UnicodeDecodeError):  # as with the marks of a merge in it
        raise ValueError(f"{lock} cannot be read. Finish the merge, or `git checkout HEAD -- {lock}`.") from None


def folder_md5(folder: Path) -> str:
    """The MD5 that DVC gives a folder: of the JSON list of its files' MD5s, ordered by name."""
    entries = [
        {"md5": hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest(), "relpath": file.name}
        for file in sorted(folder.iterdir())
    ]
    listing = json.dumps(entries, sort_keys=True).encode()
    return hashlib.md5(listing, usedforsecurity=False).hexdigest() + ".dir"


def _samples(file: Path) -> list[dict[str, Any]]:
    """The lines of a samples.jsonl; ValueError names one that is no sample."""
    found: list[dict[str, Any]] = []
    for number, line in enumerate(lines(file.read_text(encoding="utf-8")), 1):
        try:
            sample = json.loads(line)
            named = sample["hashes"]
            str(named["model"] + named["tokenizer"] + named["params"]), dict(named["text"])
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{file}, line {number} is not a sample of TinyGPT's.") from None
        found.append(sample)
    return found


def _file(what: str, claimed: str, path: Path) -> Link:
    return Link(what, claimed, path, sha256(path) if path.is_file() else None)

"""The model registry: model folders below the current folder, and DVC experiments; a few are kept loaded.

`registry = ModelRegistry([Path("data/model")])`; `registry.find()` → the entries by name; `registry.load(name)` → the
model and its tokenizer. An experiment's model is copied from DVC's cache into `.tinygpt/experiments`, and the workspace
does not change. Only names of entries are accepted, so no name from outside becomes a path. Hub models are not offered.
"""

import contextlib
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tinygpt.checkpoints import hf_model, model_folder
from tinygpt.experiments import runs
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import digest
from tinygpt.files.paths import Paths, hidden
from tinygpt.model.gpt import GPT
from tinygpt.model.quantization import WeightType
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.web.example import example_text

MAX_DEPTH = 4  # folder levels below the current folder that are searched
MAX_ENTRIES = 50  # folders, and as many experiments
MAX_LOADED = 2  # models in memory
MAX_COPIES = 3  # experiments' models in .tinygpt/experiments
SEARCH_SECONDS = 10.0  # between two searches for models
SKIPPED = {"node_modules", "site-packages", "__pycache__"}  # beside folders whose names begin with a dot


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be loaded."""

    name: str  # shown in the model list
    folder: Path
    commit: str = ""  # of an experiment, whose model may still have to be copied to `folder`


@dataclass(frozen=True)
class LoadedModel:
    """A loaded model."""

    entry: ModelEntry
    model: GPT
    tokenizer: Tokenizer
    version: str  # changes when its files change
    example: str  # a text that suits it


class ModelRegistry:
    """The models that the page offers. Thread-safe."""

    def __init__(
        self, first: Sequence[Path] = (), device: torch.device | str = "cpu", weights: WeightType = "fp32"
    ) -> None:
        """first: folders to list first, anywhere on disk. FileNotFoundError if one holds no model, or none is found."""
        for folder in first:
            if not holds_model(folder):
                raise FileNotFoundError(
                    f"There is no model in {folder}. Name a folder with a config.json, or run `make`."
                )
        self.first, self.device, self.weights = list(first), device, weights
        self._loaded: OrderedDict[tuple[Path, tuple[int, ...]], LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._entries: dict[str, ModelEntry] = {}
        self._next_search = 0.0
        if not self.find():
            raise FileNotFoundError("There is no model below this folder. Run `make`, or name one with --model.")

    def find(self) -> dict[str, ModelEntry]:
        """The entries by name: the first folders, other folders, experiments. Searches every SEARCH_SECONDS at most."""
        if time.monotonic() < self._next_search:
            return self._entries
        folders = dict.fromkeys([*self.first, *find_folders(Path())])
        entries = {str(folder): ModelEntry(str(folder), folder) for folder in folders}
        for run in experiments():
            name = f"{run.name} (experiment, {run.bits_per_byte:.3f} bits per byte)"
            entries[name] = ModelEntry(name, hidden("experiments") / run.commit, run.commit)
        self._entries, self._next_search = entries, time.monotonic() + SEARCH_SECONDS
        return entries

    def entry(self, name: object) -> ModelEntry:
        """The entry of this name. ValueError, in a sentence, if there is none."""
        entry = self._entries.get(name) if isinstance(name, str) else None
        if entry is None:
            raise ValueError("There is no such model here. Choose one from the list.")
        return entry

    def load(self, name: object) -> LoadedModel:
        """Load a model by its name. ValueError, in a sentence, if there is none of that name or it is damaged."""
        entry = self.entry(name)
        with self._lock:
            if entry.commit and not holds_model(entry.folder):
                copy_experiment(entry.commit, entry.folder)
            modified = tuple(file.stat().st_mtime_ns for file in sorted(entry.folder.iterdir()))
            key = entry.folder, modified  # so that a retrained model is loaded again
            if key not in self._loaded:
                model, tokenizer = model_folder.load(entry.folder, self.device, self.weights)
                example = example_text(entry.folder, model, tokenizer)
                self._loaded[key] = LoadedModel(entry, model, tokenizer, digest(modified), example)
            self._loaded.move_to_end(key)
            while len(self._loaded) > MAX_LOADED:
                self._loaded.popitem(last=False)
            return self._loaded[key]


def holds_model(folder: Path) -> bool:
    """Whether a folder has a config and weights, in one file or sharded."""
    weights = (model_folder.WEIGHTS, hf_model.INDEX)
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in weights)


def find_folders(root: Path) -> list[Path]:
    """The model folders below a folder, the pipeline's own first."""
    return sorted(_walk(root), key=lambda folder: (folder != Paths(root).model, folder))[:MAX_ENTRIES]


def _walk(root: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(root):
        folder = Path(place)
        deepest = len(folder.relative_to(root).parts) >= MAX_DEPTH
        names[:] = [] if deepest else [name for name in names if name[0] != "." and name not in SKIPPED]
        if holds_model(folder):
            yield folder


def experiments() -> list[runs.Run]:
    """The newest DVC experiments whose model is in DVC's cache, newest first; [] without DVC or git.

    Experiments in finetune/ and chat/ are left out: their outputs are not cached.
    """
    found: list[runs.Run] = []
    try:
        refs = runs.experiment_refs()[-MAX_ENTRIES:]
    except OSError:  # git refuses a repository of another user
        return found
    for name, ref in refs:
        with contextlib.suppress(ValueError, OSError):  # unfinished
            if not runs.pipeline_of(ref):
                found.append(runs.of_revision(ref, name))
    return found[::-1]


def copy_experiment(commit: str, folder: Path) -> None:
    """Copy data/model of a commit from DVC's cache to `folder`; beside it, the MAX_COPIES - 1 newest copies stay.

    ValueError, in a sentence, if the cache no longer holds it.
    """
    from dvc.api import DVCFileSystem
    from dvc.exceptions import DvcException

    try:
        with writing(folder) as partial:
            DVCFileSystem(rev=commit).get(Paths().model.as_posix(), str(partial), recursive=True)
            if not holds_model(partial):
                raise FileNotFoundError(folder)
    except (DvcException, OSError) as problem:
        raise ValueError(
            f"The model of experiment {commit[:7]} is not in DVC's cache ({problem}). Run `dvc exp apply` and"
            " `dvc repro` to make it again."
        ) from problem
    copies = sorted(folder.parent.iterdir(), key=lambda copy: copy.stat().st_mtime)
    for old in [copy for copy in copies if copy != folder][: -(MAX_COPIES - 1)]:
        shutil.rmtree(old)

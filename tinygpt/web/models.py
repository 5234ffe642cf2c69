"""The model registry: folders below the current one and DVC experiments, a few loaded at a time.

`shelf = ModelRegistry([Path("data/model")])`, `shelf.find()` → what there is, by name, and `shelf.load(name)` → the
model and its tokenizer. An experiment's model comes out of DVC's cache into `.tinygpt/experiments`; the workspace stays
as it is. A name that is not on the shelf is refused, so no name from outside becomes a path. Left out: models of the
web.
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
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.web import example as web_example

DEEPEST = 4  # folders below the current one in which a model is looked for
MOST = 50  # folders, and as many experiments, that are offered
LOADED = 2  # models held in memory at a time
KEPT = 3  # models of experiments kept in .tinygpt/experiments
LASTS = 10.0  # seconds that what was found is taken for what there is
PASSED_BY = {"node_modules", "site-packages", "__pycache__"}  # and folders whose names begin with a dot


@dataclass(frozen=True)
class ModelEntry:
    """A model that can be opened."""

    name: str  # what people choose it by
    folder: Path
    commit: str = ""  # of an experiment, whose model is not in `folder` yet


@dataclass(frozen=True)
class LoadedModel:
    """A model that has been opened."""

    book: ModelEntry
    model: GPT
    tokenizer: Tokenizer
    version: str  # another one as soon as its files change
    example: str  # a passage that suits it


class ModelRegistry:
    """The models of this folder; safe to use from several threads."""

    def __init__(self, given: Sequence[Path] = (), device: torch.device | str = "cpu") -> None:
        """given: folders that come first, wherever they lie. FileNotFoundError where one holds no model."""
        for folder in given:
            if not holds_model(folder):
                raise FileNotFoundError(
                    f"There is no model in {folder}. Name a folder with a config.json, or run `make`."
                )
        self.given, self.device = list(given), device
        self._open: OrderedDict[tuple[Path, tuple[int, ...]], LoadedModel] = OrderedDict()
        self._lock = threading.Lock()
        self._books: dict[str, ModelEntry] = {}
        self._until = 0.0
        if not self.find():
            raise FileNotFoundError("There is no model below this folder. Run `make`, or name one with --model.")

    def find(self) -> dict[str, ModelEntry]:
        """What there is now, by name: folders given, folders found, experiments. Looks again after LASTS seconds."""
        if time.monotonic() < self._until:
            return self._books
        folders = dict.fromkeys([*self.given, *found_below(Path())])
        books = {str(folder): ModelEntry(str(folder), folder) for folder in folders}
        for run in experiments():
            name = f"{run.name} (experiment, {run.bits_per_byte:.3f} bits per byte)"
            books[name] = ModelEntry(name, hidden("experiments") / run.commit, run.commit)
        self._books, self._until = books, time.monotonic() + LASTS
        return books

    def book(self, name: object) -> ModelEntry:
        """The book of this name; ValueError, in a sentence, where there is none."""
        book = self._books.get(name) if isinstance(name, str) else None
        if book is None:
            raise ValueError("There is no such model here; choose one of the list.")
        return book

    def load(self, name: object) -> LoadedModel:
        """Open a model by its name; ValueError, in a sentence, where there is none of that name, or it is damaged."""
        book = self.book(name)
        with self._lock:
            if book.commit and not holds_model(book.folder):
                bring_out(book.commit, book.folder)
            changed = tuple(file.stat().st_mtime_ns for file in sorted(book.folder.iterdir()))
            key = book.folder, changed  # trained anew: opened anew
            if key not in self._open:
                loaded = model_folder.load(book.folder, self.device)
                self._open[key] = LoadedModel(book, *loaded, digest(changed), web_example.passage(book.folder, *loaded))
            self._open.move_to_end(key)
            while len(self._open) > LOADED:
                self._open.popitem(last=False)
            return self._open[key]


def holds_model(folder: Path) -> bool:
    weights = (model_folder.WEIGHTS, hf_model.INDEX)  # whole, or in several files
    return (folder / "config.json").is_file() and any((folder / name).is_file() for name in weights)


def found_below(root: Path) -> list[Path]:
    """The model folders below a folder, this pipeline's own first."""
    return sorted(_walk(root), key=lambda folder: (folder != Paths(root).model, folder))[:MOST]


def _walk(root: Path) -> Iterator[Path]:
    for place, names, _ in os.walk(root):
        folder = Path(place)
        deep = len(folder.relative_to(root).parts) >= DEEPEST
        names[:] = [] if deep else [name for name in names if name[0] != "." and name not in PASSED_BY]
        if holds_model(folder):
            yield folder


def experiments() -> list[runs.Run]:
    """The newest of DVC's experiments whose model DVC's cache keeps; none where DVC or git is not used.

    That leaves out those of finetune/, whose outputs are not cached.
    """
    found: list[runs.Run] = []
    try:
        refs = runs.experiment_refs()[-MOST:]
    except OSError:  # git refuses the repository: it is somebody else's
        return found
    for name, ref in refs:
        with contextlib.suppress(ValueError, OSError):  # unfinished
            if not runs.pipeline_of(ref):
                found.append(runs.of_revision(ref, name))
    return found[::-1]


def bring_out(commit: str, folder: Path) -> None:
    """Copy data/model of a commit out of DVC's cache into a folder of its own; older ones beside it go.

    ValueError, in a sentence, where the cache no longer holds it.
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
            f"The model of experiment {commit[:7]} is not in DVC's cache ({problem}). `dvc exp apply` and"
            " `dvc repro` make it anew."
        ) from problem
    others = sorted(folder.parent.iterdir(), key=lambda other: other.stat().st_mtime)
    for old in [other for other in others if other != folder][: -(KEPT - 1)]:
        shutil.rmtree(old)

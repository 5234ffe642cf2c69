"""The paths of a pipeline's files: `Paths(folder).model` and so on.

`hidden(name)` is a path in `.tinygpt`, which DVC and git ignore. `home()` and `find_folder(name)` find the repository
from a temporary copy of it.
"""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Paths:
    """The files of one pipeline: a folder with a dvc.yaml and a params.yaml."""

    folder: Path = Path()

    @property
    def params(self) -> Path:
        return self.folder / "params.yaml"

    @property
    def corpus(self) -> Path:
        return self.folder / "data/corpus"

    @property
    def baselines(self) -> Path:
        return self.corpus / "baselines.json"

    @property
    def tokenizer(self) -> Path:
        return self.folder / "data/tokenizer"

    @property
    def tokens(self) -> Path:
        return self.folder / "data/tokens"

    @property
    def model(self) -> Path:
        return self.folder / "data/model"

    @property
    def training(self) -> Path:
        return self.folder / "data/training"

    @property
    def evaluation(self) -> Path:
        return self.folder / "data/evaluation"

    @property
    def samples(self) -> Path:
        return self.folder / "data/samples"

    def text(self, split: str) -> Path:
        return self.corpus / f"{split}.parquet"

    def ids(self, split: str) -> Path:
        return self.tokens / f"{split}.npy"

    def mask(self, split: str) -> Path:
        """Which tokens count; only for conversations."""
        return self.tokens / f"{split}.mask.npy"


def home() -> Path:
    """The repository itself, even if DVC runs a stage in a temporary copy of it ($DVC_ROOT)."""
    return Path(os.environ.get("DVC_ROOT", "."))


def hidden(name: str) -> Path:
    """`.tinygpt/<name>` in the repository, ignored by DVC and git: downloads, runs in progress, the log."""
    return home() / ".tinygpt" / name


def find_folder(name: str) -> Path | None:
    """A folder of that name in the working directory, or else in the repository; None if neither exists."""
    return next((folder for folder in (Path(name), home() / name) if folder.is_dir()), None)

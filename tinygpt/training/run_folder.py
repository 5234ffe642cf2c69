"""A run in progress: a locked folder of saves, .tinygpt/runs/<fingerprint>, from which training resumes.

`fingerprint(lineage, machine)` is its name; `with RunFolder(folder, keep=2) as run`, then `run.latest()`,
`run.save(…)`, `run.finish()`. Damaged saves are skipped. Files are JSON or safetensors, so reading them executes no
code.
"""

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file
from torch import Tensor

from tinygpt.checkpoints.tensors import write_tensors
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import digest, seal, sha256, verify
from tinygpt.files.text import read_json, write_json


def fingerprint(lineage: dict[str, Any], machine: str) -> str:
    """The name of a run: a hash of everything that can change its result, 16 hexadecimal digits.

    It covers text, tokenizer and parameters (the lineage), the machine's description, the versions of PyTorch and NumPy
    (which shuffles the batches), and the source of every loaded module of tinygpt's subpackages. Modules at the top of
    the package (config, errors, …) only validate and print, so an edit there does not orphan an unfinished run.
    """
    loaded = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("tinygpt.")}
    code = {name: sha256(Path(file)) for name, file in loaded.items() if file and name.count(".") > 1}
    return digest([lineage, machine, torch.__version__, np.__version__, code])[:16]


class RunFolder:
    """A run in progress: `with RunFolder(folder, keep=2) as run`, then `run.latest()`, `run.save(...)`, `run.finish()`.

    The folder is locked during the block; ValueError if another process holds the lock. Without `finish` the folder
    stays, so that another process can resume.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.damaged: list[str] = []  # messages about saves that `latest` skipped
        self._lock = FileLock(folder.with_suffix(".lock"))

    def __enter__(self) -> "RunFolder":
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = self.folder / "holder.json"
            if not holder.is_file():  # the other process has just started or is about to finish
                raise ValueError("Another process is training this very run; wait for it.") from None
            pid = read_json(holder)["pid"]
            raise ValueError(
                f"Process {pid} is training this very run; wait for it, or stop it (`kill {pid}` saves first)."
            ) from None
        write_json(self.folder / "holder.json", {"pid": os.getpid()})
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save(self, step: int, tensors: dict[str, Tensor], metadata: dict[str, Any]) -> None:
        """Save the state after `step` steps; removes all but the newest `keep` saves, and those of later steps, which
        `latest` has skipped.
        """
        newest = self.folder / f"step-{step:09d}"
        with writing(newest) as partial:
            partial.mkdir()
            write_tensors(
                partial / "state.safetensors", {name: tensor.contiguous() for name, tensor in tensors.items()}
            )
            write_json(partial / "metadata.json", metadata)
            seal(partial)
        saves = sorted(self.folder.glob("step-*"))
        kept = [save for save in saves if save <= newest][-self.keep :]
        for save in saves:
            if save not in kept:
                shutil.rmtree(save)

    def latest(
        self, check: Callable[[dict[str, Tensor], dict[str, Any]], None] = lambda tensors, metadata: None
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest undamaged save, as (tensors on the CPU, metadata); None if there is none.

        check: raises ValueError if they do not fit the run; that save is skipped, too.
        """
        saves = sorted(self.folder.glob("step-*"))
        for folder in reversed(saves):
            try:
                verify(folder)
                tensors, metadata = load_file(folder / "state.safetensors"), read_json(folder / "metadata.json")
                check(tensors, metadata)
                return tensors, metadata
            except (ValueError, OSError, safetensors.SafetensorError) as problem:
                where = "" if str(folder) in str(problem) else f"{folder} is damaged: "
                oldest = folder == saves[0]
                then = "There is none before it: starting over." if oldest else "Going back to the one before."
                self.damaged.append(f"{where}{problem} {then}")
        return None

    def finish(self) -> None:
        """Remove the run; call this after its results are written."""
        shutil.rmtree(self.folder)
        self._lock.release()
        self.folder.with_suffix(".lock").unlink(missing_ok=True)

"""What is kept of a model: the folder that anyone can open, and the run in progress that can go on.

`save_model` / `load` write and read a model folder (data/model): config.json, model.safetensors, the tokenizer,
lineage.json, and SHA256SUMS over them; the names are transformers' where the model has a twin there. `Run` is a
locked folder of saves of a run in progress (.tinygpt/runs/<fingerprint>), of which a damaged one is passed over.
Everything is JSON or safetensors: nothing here can execute what it reads.
"""

import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from filelock import FileLock, Timeout
from safetensors.torch import load_file, save_file
from torch import Tensor

from tinygpt import families, foreign
from tinygpt.files import SUMS, check_fetched, is_ours, read_json, read_sums, seal, sha256, verify, write_json, writing
from tinygpt.model import GPT, GPTConfig
from tinygpt.tokenizer import Tokenizer
from tinygpt.tokenizer import load as load_tokenizer

WEIGHTS = "model.safetensors"
CHANGES = "lora.safetensors"


def save_model(
    folder: Path,
    config: GPTConfig,
    weights: dict[str, Tensor],
    tokenizer: Tokenizer,
    lineage: dict[str, Any],
    changes: dict[str, Tensor] | None = None,
) -> None:
    """Write a model folder, whole or not at all: `weights` (float32, our names) of a model of this configuration.

    changes: what LoRA learned (lora.py), where `weights` are a base's with these added; for `tinygpt export peft`.
    """
    with writing(folder) as partial:
        partial.mkdir()
        write_json(partial / "config.json", families.to_json(config, tokenizer.end_of_text))
        token_ids = {"bos_token_id": tokenizer.end_of_text, "eos_token_id": tokenizer.end_of_text}
        write_json(partial / "generation_config.json", token_ids)
        save_weights(partial / WEIGHTS, weights, config)
        if changes:
            write_tensors(partial / CHANGES, {name: changes[name].contiguous() for name in sorted(changes)})
        tokenizer.save(partial)
        write_json(partial / "lineage.json", lineage)
        seal(partial)


def save_weights(path: Path, weights: dict[str, Tensor], config: GPTConfig) -> None:
    """Write weights as model.safetensors holds them, under the names of the model's family.

    weights: parameter name → float32 of the parameter's shape, as `GPT(config).named_parameters()` has them.
    """
    named = {name: weight.contiguous() for name, weight in families.export_weights(weights, config).items()}
    with writing(path) as partial:
        write_tensors(partial, named, {"format": "pt"})


def load(folder: Path | str, device: torch.device | str = "cpu") -> tuple[GPT, Tokenizer]:
    """Open a model folder: (the model in eval mode on `device`, its tokenizer).

    Raises FileNotFoundError where there is none, ValueError in a sentence where it is damaged: every file is checked
    against SHA256SUMS, and every tensor's name, shape and dtype against config.json, before memory is taken. A folder
    without SHA256SUMS, which a stranger may have made, goes through the same checks but the first; one that has no
    lineage.json either is read as another program's (foreign.py).
    """
    folder = Path(folder)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"There is no model in {folder}: config.json is missing. Run `dvc repro train`.")
    if not is_ours(folder):
        model, tokenizer = foreign.read(folder)
        return model.to(device), tokenizer
    if not (folder / WEIGHTS).is_file():
        raise FileNotFoundError(f"There is no model in {folder}: {WEIGHTS} is missing. Run `dvc repro train`.")
    if (folder / SUMS).exists():
        verify(folder)
    values, found = read_json(folder / "config.json"), _read_header(folder / WEIGHTS)
    try:
        config = families.from_json(values)
        if config.n_layer > len(found):
            raise ValueError(f"{config.n_layer} blocks, but {len(found)} tensors.")  # a billion would take memory below
        expected = families.weight_shapes(config)
    except (ValueError, TypeError, RuntimeError, ArithmeticError) as problem:
        raise ValueError(f"{folder} is damaged: {problem}") from problem
    tokenizer = load_tokenizer(folder)
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{folder} is damaged: {tokenizer.vocab_size} tokens, but the model knows {config.vocab_size}."
        )
    for name, sentence in _differences({name: (shape, "F32") for name, shape in expected.items()}, found):
        raise ValueError(f"{folder / WEIGHTS} does not fit its config.json: {name} {sentence}.")
    model = GPT(config)
    weights = load_file(folder / WEIGHTS)
    model.load_state_dict(families.import_weights(weights, config))
    return model.to(device).eval(), tokenizer


def hashes(folder: Path) -> dict[str, Any]:
    """The hashes that trace a model: of its weights, tokenizer, training text and parameters (from lineage.json).

    Of a folder that another program wrote, what can be known: its weights and its tokenizer. ValueError where
    lineage.json does not name them.
    """
    if not (folder / "lineage.json").is_file():
        weights = [sha256(file) for file in foreign.weight_files(folder)]
        known = {"model": weights[0] if len(weights) == 1 else digest(weights)}
        return known | {"tokenizer": sha256(folder / "tokenizer.json"), "text": {}, "params": ""}
    lineage = read_json(folder / "lineage.json")
    names = ("tokenizer", "text", "params")
    if not isinstance(lineage, dict) or not lineage.keys() >= {*names}:
        raise ValueError(f"{folder} is damaged: its lineage.json does not name {', '.join(names)}.")
    model = read_sums(folder)[WEIGHTS] if (folder / SUMS).is_file() else sha256(folder / WEIGHTS)
    return {"model": model, **{name: lineage[name] for name in names}}


def digest(value: Any) -> str:
    """SHA-256 of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


def fingerprint(lineage: dict[str, Any], machine: str) -> str:
    """The name of a run: a hash of all that can change its result, 16 hexadecimal digits.

    Its text, tokenizer and parameters (the lineage), the machine in words, the versions of PyTorch and NumPy (which
    shuffles the batches), and the source of every module of tinygpt that is loaded, config.py excepted, which changes
    no result.
    """
    loaded = {name: module.__file__ for name, module in sys.modules.items() if name.startswith("tinygpt.")}
    code = {name: sha256(Path(file)) for name, file in loaded.items() if file and name != "tinygpt.config"}
    return digest([lineage, machine, torch.__version__, np.__version__, code])[:16]


class Run:
    """A run in progress: `with Run(folder, keep=2) as run`, then `run.latest()`, `run.save(...)`, `run.finish()`.

    The folder is locked while the block lasts; ValueError in a sentence where another process holds it. It stays when
    the block is left early, so that the next process can go on.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep
        self.damaged: list[str] = []  # sentences about saves that `latest` passed over
        self._lock = FileLock(folder.with_suffix(".lock"))

    def __enter__(self) -> "Run":
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            holder = self.folder / "holder.json"
            if not holder.is_file():  # it has only just begun, or is about to end
                raise ValueError("Another process is training this very run; wait for it.") from None
            pid = read_json(holder)["pid"]
            raise ValueError(
                f"Process {pid} is training this very run; wait for it, or stop it (`kill {pid}` saves first)."
            ) from None
        write_json(self.folder / "holder.json", {"pid": os.getpid()})
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def save(self, step: int, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
        """Keep the state after `step` steps; older saves than the last `keep` are removed, and those of later
        steps, which `latest` has passed over.
        """
        own = self.folder / f"step-{step:09d}"
        with writing(own) as partial:
            partial.mkdir()
            write_tensors(
                partial / "state.safetensors", {name: tensor.contiguous() for name, tensor in tensors.items()}
            )
            write_json(partial / "facts.json", facts)
            seal(partial)
        saves = sorted(self.folder.glob("step-*"))
        kept = [save for save in saves if save <= own][-self.keep :]
        for other in saves:
            if other not in kept:
                shutil.rmtree(other)

    def latest(
        self, check: Callable[[dict[str, Tensor], dict[str, Any]], None] = lambda tensors, facts: None
    ) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The newest save that is whole, as (tensors on the CPU, facts); None where there is none.

        check: raises ValueError where they do not fit the run; that save is passed over, too.
        """
        saves = sorted(self.folder.glob("step-*"))
        for folder in reversed(saves):
            try:
                verify(folder)
                tensors, facts = load_file(folder / "state.safetensors"), read_json(folder / "facts.json")
                check(tensors, facts)
                return tensors, facts
            except (ValueError, OSError, safetensors.SafetensorError) as problem:
                where = "" if str(folder) in str(problem) else f"{folder} is damaged: "
                first = folder == saves[0]
                then = "There is none before it: starting over." if first else "Going back to the one before."
                self.damaged.append(f"{where}{problem} {then}")
        return None

    def finish(self) -> None:
        """Remove the run: its results are written, nothing is left to go on with."""
        shutil.rmtree(self.folder)
        self._lock.release()
        self.folder.with_suffix(".lock").unlink(missing_ok=True)


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors (of any shape) as a safetensors file; OSError where the system refuses.

    safetensors tells that in words only.
    """
    try:
        save_file(tensors, path, metadata)
    except safetensors.SafetensorError as problem:
        number = re.search(r"os error (\d+)", str(problem))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from problem


def _read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, dtype) of every tensor in a safetensors file, without reading the tensors."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except safetensors.SafetensorError as problem:
        check_fetched(path)
        raise ValueError(f"{path} is damaged: {problem}.") from problem


def _differences(expected: dict[str, Any], found: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in sorted(expected.keys() | found.keys()):
        if name not in found:
            yield name, "is missing"
        elif name not in expected:
            yield name, "is unknown"
        elif expected[name] != found[name]:
            yield name, f"is {found[name]}, not {expected[name]}"

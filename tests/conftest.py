"""What the tests share: a small configuration, a small text, a small trained model folder.

Tests and the processes that they start compute in one thread: models this small run faster so, and beside whatever else
the machine is doing.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import tinygpt  # noqa: F401  # likewise: it bounds how long PyTorch's threads spin

# isort: split
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock

from tinygpt import config
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.data import train_tokenizer
from tinygpt.data.dataset import TokenDataset
from tinygpt.generation.cpu.decoder import prepare
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training.loop import train
from tinygpt.training.state import initial_state, weights

if TYPE_CHECKING:
    from tests.project import Project

ROOT = Path(__file__).resolve().parent.parent
TEXT = (
    "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun.\n\n"
    "JULIET:\nO Romeo, Romeo! wherefore art thou Romeo?\nDeny thy father and refuse thy name.\n\n"
) * 30
MIXED = "naïve café, 東京タワー, Ωμέγα, 🙂👍🏽 don't  we'll\n\n\tx = 12345;\r\n    return  -1 \0 \x85 \u2028 \u2585"

CPU = torch.device("cpu")
# `dvc`, `torchrun` and the `python` of dvc.yaml are those beside this interpreter, also where no environment is active
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


# What takes longest comes first, so that no worker is left with it at the end
LONGEST = (
    "pipeline/test_faults.py", "pipeline/test_dvc.py", "pipeline/test_pipeline.py", "pipeline/test_finetune.py",
    "pipeline/test_scratch.py", "pipeline/test_packaging.py", "pipeline/test_matrix.py",
    "training/test_distributed.py", "web/test_browser.py", "web/test_app.py", "experiments/test_compare.py",
)  # fmt: skip


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One worker more than there are cores, since tests often wait for their processes."""
    return (os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    """Compile the decoder before any test begins, and before there are workers: all find it in the cache."""
    if not hasattr(config, "workerinput"):
        prepare()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    rank = {ROOT / "tests" / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def params(**changes: Any) -> config.Params:
    """The project's params.yaml, small enough for a test; `section__key=value` changes a value."""
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["model"].update(n_layer=2, n_head=2, n_embd=32, context_length=16)
    values["train"].update(steps=6, batch_size=4, eval_every=3, eval_tokens=64, warmup_steps=2, precision="fp32")
    values["tokenize"].update(kind="char")
    for name, value in changes.items():
        section, _, key = name.partition("__")
        values[section][key] = value
    return config.check(values)


def gpt_config(vocab_size: int = 61, **changes: Any) -> GPTConfig:
    """A small configuration; `key=value` changes a value of the `model` section."""
    changes = {f"model__{key}": value for key, value in changes.items()}
    return GPTConfig(vocab_size=vocab_size, **params(**changes).model.model_dump())


def gpt(vocab_size: int = 61, seed: int = 1, **changes: Any) -> GPT:
    """A small model with every weight drawn at random, so that no part of it is silent at the start."""
    model = GPT(gpt_config(vocab_size, **changes))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.normal_(0.0, 0.2, generator=generator).add_(offset)
    return model.eval()


GPT2 = {
    "norm": "layernorm",
    "position": "learned",
    "mlp": "gelu",
    "qk_norm": False,
    "bias": True,
    "tie_embeddings": True,
}
LLAMA = {"qk_norm": False}
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {},
    "qwen3-tied": {"tie_embeddings": True},
    "qwen3-grouped": {"n_head": 4, "n_kv_head": 2, "head_dim": 12},
    "llama": LLAMA,
    "gpt2": GPT2,
    "mixed": {"norm": "layernorm", "mlp": "gelu_exact", "bias": True},
}


@pytest.fixture(params=SHAPES)
def shape(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each architecture in turn, as changes to the `model` section."""
    return SHAPES[request.param]


@pytest.fixture(scope="session")
def characters() -> Tokenizer:
    """A character tokenizer of TEXT."""
    return train_tokenizer.build(params().tokenize, [TEXT])


@pytest.fixture(scope="session")
def tokens(characters: Tokenizer) -> dict[str, np.ndarray]:
    """TEXT as tokens, in two splits."""
    ids = np.array([characters.end_of_text, *characters.encode(TEXT)], dtype=np.uint16)
    return {"train": ids[: -len(ids) // 10], "validation": ids[-len(ids) // 10 :]}


@pytest.fixture(scope="session")
def data(tokens: dict[str, np.ndarray]) -> dict[str, TokenDataset]:
    """The windows of those tokens, each as long as the context of a small model."""
    return {split: TokenDataset(ids, 16) for split, ids in tokens.items()}


@pytest.fixture(scope="session")
def model_folder(
    tmp_path_factory: pytest.TempPathFactory, characters: Tokenizer, data: dict[str, TokenDataset]
) -> Path:
    """A model folder, trained on TEXT until it knows some of it."""
    settings = params(train__steps=100, train__eval_every=100).train
    config = gpt_config(characters.vocab_size)
    state = initial_state(config, settings, seed=1, device=CPU, precision="fp32")
    for _ in train(state, settings, data, seed=1, precision="fp32"):
        pass
    folder = tmp_path_factory.mktemp("model") / "model"
    lineage = {"text": {"train": "t", "validation": "v"}, "tokenizer": "k", "params": "p"}
    save_model(folder, config, state.best, characters, lineage)
    return folder


@pytest.fixture(scope="session")
def chat_folder(tmp_path_factory: pytest.TempPathFactory, characters: Tokenizer) -> Path:
    """A model with role tokens, a chat template and random weights."""
    tokenizer = characters.with_roles()
    model = gpt(tokenizer.vocab_size, context_length=64)
    folder = tmp_path_factory.mktemp("chat") / "model"
    save_model(folder, model.config, weights(model), tokenizer, {"text": {}, "tokenizer": "k", "params": "p"})
    return folder


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """A project whose pipeline has run, and is committed: each worker has a copy of the one that the first made."""
    from tests.project import STAGES, Project

    base = tmp_path_factory.getbasetemp()
    original = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished-project"
    with FileLock(f"{original}.lock"):
        if not original.exists():
            made = Project(tmp_path_factory.mktemp("project"))
            assert made.dvc("repro") == STAGES
            made.commit()
            made.folder.rename(original)
    return Project.at(Path(shutil.copytree(original, tmp_path_factory.mktemp("project") / "copy", symlinks=True)))


@pytest.fixture
def project(finished: "Project") -> "Iterator[Project]":
    """The finished project, put back as it was after the test."""
    yield finished
    finished.restore()
    finished.forget_experiments()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own to work in, from which none reaches for pip."""
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: pytest.fail("a test called pip"))
    return tmp_path

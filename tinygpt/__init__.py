"""TinyGPT: a GPT from scratch, in a pipeline that makes every result reproducible.

    model, tokenizer = tinygpt.load("data/model")
    tinygpt.generate(model, tokenizer, "ROMEO:", temperature=0.5)[0].text

These names are fetched on first use (PEP 562), so that `import tinygpt` costs nothing. All others, of training for
example, are those of the modules (docs/api.md).
"""

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the same names, for type checkers and editors; they load nothing and change no result
    from tinygpt.checkpoints.model_folder import load
    from tinygpt.generation.generate import Completion, generate, generate_batch, stream
    from tinygpt.model.gpt import GPT, GPTConfig
    from tinygpt.tokenizer.base import Tokenizer

    __version__: str

_SPINS = "10000"  # docs/speed.md, "On a busy machine", has the speeds that other numbers give


def _bound_spinning() -> str:
    """Let PyTorch's threads go to sleep soon where one waits for another, and say how they wait, for `tinygpt info`.

    By default they spin for milliseconds, and keep a core from the very thread that they wait for when other programs
    want it, too. GNU's OpenMP, which PyTorch has on Linux, reads the bound once, when torch is loaded.
    """
    if sys.platform != "linux":
        return "as this platform's OpenMP has it"
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        if os.environ.get(name, _SPINS) != _SPINS:
            return f"as set by {name}={os.environ[name]}"
    if "torch" in sys.modules and "GOMP_SPINCOUNT" not in os.environ:
        return "by spinning for milliseconds, since torch was loaded before tinygpt; on a busy machine that is slow"
    os.environ["GOMP_SPINCOUNT"] = _SPINS
    return f"by spinning {_SPINS} times, then sleeping (GOMP_SPINCOUNT)"


thread_waiting = _bound_spinning()

_HOMES = {
    "load": "checkpoints.model_folder",
    "Completion": "generation.generate",
    "generate": "generation.generate",
    "generate_batch": "generation.generate",
    "stream": "generation.generate",
    "GPT": "model.gpt",
    "GPTConfig": "model.gpt",
    "Tokenizer": "tokenizer.base",
}
__all__ = ["GPT", "Completion", "GPTConfig", "Tokenizer", "generate", "generate_batch", "load", "stream"]


def _fetch(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module 'tinygpt' has no attribute {name!r}")
    return globals().setdefault(name, getattr(importlib.import_module(f"tinygpt.{_HOMES[name]}"), name))


def _version() -> str:
    """It stands in pyproject.toml alone, and is known once the package is installed."""
    from importlib import metadata

    try:
        return metadata.version("tinygpt")
    except metadata.PackageNotFoundError:
        raise AttributeError("tinygpt is not installed, so its version is not known. Run `pip install -e .`") from None


if not TYPE_CHECKING:  # a type checker that saw it would believe in every name
    __getattr__ = _fetch


def __dir__() -> list[str]:
    """What there is for others: the names above, and the modules that are loaded."""
    inner = {name for name in globals() if name.startswith("_") and not name.startswith("__")}
    return sorted(
        {*globals(), *__all__, "__version__"}
        - inner
        - {"Any", "TYPE_CHECKING", "importlib", "os", "sys", "thread_waiting"}
    )

"""TinyGPT: a GPT built from scratch to be understood, in a pipeline that makes every result repeatable.

    model, tokenizer = tinygpt.load("data/model")
    tinygpt.generate(model, tokenizer, "ROMEO:")[0].text

These names are fetched on first use, so that `import tinygpt` costs nothing.
"""

import importlib
from typing import Any

_HOMES = {"load": "checkpoint", "generate": "generation", "stream": "generation", "Sampling": "sampling"}
__all__ = ["Sampling", "generate", "load", "stream"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinygpt' has no attribute {name!r}")
    return getattr(importlib.import_module(f"tinygpt.{_HOMES[name]}"), name)

"""The contents of a model folder, ours or transformers', and the one place that validates them and builds the model.

`build(folder, source)` → model and tokenizer. Names, shapes and types of all tensors are compared with what the
configuration needs before memory is taken for any of them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tinygpt.checkpoints import hf_names
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.base import Tokenizer

Header = dict[str, tuple[tuple[int, ...], str]]  # tensor → its shape, and its type in safetensors' words


@dataclass(frozen=True)
class Source:
    """A model folder, its tensors not yet read."""

    config: GPTConfig
    files: list[Path]  # of safetensors
    found: Header  # of all files, under `name`
    dtypes: tuple[str, ...]  # that the tensors may have; they become float32
    tokenizer: Callable[[], Tokenizer]  # opens it
    name: Callable[[str], str] = str  # a tensor's name in its file → the family's


def build(folder: Path, source: Source) -> tuple[GPT, Tokenizer]:
    """The model in eval mode on the CPU in float32, and its tokenizer; ValueError, in a sentence, for what does not fit
    together.
    """
    config = source.config
    if config.n_layer > len(source.found):  # a billion would take memory below
        raise ValueError(
            f"{folder} does not fit its config.json: {config.n_layer} blocks, but {len(source.found)} tensors."
        )
    try:
        expected = hf_names.weight_shapes(config)
    except (TypeError, RuntimeError, ArithmeticError) as problem:  # of sizes that no tensor can have
        raise ValueError(f"{folder} is damaged: {problem}") from problem
    for name in sorted(expected.keys() | source.found.keys()):
        if name not in source.found:
            raise ValueError(f"{folder} does not fit its config.json: {name} is missing.")
        if name not in expected:
            raise ValueError(f"{folder} does not fit its config.json: {name} is unknown.")
        shape, dtype = source.found[name]
        if shape != expected[name] or dtype not in source.dtypes:
            raise ValueError(f"{folder} does not fit its config.json: {name} is {shape} {dtype}, not {expected[name]}.")
    tokenizer = source.tokenizer()
    if tokenizer.vocab_size != config.vocab_size:
        raise ValueError(
            f"{folder} is damaged: {tokenizer.vocab_size} tokens, but the model knows {config.vocab_size}."
        )
    weights: dict[str, Tensor] = {source.name(name): w for file in source.files for name, w in load_file(file).items()}
    model = GPT(config)
    model.load_state_dict(hf_names.import_weights({name: weights[name].float() for name in expected}, config))
    return model.eval(), tokenizer

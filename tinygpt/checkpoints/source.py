"""The contents of a model folder, ours or transformers', and the one place that validates them and builds the model.

`build(folder, source)` → model and tokenizer. Names, shapes and dtypes of all tensors are compared with the
configuration before memory is allocated.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file
from torch import Tensor

from tinygpt.checkpoints import hf_names
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.base import Tokenizer

Header = dict[str, tuple[tuple[int, ...], str]]  # tensor → its shape, and its dtype as safetensors names it


@dataclass(frozen=True)
class Source:
    """A model folder whose tensors have not been read yet."""

    config: GPTConfig
    files: list[Path]  # safetensors
    found: Header  # of all files, with names mapped by `name`
    dtypes: tuple[str, ...]  # allowed dtypes; all become float32
    tokenizer: Callable[[], Tokenizer]  # loads the tokenizer
    name: Callable[[str], str] = str  # a tensor's name in its file → the family's name


def build(folder: Path, source: Source) -> tuple[GPT, Tokenizer]:
    """The model in eval mode on the CPU in float32, and its tokenizer. Raises ValueError if they are inconsistent."""
    config = source.config
    if config.n_layer > len(source.found):  # an absurd n_layer would exhaust memory below
        raise ValueError(
            f"{folder} does not fit its config.json: {config.n_layer} blocks, but {len(source.found)} tensors."
        )
    try:
        expected = hf_names.weight_shapes(config)
    except (TypeError, RuntimeError, ArithmeticError) as problem:  # impossible sizes
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
            f"{folder} is damaged: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.vocab_size}."
        )
    weights: dict[str, Tensor] = {source.name(name): w for file in source.files for name, w in load_file(file).items()}
    model = GPT(config)
    model.load_state_dict(hf_names.import_weights({name: weights[name].float() for name in expected}, config))
    return model.eval(), tokenizer

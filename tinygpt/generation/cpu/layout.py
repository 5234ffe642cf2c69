"""Where the compiled loops find a model's weights: in its own memory, by addresses; nothing is copied.

`layout = Layout(model)`; `layout.addresses[QUERY, block]` is where the query matrix of a block begins. loops.py reads
it. This module does not need numba, so that loops that are compiled already start without it.
"""

from typing import Any

import numpy as np
import torch
from torch import nn

from tinygpt.model.gpt import GPT
from tinygpt.model.quantization import Int8Linear, WeightType

# The arrays of a model. Each module's weight has a number, its bias and its scale (of int8 weights) the next two
BIAS, SCALE = 1, 2
NUMBERS: Any = np.arange(0, 51, 3)  # np.int64: numba compiles a function again for each value of a Python int
(EMBEDDING, POSITION, COS, SIN, NORM1, QUERY, KEY, VALUE, QUERY_NORM, KEY_NORM, OUTPUT, NORM2, GATE, UP, DOWN, NORM,
 HEAD) = NUMBERS  # fmt: skip
PARTS = 3 * len(NUMBERS)
GELU, GELU_EXACT, SWIGLU = 0, 1, 2
LANES = 8  # tokens that one vector instruction computes
TILE = 8  # rows of a matrix that they are multiplied with at once
FEW = 4  # up to so many tokens, single dot products are as fast


class Layout:
    """The addresses and sizes of a model's weights, and what the loops have to know besides."""

    def __init__(self, model: GPT) -> None:
        config = model.config
        self.memory = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]  # keeps it where it is
        self.addresses, self.sizes = located(arrays(model), config.n_layer)
        mlp = {"gelu": GELU, "gelu_exact": GELU_EXACT, "swiglu": SWIGLU}[config.mlp]
        heads = (config.n_head, config.kv_heads, config.head_width)
        shape = [config.n_layer, *heads, config.context_length, config.norm == "layernorm", mlp]
        self.shape = np.array(shape, dtype=np.int64)
        self.eps = np.array([config.norm_eps])
        self.pointers = [one.ctypes.data for one in (self.addresses, self.sizes, self.shape, self.eps)]
        widths = config.n_embd + (config.n_head + config.kv_heads) * config.head_width + config.hidden
        self.floats_per_token = 2 * widths  # what is computed between the layers
        widest = max(config.n_embd, config.hidden, config.n_head * config.head_width)
        of_a_product, of_a_head = (LANES + TILE) * widest + TILE * LANES, config.context_length
        self.scratch = max(of_a_product, of_a_head)


def arrays(model: GPT) -> dict[int, list[Any]]:
    """The tensors of each part: one for each block, or one; None where the model has none."""
    blocks = list[Any](model.blocks)
    modules: dict[int, list[Any]] = {
        EMBEDDING: [model.token_embedding],
        POSITION: [model.position_embedding],
        NORM1: [block.norm1 for block in blocks],
        QUERY: [block.attention.query for block in blocks],
        KEY: [block.attention.key for block in blocks],
        VALUE: [block.attention.value for block in blocks],
        QUERY_NORM: [block.attention.query_norm for block in blocks],
        KEY_NORM: [block.attention.key_norm for block in blocks],
        OUTPUT: [block.attention.output for block in blocks],
        NORM2: [block.norm2 for block in blocks],
        GATE: [block.mlp.gate for block in blocks],
        UP: [block.mlp.up for block in blocks],
        DOWN: [block.mlp.down for block in blocks],
        NORM: [model.norm],
        HEAD: [model.head],
    }
    found = {number: tensors for part, some in modules.items() for number, tensors in fields(part, some).items()}
    if model.rotary is not None:
        found |= {part: [model.rotary.get_buffer(name)[:, 0]] for part, name in ((COS, "cos"), (SIN, "sin"))}
    return found


def fields(part: int, modules: list[Any]) -> dict[int, list[Any]]:
    """The weight, bias and scale of modules, one of each block."""
    offsets = {"weight": 0, "bias": BIAS, "scale": SCALE}
    return {part + offset: [getattr(module, name, None) for module in modules] for name, offset in offsets.items()}


def located(tensors: dict[int, list[Any]], blocks: int) -> tuple[np.ndarray, np.ndarray]:
    """Where tensors lie: addresses (PARTS, blocks), 0 where there is none; and rows, 1 of a vector, and columns of each
    part (PARTS, 2). Both int64.
    """
    addresses, sizes = np.zeros((PARTS, blocks), dtype=np.int64), np.zeros((PARTS, 2), dtype=np.int64)
    for part, found in tensors.items():
        for block, tensor in enumerate(found):
            if tensor is not None:
                addresses[part, block], sizes[part] = tensor.data_ptr(), (1, *tensor.shape)[-2:]
    return addresses, sizes


def weight_type(model: GPT) -> WeightType | None:
    """The type of the matrices, if the loops can read them: of one plain kind, in this machine's memory."""
    layers = {type(module) for module in model.modules() if isinstance(module, (nn.Linear, Int8Linear))}
    plain = all(
        tensor.device.type == "cpu" and tensor.dtype in (torch.float32, torch.int8) and tensor.is_contiguous()
        for tensor in (*model.parameters(), *model.buffers())
    )
    kinds: dict[type, WeightType] = {nn.Linear: "fp32", Int8Linear: "int8"}
    return kinds.get(layers.pop()) if plain and len(layers) == 1 else None

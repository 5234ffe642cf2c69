"""The GPT as plain loops over arrays: what the decoder computes on a CPU.

`forward(…)` reads like the equations, top to bottom; numba compiles it (compiled.py). Letters: N tokens, each at a
position of a sequence; C = n_embd, H heads, D = head_dim, L blocks, S positions in the cache, B sequences, V tokens in
the vocabulary. All numbers are float32, but for matrices that were quantized to int8. Nothing here allocates memory.
"""

from typing import Any, NamedTuple

import numba
import numpy as np

from tinygpt.generation.cpu.functions import (
    Array,
    activate,
    add,
    as_float32,
    attend,
    dot,
    jit,
    layer_norm,
    rms_norm,
    rotate,
)
from tinygpt.generation.cpu.layout import (
    BIAS,
    COS,
    DOWN,
    EMBEDDING,
    GATE,
    HEAD,
    KEY,
    KEY_NORM,
    LANES,
    NORM,
    NORM1,
    NORM2,
    OUTPUT,
    PARTS,
    POSITION,
    QUERY,
    QUERY_NORM,
    SCALE,
    SIN,
    SWIGLU,
    TILE,
    UP,
    VALUE,
)
from tinygpt.generation.cpu.vectors import add_product, load, pointer, prefetch, store, zeros
from tinygpt.model.quantization import WeightType


class Model(NamedTuple):
    """A model's weights and shape (layout.py), and memory to compute in."""

    addresses: Array  # (PARTS, L) int64
    sizes: Array  # (PARTS, 2) int64
    dtype_example: Array  # empty; of the type that matrices have, float32 or int8
    L: int
    H: int
    kv_heads: int
    D: int
    S: int
    layernorm: bool
    mlp: int  # GELU, GELU_EXACT or SWIGLU
    eps: float
    batched: bool  # compute eight tokens at once
    scratch: Array  # what a function needs until it returns


# Parts


@jit
def has(model: Model, part: int) -> Any:
    return model.addresses[part, 0] != 0


@jit
def array(model: Model, part: int, block: int) -> Array:
    """An array of a block, float32: (rows, columns)."""
    rows, columns = model.sizes[part]
    return numba.carray(pointer(model.addresses[part, block]), (rows, columns), np.float32)


@jit
def matrix(model: Model, part: int, block: int) -> Array:
    """The matrix of a block, (outputs, inputs): float32, or int8, multiplied by its scale afterwards."""
    rows, columns = model.sizes[part]
    return numba.carray(pointer(model.addresses[part, block]), (rows, columns), model.dtype_example.dtype)


@jit
def product(model: Model, part: int, block: int, x: Array, out: Array) -> None:
    """out = x Wᵀ · scale + bias: (N, inputs) → (N, outputs). A row of W is read once for up to eight tokens."""
    weight = matrix(model, part, block)
    if model.batched:
        for first in range(0, len(x), LANES):
            some = slice(first, first + LANES)
            product_of_many(weight, x[some], model.scratch, out[some])
    else:
        for i in range(len(weight)):
            for n in range(len(x)):
                out[n, i] = dot(weight[i], x[n])
    if has(model, part + SCALE):
        scale = array(model, part + SCALE, block)[0]
        for n in range(len(out)):
            for i in range(len(scale)):
                out[n, i] *= scale[i]
    if has(model, part + BIAS):
        for n in range(len(out)):
            add(out[n], array(model, part + BIAS, block)[0])


@jit
def product_of_many(weight: Array, x: Array, scratch: Array, out: Array) -> None:
    """x Wᵀ of at most eight tokens, each in a lane of a vector; TILE rows at once, so that a load feeds TILE sums."""
    inputs = x.shape[1]
    transposed, scratch = scratch[: inputs * LANES], scratch[inputs * LANES :]  # x, token by token in each lane
    results, scratch = scratch[: TILE * LANES], scratch[TILE * LANES :]
    converted = numba.carray(pointer(scratch.ctypes.data), (TILE, inputs), np.float32)
    transposed[:] = 0
    for n in range(len(x)):
        for k in range(inputs):
            transposed[k * LANES + n] = x[n, k]
    whole = len(weight) - len(weight) % TILE
    for i in range(0, whole, TILE):
        rows = as_float32(weight[i : i + TILE], converted)
        a = b = c = d = e = f = g = h = zeros()
        for k in range(inputs):
            if k % 2 == 0:
                prefetch(weight, (i + TILE) * inputs + k * TILE)  # of the next rows, a cache line for two turns
            numbers = load(transposed, k)
            a = add_product(a, rows[0, k], numbers)
            b = add_product(b, rows[1, k], numbers)
            c = add_product(c, rows[2, k], numbers)
            d = add_product(d, rows[3, k], numbers)
            e = add_product(e, rows[4, k], numbers)
            f = add_product(f, rows[5, k], numbers)
            g = add_product(g, rows[6, k], numbers)
            h = add_product(h, rows[7, k], numbers)
        store(results, 0, a)
        store(results, 1, b)
        store(results, 2, c)
        store(results, 3, d)
        store(results, 4, e)
        store(results, 5, f)
        store(results, 6, g)
        store(results, 7, h)
        for n in range(len(x)):
            for j in range(TILE):
                out[n, i + j] = results[j * LANES + n]
    for i in range(whole, len(weight)):
        for n in range(len(x)):
            out[n, i] = dot(weight[i], x[n])


@jit
def norm(model: Model, part: int, block: int, x: Array, out: Array) -> None:
    """RMSNorm or LayerNorm of each token: (N, C)."""
    weight = array(model, part, block)[0]
    for n in range(len(x)):
        if model.layernorm:
            layer_norm(x[n], weight, model.eps, out[n])
        else:
            rms_norm(x[n], weight, model.eps, out[n])
        if has(model, part + BIAS):
            add(out[n], array(model, part + BIAS, block)[0])


@jit
def norm_and_rotate(model: Model, norms: int, block: int, at: Array, heads: Array) -> None:
    """QK-norm and rotary position, where the model has them, of each head: (N, heads · D), in place."""
    for n in range(len(heads)):
        for start in range(0, heads.shape[1], model.D):
            head = heads[n, start : start + model.D]
            if has(model, norms):
                rms_norm(head, array(model, norms, block)[0], model.eps, head)
            if has(model, COS):
                rotate(head, array(model, COS, 0)[at[n]], array(model, SIN, 0)[at[n]])


@jit
def write_cache(heads: Array, cache: Array, rows: Array, at: Array) -> None:
    """Keep keys, or values, of N tokens in the cache: (N, kv_heads · D) → (B, kv_heads, S, D)."""
    D = cache.shape[3]
    for n in range(len(heads)):
        for head in range(cache.shape[1]):
            for i in range(D):
                cache[rows[n], head, at[n], i] = heads[n, head * D + i]


@jit
def attention(model: Model, q: Array, keys: Array, values: Array, rows: Array, at: Array, out: Array) -> None:
    """Each head of each token attends to its sequence up to the token itself: q and out (N, H · D)."""
    group, D = model.H // model.kv_heads, model.D
    for n in range(len(q)):
        for head in range(model.H):
            one = slice(head * D, (head + 1) * D)
            k, v = keys[rows[n], head // group], values[rows[n], head // group]
            attend(q[n, one], k, v, model.scratch[: at[n] + 1], out[n, one])


@jit
def split(buffer: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """The beginning of a buffer as an array (rows, columns), and the rest."""
    return numba.carray(pointer(buffer.ctypes.data), (rows, columns), np.float32), buffer[rows * columns :]


@jit
def forward(
    model: Model, tokens: Array, rows: Array, at: Array, keys: Array, values: Array, logits: Array, buffer: Array
) -> None:
    """Read N tokens: token n of the sequence rows[n] at position at[n], after all those before it.

    keys and values (L, B, kv_heads, S, D) get the tokens' own. logits: (N, V) after each token, or (0, V) where none
    are wanted. buffer: for what is computed between the layers.
    """
    N, C, hidden = len(tokens), model.sizes[EMBEDDING, 1], model.sizes[UP, 0]
    x, buffer = split(buffer, N, C)
    y, buffer = split(buffer, N, C)
    q, buffer = split(buffer, N, model.H * model.D)
    k, buffer = split(buffer, N, model.kv_heads * model.D)
    v, buffer = split(buffer, N, model.kv_heads * model.D)
    attended, buffer = split(buffer, N, model.H * model.D)
    gate, buffer = split(buffer, N, hidden)
    up, buffer = split(buffer, N, hidden)
    for n in range(N):
        x[n, :] = 0
        add(x[n], array(model, EMBEDDING, 0)[tokens[n]])
        if has(model, POSITION):
            add(x[n], array(model, POSITION, 0)[at[n]])
    for block in range(model.L):
        norm(model, NORM1, block, x, y)
        product(model, QUERY, block, y, q)
        product(model, KEY, block, y, k)
        product(model, VALUE, block, y, v)
        norm_and_rotate(model, QUERY_NORM, block, at, q)
        norm_and_rotate(model, KEY_NORM, block, at, k)
        write_cache(k, keys[block], rows, at)
        write_cache(v, values[block], rows, at)
        if block == model.L - 1 and len(logits) == 0:
            return  # nobody reads what follows
        attention(model, q, keys[block], values[block], rows, at, attended)
        product(model, OUTPUT, block, attended, y)
        for n in range(N):
            add(x[n], y[n])
        norm(model, NORM2, block, x, y)
        product(model, UP, block, y, up)
        if model.mlp == SWIGLU:
            product(model, GATE, block, y, gate)
        activate(gate, up, model.mlp)
        product(model, DOWN, block, up, y)
        for n in range(N):
            add(x[n], y[n])
    if len(logits):
        norm(model, NORM, 0, x, y)
        product(model, HEAD, 0, y, logits)


def entry(weights: WeightType) -> Any:
    """`forward` for matrices of one type. Its arguments are the addresses and sizes that LoopDecoder.run passes, for
    which no numba is needed.
    """
    like = {"fp32": np.float32, "int8": np.int8}[weights]

    @jit
    def call(
        addresses: int, sizes: int, shape: int, eps: int, tokens: int, rows: int, at: int, count: int, batched: int,
        keys: int, values: int, batch: int, logits: int, wanted: int, vocabulary: int, buffer: int, scratch: int,
        floats: int,
    ) -> None:  # fmt: skip
        n = numba.carray(pointer(shape), (7,), np.int64)
        L, H, kv_heads, D, S, layernorm, mlp = n[0], n[1], n[2], n[3], n[4], n[5] != 0, n[6]
        space = numba.carray(pointer(buffer), (scratch + floats,), np.float32)
        cache = (L, batch, kv_heads, S, D)
        model = Model(
            numba.carray(pointer(addresses), (PARTS, L), np.int64),
            numba.carray(pointer(sizes), (PARTS, 2), np.int64),
            numba.carray(pointer(addresses), (0,), like),
            L, H, kv_heads, D, S, layernorm, mlp, numba.carray(pointer(eps), (1,), np.float64)[0],
            batched != 0, space[:scratch],
        )  # fmt: skip
        forward(
            model,
            numba.carray(pointer(tokens), (count,), np.int64),
            numba.carray(pointer(rows), (count,), np.int64),
            numba.carray(pointer(at), (count,), np.int64),
            numba.carray(pointer(keys), cache, np.float32),
            numba.carray(pointer(values), cache, np.float32),
            numba.carray(pointer(logits), (wanted, vocabulary), np.float32),
            space[scratch:],
        )

    return call

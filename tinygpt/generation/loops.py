"""The GPT as plain loops over arrays: what the decoder computes on a CPU.

`forward(…)` reads like the equations, top to bottom; numba compiles it (compiled.py). Letters: N tokens, each at a
position of a sequence; C = n_embd, H heads, D = head_dim, L blocks, S positions in the cache, B sequences, V tokens in
the vocabulary. All numbers are float32, but for matrices that were quantized to int8. Nothing here allocates memory.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic, overload

from tinygpt.generation.layout import (
    BIAS,
    COS,
    DOWN,
    EMBEDDING,
    GATE,
    GELU_EXACT,
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
    UP,
    VALUE,
)
from tinygpt.generation.vectors import add_product, load, store, zeros
from tinygpt.model.quantization import WeightType

Array = np.ndarray
# Sums may be reordered, so that they use vector instructions; NaN and infinity stay what they are.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def helper(function: Any) -> Any:
    """Compile a function when it is called. A check for division by zero would keep loops from being vectorized."""
    return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)


class Model(NamedTuple):
    """A model's weights and shape (layout.py), and memory to compute in."""

    addresses: Array  # (PARTS, L) int64
    sizes: Array  # (PARTS, 2) int64
    like: Array  # empty; of the type that matrices have, float32 or int8
    L: int
    H: int
    kv_heads: int
    D: int
    S: int
    layernorm: bool
    mlp: int  # GELU, GELU_EXACT or SWIGLU
    eps: float
    many: bool  # compute eight tokens at once
    room: Array  # for what a function needs until it returns


# Parts


@intrinsic  # type: ignore[untyped-decorator]
def pointer(_context: Any, address: Any) -> Any:
    """An address as a pointer, of which numba.carray makes an array."""

    def generate(_: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return numba.types.voidptr(address), generate


@helper
def has(model: Model, part: int) -> Any:
    return model.addresses[part, 0] != 0


@helper
def array(model: Model, part: int, block: int) -> Array:
    """An array of a block, float32: (rows, columns)."""
    rows, columns = model.sizes[part]
    return numba.carray(pointer(model.addresses[part, block]), (rows, columns), np.float32)


@helper
def matrix(model: Model, part: int, block: int) -> Array:
    """The matrix of a block, (outputs, inputs): float32, or int8 that its scale makes up for."""
    rows, columns = model.sizes[part]
    return numba.carray(pointer(model.addresses[part, block]), (rows, columns), model.like.dtype)


@helper
def dot(a: Array, b: Array) -> Any:
    total = np.float32(0)
    for j in range(len(b)):
        total += np.float32(a[j]) * b[j]
    return total


@helper
def add(total: Array, x: Array) -> None:
    for i in range(len(x)):
        total[i] += x[i]


@helper
def product(model: Model, part: int, block: int, x: Array, out: Array) -> None:
    """out = x Wᵀ · scale + bias: (N, inputs) → (N, outputs). A row of W is read once for up to eight tokens."""
    weight = matrix(model, part, block)
    if model.many:
        for first in range(0, len(x), LANES):
            some = slice(first, first + LANES)
            product_of_many(weight, x[some], model.room, out[some])
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


def floats(rows: Array, room: Array) -> Array:
    """Rows of a matrix as float32: themselves, or converted into `room`."""
    raise NotImplementedError("Compiled functions alone call this, in one of the forms below.")


@overload(floats, strict=False)  # type: ignore[untyped-decorator]
def compiled_floats(rows: Any, room: Any) -> Any:
    if rows.dtype == room.dtype:
        return lambda rows, room: rows

    def convert(rows: Array, room: Array) -> Array:
        for j in range(len(rows)):
            for k in range(rows.shape[1]):
                room[j, k] = rows[j, k]
        return room

    return convert


@helper
def product_of_many(weight: Array, x: Array, room: Array, out: Array) -> None:
    """x Wᵀ of at most eight tokens, each in a lane of a vector; eight rows of W at once, to have work for each read."""
    inputs = x.shape[1]
    columns, room = room[: inputs * LANES], room[inputs * LANES :]
    results, room = room[: 8 * LANES], room[8 * LANES :]
    converted = numba.carray(pointer(room.ctypes.data), (8, inputs), np.float32)
    columns[:] = 0
    for n in range(len(x)):
        for k in range(inputs):
            columns[k * LANES + n] = x[n, k]
    whole = len(weight) - len(weight) % 8
    for i in range(0, whole, 8):
        rows = floats(weight[i : i + 8], converted)
        a = b = c = d = e = f = g = h = zeros()
        for k in range(inputs):
            numbers = load(columns, k)
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
            for j in range(8):
                out[n, i + j] = results[j * LANES + n]
    for i in range(whole, len(weight)):
        for n in range(len(x)):
            out[n, i] = dot(weight[i], x[n])


@helper
def exp(x: Any) -> Any:
    """eˣ, in operations that vectorize: 2ⁿ · eʳ with n whole and |r| ≤ ln(2)/2, where a Taylor series is short."""
    x = max(min(x, np.float32(88)), np.float32(-87))
    n = np.floor(x * np.float32(1 / math.log(2)) + np.float32(0.5))
    r = x - n * np.float32(math.log(2))
    series = np.float32(1)
    for i in (6, 5, 4, 3, 2, 1):
        series = np.float32(1) + series * r * np.float32(1 / i)
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@helper
def tanh(x: Any) -> Any:
    return np.float32(1) - np.float32(2) / (exp(np.float32(2) * x) + np.float32(1))


@helper
def erf(x: Any) -> Any:
    """Within 2e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    a = abs(x)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * a)
    series = np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(c)
    return math.copysign(np.float32(1) - series * t * exp(-a * a), x)


@helper
def rms_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """x / √(mean(x²) + eps) · weight"""
    size = np.float32(1 / math.sqrt(dot(x, x) / len(x) + eps))
    for i in range(len(x)):
        out[i] = x[i] * size * weight[i]


@helper
def layer_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """(x − mean) / √(variance + eps) · weight"""
    total, squares = np.float32(0), np.float32(0)
    for i in range(len(x)):
        total += x[i]
    mean = total / np.float32(len(x))
    for i in range(len(x)):
        squares += (x[i] - mean) * (x[i] - mean)
    size = np.float32(1 / math.sqrt(squares / len(x) + eps))
    for i in range(len(x)):
        out[i] = (x[i] - mean) * size * weight[i]


@helper
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


@helper
def rotate(head: Array, cos: Array, sin: Array) -> None:
    """Turn each pair of coordinates, i and i + D/2, by the angle of the position, in place."""
    half = len(head) // 2
    for i in range(half):
        a, b = head[i], head[i + half]
        head[i] = a * cos[i] + b * sin[i]
        head[i + half] = b * cos[i + half] + a * sin[i + half]


@helper
def place(model: Model, norms: int, block: int, at: Array, heads: Array) -> None:
    """QK-norm and rotary position, where the model has them, of each head: (N, heads · D), in place."""
    for n in range(len(heads)):
        for start in range(0, heads.shape[1], model.D):
            head = heads[n, start : start + model.D]
            if has(model, norms):
                rms_norm(head, array(model, norms, block)[0], model.eps, head)
            if has(model, COS):
                rotate(head, array(model, COS, 0)[at[n]], array(model, SIN, 0)[at[n]])


@helper
def keep(heads: Array, cache: Array, rows: Array, at: Array) -> None:
    """Keep keys, or values, of N tokens in the cache: (N, kv_heads · D) → (B, kv_heads, S, D)."""
    D = cache.shape[3]
    for n in range(len(heads)):
        for head in range(cache.shape[1]):
            for i in range(D):
                cache[rows[n], head, at[n], i] = heads[n, head * D + i]


@helper
def attend(q: Array, keys: Array, values: Array, weights: Array, out: Array) -> None:
    """softmax(q kᵀ / √D) v of one head: q (D,), keys and values (S, D), of whose positions there are len(weights)."""
    count = len(weights)
    scale = np.float32(1 / math.sqrt(len(q)))
    largest, total = np.float32(-np.inf), np.float32(0)
    for s in range(count):
        weights[s] = dot(keys[s], q) * scale
        largest = max(largest, weights[s])
    for s in range(count):
        weights[s] = exp(weights[s] - largest)
        total += weights[s]
    out[:] = 0
    for s in range(count):
        for i in range(len(out)):
            out[i] += weights[s] / total * values[s, i]


@helper
def attention(model: Model, q: Array, keys: Array, values: Array, rows: Array, at: Array, out: Array) -> None:
    """Each head of each token attends to its sequence up to the token itself: q and out (N, H · D)."""
    group, D = model.H // model.kv_heads, model.D
    for n in range(len(q)):
        for head in range(model.H):
            part = slice(head * D, (head + 1) * D)
            k, v = keys[rows[n], head // group], values[rows[n], head // group]
            attend(q[n, part], k, v, model.room[: at[n] + 1], out[n, part])


@helper
def activate(gate: Array, up: Array, kind: int) -> None:
    """The MLP's nonlinearity, into `up`: (N, hidden)."""
    for n in range(len(up)):
        for i in range(up.shape[1]):
            x = up[n, i]
            if kind == SWIGLU:
                up[n, i] = gate[n, i] / (np.float32(1) + exp(-gate[n, i])) * x
            elif kind == GELU_EXACT:
                up[n, i] = np.float32(0.5) * x * (np.float32(1) + erf(x * np.float32(math.sqrt(0.5))))
            else:
                inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
                up[n, i] = np.float32(0.5) * x * (np.float32(1) + tanh(inner))


@helper
def split(memory: Array, rows: int, columns: int) -> tuple[Array, Array]:
    """The beginning of some memory as an array (rows, columns), and the rest."""
    return numba.carray(pointer(memory.ctypes.data), (rows, columns), np.float32), memory[rows * columns :]


@helper
def forward(
    model: Model, tokens: Array, rows: Array, at: Array, keys: Array, values: Array, logits: Array, memory: Array
) -> None:
    """Read N tokens: token n of the sequence rows[n] at position at[n], after all those before it.

    keys and values (L, B, kv_heads, S, D) get the tokens' own. logits: (N, V) after each token, or (0, V) where none
    are wanted. memory: for what is computed between the layers.
    """
    N, C, hidden = len(tokens), model.sizes[EMBEDDING, 1], model.sizes[UP, 0]
    x, memory = split(memory, N, C)
    y, memory = split(memory, N, C)
    q, memory = split(memory, N, model.H * model.D)
    k, memory = split(memory, N, model.kv_heads * model.D)
    v, memory = split(memory, N, model.kv_heads * model.D)
    mixed, memory = split(memory, N, model.H * model.D)
    gate, memory = split(memory, N, hidden)
    up, memory = split(memory, N, hidden)
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
        place(model, QUERY_NORM, block, at, q)
        place(model, KEY_NORM, block, at, k)
        keep(k, keys[block], rows, at)
        keep(v, values[block], rows, at)
        attention(model, q, keys[block], values[block], rows, at, mixed)
        product(model, OUTPUT, block, mixed, y)
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
    """`forward` for matrices of one type. Its arguments are the numbers of layout.Call, so that no numba is needed."""
    like = {"fp32": np.float32, "int8": np.int8}[weights]

    @helper
    def call(
        addresses: int, sizes: int, shape: int, eps: int, tokens: int, rows: int, at: int, count: int, many: int,
        keys: int, values: int, batch: int, logits: int, wanted: int, vocabulary: int, memory: int, room: int,
        floats: int,
    ) -> None:  # fmt: skip
        one = numba.carray(pointer(shape), (7,), np.int64)
        L, H, kv_heads, D, S, layernorm, mlp = one[0], one[1], one[2], one[3], one[4], one[5] != 0, one[6]
        space = numba.carray(pointer(memory), (room + floats,), np.float32)
        cache = (L, batch, kv_heads, S, D)
        model = Model(
            numba.carray(pointer(addresses), (PARTS, L), np.int64),
            numba.carray(pointer(sizes), (PARTS, 2), np.int64),
            numba.carray(pointer(addresses), (0,), like),
            L, H, kv_heads, D, S, layernorm, mlp, numba.carray(pointer(eps), (1,), np.float64)[0],
            many != 0, space[:room],
        )  # fmt: skip
        forward(
            model,
            numba.carray(pointer(tokens), (count,), np.int64),
            numba.carray(pointer(rows), (count,), np.int64),
            numba.carray(pointer(at), (count,), np.int64),
            numba.carray(pointer(keys), cache, np.float32),
            numba.carray(pointer(values), cache, np.float32),
            numba.carray(pointer(logits), (wanted, vocabulary), np.float32),
            space[room:],
        )

    return call

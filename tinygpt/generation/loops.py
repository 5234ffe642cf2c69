"""The GPT as plain loops over arrays: what the decoder computes on a CPU.

`forward(…)` reads like the equations, top to bottom; numba compiles it (compiled.py). Letters: N tokens, each at a
position of a sequence; C = n_embd, H heads, D = head_dim, L blocks, S positions in the cache, B sequences, V tokens in
the vocabulary. All numbers are float32, but for matrices that were quantized to int8.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np
from numba.extending import overload

from tinygpt.generation.compiled import entry, helper, pointer
from tinygpt.generation.vectors import LANES, add_product, load, store, zeros

Array = np.ndarray
GELU, GELU_EXACT, SWIGLU = 0, 1, 2
FEW = 4  # tokens whose products are as fast one by one


# Which array a function reads: each may be three, the weight itself and two that not every model has
BIAS, SCALE = 1, 2
(EMBEDDING, POSITION, COS, SIN, NORM1, QUERY, KEY, VALUE, QUERY_NORM, KEY_NORM, OUTPUT, NORM2, GATE, UP, DOWN, NORM,
 HEAD) = range(0, 51, 3)  # fmt: skip


class Weights(NamedTuple):
    """Where the weights of a model lie: in its own memory, row by row."""

    addresses: Array  # (51, L) uint64; 0: this model has no such array
    sizes: Array  # (51, 2) int64: rows (1 of a vector) and columns
    like: Array  # empty; of the type that matrices have, float32 or int8


class Shape(NamedTuple):
    """What the arrays do not say."""

    H: int
    kv_heads: int
    D: int
    eps: float
    layernorm: bool
    mlp: int  # GELU, GELU_EXACT or SWIGLU


# Parts


@helper
def has(weights: Weights, part: int) -> Any:
    return weights.addresses[part, 0] != 0


@helper
def array(weights: Weights, part: int, block: int) -> Array:
    """An array of a block, float32: (rows, columns)."""
    rows, columns = weights.sizes[part]
    return numba.carray(pointer(weights.addresses[part, block]), (rows, columns), np.float32)


@helper
def matrix(weights: Weights, part: int, block: int) -> Array:
    """The matrix of a block, (outputs, inputs): float32, or int8 that its scale makes up for."""
    rows, columns = weights.sizes[part]
    return numba.carray(pointer(weights.addresses[part, block]), (rows, columns), weights.like.dtype)


@helper
def dot(a: Array, b: Array) -> Any:
    total = np.float32(0)
    for j in range(len(b)):
        total += np.float32(a[j]) * b[j]
    return total


@helper
def product(weights: Weights, part: int, block: int, x: Array, many: bool, out: Array) -> None:
    """out = x Wᵀ · scale + bias: (N, inputs) → (N, outputs). A row of W is read once for up to eight tokens."""
    weight = matrix(weights, part, block)
    if many:
        for first in range(0, len(x), LANES):
            some = slice(first, first + LANES)
            product_of_many(weight, x[some], out[some])
    else:
        for i in range(len(weight)):
            for n in range(len(x)):
                out[n, i] = dot(weight[i], x[n])
    if has(weights, part + SCALE):
        out *= array(weights, part + SCALE, block)
    if has(weights, part + BIAS):
        out += array(weights, part + BIAS, block)


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
def product_of_many(weight: Array, x: Array, out: Array) -> None:
    """x Wᵀ of at most eight tokens, each in a lane of a vector; eight rows of W at once, to have work for each read."""
    inputs = x.shape[1]
    columns, results = np.zeros(inputs * LANES, dtype=np.float32), np.empty(8 * LANES, dtype=np.float32)
    room = np.empty((8, inputs), dtype=np.float32)
    for n in range(len(x)):
        for k in range(inputs):
            columns[k * LANES + n] = x[n, k]
    whole = len(weight) - len(weight) % 8
    for i in range(0, whole, 8):
        rows = floats(weight[i : i + 8], room)
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
    mean, squares = np.float32(x.sum() / len(x)), np.float32(0)
    for i in range(len(x)):
        squares += (x[i] - mean) * (x[i] - mean)
    size = np.float32(1 / math.sqrt(squares / len(x) + eps))
    for i in range(len(x)):
        out[i] = (x[i] - mean) * size * weight[i]


@helper
def norm(x: Array, weights: Weights, part: int, block: int, shape: Shape, out: Array) -> None:
    """RMSNorm or LayerNorm of each token: (N, C)."""
    weight = array(weights, part, block)[0]
    for n in range(len(x)):
        if shape.layernorm:
            layer_norm(x[n], weight, shape.eps, out[n])
        else:
            rms_norm(x[n], weight, shape.eps, out[n])
    if has(weights, part + BIAS):
        out += array(weights, part + BIAS, block)


@helper
def rotate(head: Array, cos: Array, sin: Array) -> None:
    """Turn each pair of coordinates, i and i + D/2, by the angle of the position, in place."""
    half = len(head) // 2
    for i in range(half):
        a, b = head[i], head[i + half]
        head[i] = a * cos[i] + b * sin[i]
        head[i + half] = b * cos[i + half] + a * sin[i + half]


@helper
def place(heads: Array, weights: Weights, norms: int, block: int, at: Array, shape: Shape) -> None:
    """QK-norm and rotary position, where the model has them, of each head: (N, heads · D), in place."""
    for n in range(len(heads)):
        for start in range(0, heads.shape[1], shape.D):
            head = heads[n, start : start + shape.D]
            if has(weights, norms):
                rms_norm(head, array(weights, norms, block)[0], shape.eps, head)
            if has(weights, COS):
                rotate(head, array(weights, COS, 0)[at[n]], array(weights, SIN, 0)[at[n]])


@helper
def keep(heads: Array, cache: Array, rows: Array, at: Array) -> None:
    """Keep keys, or values, of N tokens in the cache: (N, kv_heads · D) → (B, kv_heads, S, D)."""
    D = cache.shape[3]
    for n in range(len(heads)):
        for head in range(cache.shape[1]):
            cache[rows[n], head, at[n]] = heads[n, head * D : (head + 1) * D]


@helper
def attend(q: Array, keys: Array, values: Array, count: int, out: Array) -> None:
    """softmax(q kᵀ / √D) v of one head over the first `count` positions: q (D,), keys and values (S, D)."""
    weights = np.empty(count, dtype=np.float32)
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
def attention(q: Array, keys: Array, values: Array, rows: Array, at: Array, shape: Shape, out: Array) -> None:
    """Each head of each token attends to its sequence up to the token itself: q and out (N, H · D)."""
    group, D = shape.H // shape.kv_heads, shape.D
    for n in range(len(q)):
        for head in range(shape.H):
            part = slice(head * D, (head + 1) * D)
            attend(q[n, part], keys[rows[n], head // group], values[rows[n], head // group], at[n] + 1, out[n, part])


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


@entry
def forward(
    weights: Weights,
    shape: Shape,
    tokens: Array,
    rows: Array,
    at: Array,
    many: bool,
    keys: Array,
    values: Array,
    logits: Array,
) -> None:
    """Read N tokens: token n of the sequence rows[n] at position at[n], after all those before it.

    many: whether to compute eight at a time, which pays for more than FEW. It changes the order of sums, so it is the
    same for all threads that share a step. keys and values (L, B, kv_heads, S, D) get the tokens' own. logits: (N, V)
    after each token, or (0, V) where none are wanted.
    """
    N, C = len(tokens), weights.sizes[EMBEDDING, 1]
    x, y = np.empty((N, C), dtype=np.float32), np.empty((N, C), dtype=np.float32)
    q, mixed = np.empty((N, shape.H * shape.D), dtype=np.float32), np.empty((N, shape.H * shape.D), dtype=np.float32)
    k = np.empty((N, shape.kv_heads * shape.D), dtype=np.float32)
    v = np.empty((N, shape.kv_heads * shape.D), dtype=np.float32)
    hidden = weights.sizes[UP, 0]
    gate, up = np.empty((N, hidden), dtype=np.float32), np.empty((N, hidden), dtype=np.float32)
    for n in range(N):
        x[n] = array(weights, EMBEDDING, 0)[tokens[n]]
        if has(weights, POSITION):
            x[n] += array(weights, POSITION, 0)[at[n]]
    for block in range(len(keys)):
        norm(x, weights, NORM1, block, shape, y)
        product(weights, QUERY, block, y, many, q)
        product(weights, KEY, block, y, many, k)
        product(weights, VALUE, block, y, many, v)
        place(q, weights, QUERY_NORM, block, at, shape)
        place(k, weights, KEY_NORM, block, at, shape)
        keep(k, keys[block], rows, at)
        keep(v, values[block], rows, at)
        attention(q, keys[block], values[block], rows, at, shape, mixed)
        product(weights, OUTPUT, block, mixed, many, y)
        x += y
        norm(x, weights, NORM2, block, shape, y)
        product(weights, UP, block, y, many, up)
        if shape.mlp == SWIGLU:
            product(weights, GATE, block, y, many, gate)
        activate(gate, up, shape.mlp)
        product(weights, DOWN, block, up, many, y)
        x += y
    if len(logits):
        norm(x, weights, NORM, 0, shape, y)
        product(weights, HEAD, 0, y, many, logits)

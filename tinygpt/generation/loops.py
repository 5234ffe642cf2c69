"""The GPT as plain loops over arrays: what the decoder computes on a CPU.

`forward(…)` reads like the equations, top to bottom; numba compiles it (compiled.py). Letters: N tokens, each at a
position of a sequence; C = n_embd, H heads, D = head_dim, L blocks, S positions in the cache, B sequences, V tokens in
the vocabulary. All numbers are float32, but for matrices that were quantized to int8.
"""

import math
from typing import Any, NamedTuple

import numba
import numpy as np

from tinygpt.generation.compiled import entry, helper, pointer

Array = np.ndarray
GELU, GELU_EXACT, SWIGLU = 0, 1, 2


class Stack(NamedTuple):
    """An array of each block, where it lies in the model's own memory; without any, the model has no such part."""

    addresses: Array  # (L,) uint64, or (0,)
    rows: int  # 1 of a vector
    columns: int
    like: Array  # empty; its type is that of the arrays


class Matrix(NamedTuple):
    """A matrix of each block: out[i] = scale[i] · (weight[i] · x) + bias[i]. Float32 needs no scale."""

    weight: Stack  # (outputs, inputs), float32 or int8
    scale: Stack  # (1, outputs)
    bias: Stack  # (1, outputs)


class Weights(NamedTuple):
    """The weights of a model. An array is empty where the model has no such part."""

    embedding: Array  # (V, C)
    position: Array  # (S, C): learned positions
    cos: Array  # (S, D): rotary positions; sin has the sign of model/gpt.py's
    sin: Array
    norm1: Stack  # (1, C)
    norm1_bias: Stack
    query: Matrix
    key: Matrix
    value: Matrix
    query_norm: Stack  # (1, D)
    key_norm: Stack
    output: Matrix
    norm2: Stack
    norm2_bias: Stack
    gate: Matrix
    up: Matrix
    down: Matrix
    norm: Stack  # the last three are of one "block"
    norm_bias: Stack
    head: Matrix


class Shape(NamedTuple):
    """What the arrays do not say."""

    H: int
    kv_heads: int
    D: int
    eps: float
    layernorm: bool
    mlp: int  # GELU, GELU_EXACT or SWIGLU


# Parts, used by all entries


@helper
def array_of(stack: Stack, block: int) -> Array:
    """The array of a block: (rows, columns)."""
    where, shape = pointer(stack.addresses[block]), (stack.rows, stack.columns)
    return numba.carray(where, shape, stack.like.dtype)


@helper
def dot(a: Array, b: Array) -> Any:
    total = np.float32(0)
    for j in range(len(b)):
        total += a[j] * b[j]
    return total


@helper
def dots(row: Array, x: Array, out: Array) -> None:
    """The dot products of a row with N vectors, four at a time: each number of the row is loaded once for them."""
    whole = len(x) - len(x) % 4
    for n in range(0, whole, 4):
        x0, x1, x2, x3 = x[n], x[n + 1], x[n + 2], x[n + 3]
        a = b = c = d = np.float32(0)
        for j in range(len(row)):
            a += row[j] * x0[j]
            b += row[j] * x1[j]
            c += row[j] * x2[j]
            d += row[j] * x3[j]
        out[n], out[n + 1], out[n + 2], out[n + 3] = a, b, c, d
    for n in range(whole, len(x)):
        out[n] = dot(row, x[n])


@helper
def product(matrix: Matrix, block: int, x: Array, out: Array) -> None:
    """out = x Wᵀ + bias: (N, inputs) → (N, outputs). A row of W is read once for all tokens."""
    weight = array_of(matrix.weight, block)
    for first in range(0, len(x), 8):
        some = x[first : first + 8]
        for i in range(len(weight)):
            dots(weight[i], some, out[first : first + 8, i])
    if len(matrix.scale.addresses):
        out *= array_of(matrix.scale, block)
    if len(matrix.bias.addresses):
        out += array_of(matrix.bias, block)


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
def norm(x: Array, weight: Stack, bias: Stack, block: int, shape: Shape, out: Array) -> None:
    """RMSNorm or LayerNorm of each token: (N, C)."""
    weights = array_of(weight, block)[0]
    for n in range(len(x)):
        if shape.layernorm:
            layer_norm(x[n], weights, shape.eps, out[n])
        else:
            rms_norm(x[n], weights, shape.eps, out[n])
    if len(bias.addresses):
        out += array_of(bias, block)


@helper
def rotate(head: Array, cos: Array, sin: Array) -> None:
    """Turn each pair of coordinates, i and i + D/2, by the angle of the position, in place."""
    half = len(head) // 2
    for i in range(half):
        a, b = head[i], head[i + half]
        head[i] = a * cos[i] + b * sin[i]
        head[i + half] = b * cos[i + half] + a * sin[i + half]


@helper
def place(heads: Array, norms: Stack, block: int, at: Array, weights: Weights, shape: Shape) -> None:
    """QK-norm and rotary position, where the model has them, of each head: (N, heads · D), in place."""
    for n in range(len(heads)):
        for start in range(0, heads.shape[1], shape.D):
            head = heads[n, start : start + shape.D]
            if len(norms.addresses):
                rms_norm(head, array_of(norms, block)[0], shape.eps, head)
            if len(weights.cos):
                rotate(head, weights.cos[at[n]], weights.sin[at[n]])


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
        weights[s] = math.exp(weights[s] - largest)
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
                up[n, i] = gate[n, i] / (np.float32(1) + math.exp(-gate[n, i])) * x
            elif kind == GELU_EXACT:
                up[n, i] = np.float32(0.5) * x * (np.float32(1) + math.erf(x * np.float32(math.sqrt(0.5))))
            else:
                inner = np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x * x * x)
                up[n, i] = np.float32(0.5) * x * (np.float32(1) + math.tanh(inner))


@entry
def forward(
    weights: Weights, shape: Shape, tokens: Array, rows: Array, at: Array, keys: Array, values: Array, logits: Array
) -> None:
    """Read N tokens: token n of the sequence rows[n] at position at[n], after all those before it.

    keys and values (L, B, kv_heads, S, D) get theirs. logits: (N, V) after each token, or (0, V) where none are wanted.
    """
    N, C = len(tokens), weights.embedding.shape[1]
    x, y = np.empty((N, C), dtype=np.float32), np.empty((N, C), dtype=np.float32)
    q, mixed = np.empty((N, shape.H * shape.D), dtype=np.float32), np.empty((N, shape.H * shape.D), dtype=np.float32)
    k = np.empty((N, shape.kv_heads * shape.D), dtype=np.float32)
    v = np.empty((N, shape.kv_heads * shape.D), dtype=np.float32)
    gate = np.empty((N, weights.gate.weight.rows), dtype=np.float32)
    up = np.empty((N, weights.up.weight.rows), dtype=np.float32)
    for n in range(N):
        x[n] = weights.embedding[tokens[n]]
        if len(weights.position):
            x[n] += weights.position[at[n]]
    for block in range(len(weights.norm1.addresses)):
        norm(x, weights.norm1, weights.norm1_bias, block, shape, y)
        product(weights.query, block, y, q)
        product(weights.key, block, y, k)
        product(weights.value, block, y, v)
        place(q, weights.query_norm, block, at, weights, shape)
        place(k, weights.key_norm, block, at, weights, shape)
        keep(k, keys[block], rows, at)
        keep(v, values[block], rows, at)
        attention(q, keys[block], values[block], rows, at, shape, mixed)
        product(weights.output, block, mixed, y)
        x += y
        norm(x, weights.norm2, weights.norm2_bias, block, shape, y)
        product(weights.up, block, y, up)
        if shape.mlp == SWIGLU:
            product(weights.gate, block, y, gate)
        activate(gate, up, shape.mlp)
        product(weights.down, block, up, y)
        x += y
    if len(logits):
        norm(x, weights.norm, weights.norm_bias, 0, shape, y)
        product(weights.head, 0, y, logits)

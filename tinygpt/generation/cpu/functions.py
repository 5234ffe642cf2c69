"""The arithmetic of the compiled loops, on numbers and vectors: dot product, norms, attention, activations.

Each is written so that it vectorizes: sums in any order, no check for division by zero, and eˣ as a polynomial.
"""

import math
from typing import Any

import numba
import numpy as np
from numba.extending import overload

from tinygpt.generation.cpu.layout import GELU_EXACT, SWIGLU

Array = np.ndarray
# Sums may be reordered, so that they use vector instructions; NaN and infinity stay what they are.
FASTMATH = {"reassoc", "contract", "nsz", "arcp"}


def jit(function: Any) -> Any:
    """Compile a function when it is called. A check for division by zero would keep loops from being vectorized."""
    return numba.njit(nogil=True, fastmath=FASTMATH, error_model="numpy")(function)


@jit
def dot(a: Array, b: Array) -> Any:
    total = np.float32(0)
    for j in range(len(b)):
        total += np.float32(a[j]) * b[j]
    return total


@jit
def add(total: Array, x: Array) -> None:
    for i in range(len(x)):
        total[i] += x[i]


@jit
def exp(x: Any) -> Any:
    """eˣ, in operations that vectorize: 2ⁿ · eʳ with n whole and |r| ≤ ln(2)/2, where a Taylor series is short."""
    x = max(min(x, np.float32(88)), np.float32(-87))
    n = np.floor(x * np.float32(1 / math.log(2)) + np.float32(0.5))
    r = x - n * np.float32(math.log(2))
    series = np.float32(1)
    for i in (6, 5, 4, 3, 2, 1):
        series = np.float32(1) + series * r * np.float32(1 / i)
    return series * np.int32((np.int32(n) + np.int32(127)) << np.int32(23)).view(np.float32)


@jit
def tanh(x: Any) -> Any:
    return np.float32(1) - np.float32(2) / (exp(np.float32(2) * x) + np.float32(1))


@jit
def erf(x: Any) -> Any:
    """Within 2e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26."""
    a = abs(x)
    t = np.float32(1) / (np.float32(1) + np.float32(0.3275911) * a)
    series = np.float32(1.061405429)
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + np.float32(c)
    return math.copysign(np.float32(1) - series * t * exp(-a * a), x)


@jit
def rms_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """x / √(mean(x²) + eps) · weight"""
    inverse_rms = np.float32(1 / math.sqrt(dot(x, x) / len(x) + eps))
    for i in range(len(x)):
        out[i] = x[i] * inverse_rms * weight[i]


@jit
def layer_norm(x: Array, weight: Array, eps: float, out: Array) -> None:
    """(x − mean) / √(variance + eps) · weight"""
    total, squares = np.float32(0), np.float32(0)
    for i in range(len(x)):
        total += x[i]
    mean = total / np.float32(len(x))
    for i in range(len(x)):
        squares += (x[i] - mean) * (x[i] - mean)
    inverse_std = np.float32(1 / math.sqrt(squares / len(x) + eps))
    for i in range(len(x)):
        out[i] = (x[i] - mean) * inverse_std * weight[i]


@jit
def rotate(head: Array, cos: Array, sin: Array) -> None:
    """Turn each pair of coordinates, i and i + D/2, by the angle of the position, in place."""
    half = len(head) // 2
    for i in range(half):
        a, b = head[i], head[i + half]
        head[i] = a * cos[i] + b * sin[i]
        head[i + half] = b * cos[i + half] + a * sin[i + half]


@jit
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
        share = weights[s] / total
        for i in range(len(out)):
            out[i] += share * values[s, i]


@jit
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


def as_float32(rows: Array, space: Array) -> Array:
    """Rows of a matrix as float32: themselves, or converted into `space`."""
    raise NotImplementedError("Compiled functions alone call this, in one of the forms below.")


@overload(as_float32, strict=False)  # type: ignore[untyped-decorator]
def compiled_as_float32(rows: Any, space: Any) -> Any:
    if rows.dtype == space.dtype:
        return lambda rows, space: rows

    def convert(rows: Array, space: Array) -> Array:
        for j in range(len(rows)):
            for k in range(rows.shape[1]):
                space[j, k] = rows[j, k]
        return space

    return convert

"""Rotate a vector by its position: rotary position embedding (RoPE) of one vector.

Coordinates c and c + D/2 form arrow c, from 0 to D/2 − 1: a vector in a plane. At position p, arrow c is rotated by the
angle p × theta^(−2c/D), in radians. An arrow (a, b) rotated by an angle is

    (a cos − b sin, b cos + a sin)

and both numbers go back to the coordinates of a and b.

    rotate(tensor([1.0, 0.0]), 1, 500.0) → tensor([0.5403, 0.8415])  # one arrow, rotated by 1 radian: cos 1 and sin 1
"""

import torch
from torch import Tensor


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """The vector x (D,), rotated for its position: (D,)."""
    raise NotImplementedError

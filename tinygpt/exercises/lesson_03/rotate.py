"""Turn a vector by its position: rotary positions (RoPE), for one vector.

A vector of D numbers is D/2 arrows in a plane: coordinates c and c + D/2 together are arrow c, from 0 to D/2 − 1. At
position p, arrow c is turned by the angle p × theta^(−2c/D), in radians. An arrow (a, b) turned by an angle is

    (a cos − b sin, b cos + a sin)

and both numbers go back to the places that a and b came from.

    rotate(tensor([1.0, 0.0]), 1, 500.0) → tensor([0.5403, 0.8415])  # one arrow, turned by 1 radian: cos 1 and sin 1
"""

import torch
from torch import Tensor


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """The vector x (D,), turned as for its position: (D,)."""
    raise NotImplementedError

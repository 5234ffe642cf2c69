"""Turn a vector by its position: rotary positions (RoPE), for one vector.

A vector of D numbers is D/2 arrows in a plane: coordinate c and coordinate c + D/2 are the two ends of arrow c. At
position p, arrow c is turned by the angle p × theta^(−2c/D), in radians. An arrow (a, b) turned by an angle is

    (a cos − b sin, b cos + a sin)
"""

import torch
from torch import Tensor


def rotate(x: Tensor, position: int, theta: float) -> Tensor:
    """The vector x (D,), turned as for its position: (D,)."""
    raise NotImplementedError

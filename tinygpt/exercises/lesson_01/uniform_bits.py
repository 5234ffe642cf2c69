"""The weakest baseline: the bits of a prediction that knows only which bytes occur.

Writing down one of n values that are all equally likely takes log₂ n bits. Count the different byte values in `text`,
and say how many bits a byte that costs. Any model that has learned something needs less.

    uniform_bits(b"abab") → 1.0  # two values: one bit tells them apart
"""

import math


def uniform_bits(text: bytes) -> float:
    """Bits for each byte of a text, all values that occur in it being equally likely."""
    raise NotImplementedError

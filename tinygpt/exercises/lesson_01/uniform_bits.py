"""The weakest baseline: bits per byte of a uniform prediction over the bytes that occur.

Encoding one of n equally likely values takes log₂ n bits. Count the different byte values in `text`, and return the
bits per byte. Any model that has learned something needs fewer.

    uniform_bits(b"abab") → 1.0  # two values: one bit tells them apart
"""

import math


def uniform_bits(text: bytes) -> float:
    """Bits per byte of a text if all byte values in it are equally likely."""
    raise NotImplementedError

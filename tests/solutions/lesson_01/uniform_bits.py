import math


def uniform_bits(text: bytes) -> float:
    """Bits for each byte of a text, all values that occur in it being equally likely."""
    return math.log2(len(set(text)))

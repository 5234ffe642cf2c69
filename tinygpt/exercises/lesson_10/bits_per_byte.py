"""Bits per byte: the loss in a unit that can be compared between tokenizers.

`losses` are the losses of all tokens of a text, in nats. Add them up, convert nats to bits (a bit is ln 2 = 0.693
nats), and divide by the number of UTF-8 bytes of the text: an é is one character and two bytes.

    bits_per_byte([0.6931, 0.6931], "ab") → 1.0
"""

import math


def bits_per_byte(losses: list[float], text: str) -> float:
    """The losses of all tokens of a text, in nats, and the text → bits per byte."""
    raise NotImplementedError

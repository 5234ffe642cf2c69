import math


def bits_per_byte(losses: list[float], text: str) -> float:
    """The losses of all tokens of a text, in nats, and the text → bits per byte."""
    return sum(losses) / math.log(2) / len(text.encode())

import bz2


def compressed_bits(train: bytes, held_out: bytes) -> float:
    """Bits per byte of `held_out`."""
    added = len(bz2.compress(train + held_out, 9)) - len(bz2.compress(train, 9))
    return added * 8 / len(held_out)

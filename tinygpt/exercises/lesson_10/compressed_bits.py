"""A baseline for any text: what does the compressor bzip2 need for the held-out part, once it has seen the rest?

Compress the training text and the held-out text together (`bz2.compress(data, 9)`), and the training text alone; the
difference is what the held-out part added. In bits, for each held-out byte. A model that needs fewer bits per byte has
found something in the text that the compressor did not.
"""

import bz2


def compressed_bits(train: bytes, held_out: bytes) -> float:
    """Bits per byte of `held_out`."""
    raise NotImplementedError

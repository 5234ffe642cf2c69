"""A baseline for any text: bits per byte of the compressor bzip2 on the held-out part.

Compress the training and held-out text together (`bz2.compress(data, 9)`), and the training text alone. Return the
difference of the sizes in bits, divided by the number of held-out bytes. A model that needs fewer bits per byte has
learned more about the text than the compressor.
"""

import bz2


def compressed_bits(train: bytes, held_out: bytes) -> float:
    """Bits per byte of `held_out`."""
    raise NotImplementedError

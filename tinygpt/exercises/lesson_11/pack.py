"""Packing: several short conversations in one row of the context's length.

Take the conversations in order. Put each into the current row if it fits there as a whole; otherwise begin a new row
with it. What is left of a row stays empty (padding). This is called next-fit; a better packing would look for a place
in earlier rows, too.

    pack([3, 4, 2, 6], 8) → [[0, 1], [2, 3]]  # 3 + 4 fit into 8, a 2 more does not
"""


def pack(lengths: list[int], size: int) -> list[list[int]]:
    """The lengths of conversations, each at most `size` → rows of their numbers, counted from 0."""
    raise NotImplementedError

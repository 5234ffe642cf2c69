def pack(lengths: list[int], size: int) -> list[list[int]]:
    """The lengths of conversations, each at most `size` → rows of their numbers, counted from 0."""
    rows: list[list[int]] = []
    room = 0
    for number, length in enumerate(lengths):
        if length > room:
            rows.append([])
            room = size
        rows[-1].append(number)
        room -= length
    return rows

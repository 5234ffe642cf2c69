def merge(pieces: list[bytes], pair: tuple[bytes, bytes]) -> list[bytes]:
    """The pieces, with each occurrence of the pair as one piece."""
    merged: list[bytes] = []
    place = 0
    while place < len(pieces):
        step = 2 if tuple(pieces[place : place + 2]) == pair else 1
        merged.append(b"".join(pieces[place : place + step]))
        place += step
    return merged

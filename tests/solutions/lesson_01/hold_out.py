def hold_out(text: str, share: float) -> tuple[str, str]:
    """The training part and the held-out part of a text."""
    until = int(len(text) * (1 - share))
    return text[:until], text[until:]

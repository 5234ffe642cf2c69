"""Split a text: hold out its end for evaluation.

A model is evaluated on text that it was not trained on. Split one long text: the training part is the first
int(len(text) × (1 − fraction)) characters, the held-out part is the rest.

    hold_out("abcdefghij", 0.2) → ("abcdefgh", "ij")
"""


def hold_out(text: str, fraction: float) -> tuple[str, str]:
    """The training part and the held-out part of a text."""
    raise NotImplementedError

"""Cut the end off a text, to judge by what was never learned from.

A model is judged on text that it did not see while learning. Of one long text, keep the last `share` of the characters
apart: the training part is the first int(len(text) × (1 − share)) characters, the held-out part is the rest.

    hold_out("abcdefghij", 0.2) → ("abcdefgh", "ij")
"""


def hold_out(text: str, share: float) -> tuple[str, str]:
    """The training part and the held-out part of a text."""
    raise NotImplementedError

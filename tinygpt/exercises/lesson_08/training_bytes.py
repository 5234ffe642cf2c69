"""How much memory a model takes to train with AdamW, before the first sequence.

In fp32 a number takes 4 bytes. Each weight has its value, its gradient, and AdamW's state for it: the running mean of
its gradient, and that of its square. (Activations come on top, and grow with the batch.)
"""


def training_bytes(parameters: int) -> int:
    """The bytes that weights, gradients and AdamW take."""
    raise NotImplementedError

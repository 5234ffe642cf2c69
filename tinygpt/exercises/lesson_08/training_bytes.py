"""Memory for training with AdamW, without activations.

In fp32 a number takes 4 bytes. Each weight has its value, its gradient, and AdamW's state: the running means of its
gradient and of the gradient's square. (Activations are additional, and grow with the batch.)
"""


def training_bytes(parameters: int) -> int:
    """The bytes that weights, gradients and AdamW take."""
    raise NotImplementedError

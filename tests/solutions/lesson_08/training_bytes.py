def training_bytes(parameters: int) -> int:
    """The bytes that weights, gradients and AdamW take."""
    return 4 * 4 * parameters

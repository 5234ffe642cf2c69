def count_parameters(vocab_size: int, n_embd: int, head_dim: int, hidden: int, n_layer: int) -> int:
    """V = vocab_size, C = n_embd, D = head_dim."""
    C = n_embd
    block = 4 * C * C + 3 * C * hidden + 2 * C + 2 * head_dim
    return 2 * vocab_size * C + n_layer * block + C

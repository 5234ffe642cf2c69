def kv_cache_bytes(
    n_layer: int, heads: int, head_dim: int, context_length: int, sequences: int, bytes_a_number: int
) -> int:
    """The bytes of a full cache."""
    return 2 * n_layer * heads * head_dim * context_length * sequences * bytes_a_number

"""Memory for generation: the KV cache.

During generation the keys and values of all tokens so far are cached, so that each is computed once. For each block,
sequence, head of keys and values (`heads`; query heads may share one) and token of the context, these are one key and
one value of `head_dim` numbers each.

    kv_cache_bytes(3, 3, 32, 128, 1, 4) → 294912  # the default model, one sequence, fp32
"""


def kv_cache_bytes(
    n_layer: int, heads: int, head_dim: int, context_length: int, sequences: int, bytes_a_number: int
) -> int:
    """The bytes of a full cache."""
    raise NotImplementedError

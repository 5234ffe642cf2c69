"""Count the parameters of a GPT before it is built.

The shape is TinyGPT's default: RMSNorm, RoPE, SwiGLU, no biases, untied embeddings. The parameters are

    token embedding   V × C
    each block        query, key, value, output: C × C each; gate, up, down: C × hidden each;
                      two norms of C numbers; two of D numbers, for the queries and keys of all heads
    final norm        C
    head              C × V

    count_parameters(10, 4, 2, 8, 1) → 256  # 40 + 172 + 4 + 40
"""


def count_parameters(vocab_size: int, n_embd: int, head_dim: int, hidden: int, n_layer: int) -> int:
    """V = vocab_size, C = n_embd, D = head_dim."""
    raise NotImplementedError

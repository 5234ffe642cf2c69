"""Logits → text: sampling, decoding with a KV cache, and samples with their metrics."""

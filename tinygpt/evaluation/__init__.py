"""How good a model is: loss, perplexity and bits per byte of held-out text."""

"""Compare TinyGPT with other projects on one machine: scripts to run by hand, not part of the package.

`python -m benchmark.race` trains TinyGPT, nanoGPT and nanochat on the same text; `python -m benchmark.beside` measures
tokens per second of training and decoding. Nothing in tinygpt/ or stages/ imports this package.
"""

import tinygpt  # noqa: F401  # before torch: limits how long PyTorch's threads spin

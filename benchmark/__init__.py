"""How TinyGPT compares, measured beside others on one machine: scripts to run by hand, no part of the package.

`python -m benchmark.race` trains it and two projects that its users know on the same text; `python -m benchmark.beside`
measures tokens a second of training and of decoding. Nothing in tinygpt/ or stages/ imports anything here.
"""

import tinygpt  # noqa: F401  # before torch: it bounds how long PyTorch's threads spin

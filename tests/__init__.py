"""Tests, by subject. They and the processes that they start compute in one thread: models this small run faster so, and
beside whatever else the machine is doing.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is loaded

import tinygpt  # noqa: F401  # likewise: it bounds how long PyTorch's threads spin

"""How near decoding comes to the limit of the memory: bytes of weights read a second, over what this machine can read.

    python -m benchmark.limit --repeats 5

One sequence, fp32, GPT-2's shape, one thread: each token reads all weights once. The limit is the sum of an array of as
many bytes, by PyTorch on one thread; both are measured in turns.
"""

import argparse
import statistics
import tempfile
from functools import partial
from pathlib import Path

import torch

from benchmark import common
from benchmark.worker import TinyGPT, speed, write_model
from tinygpt import console
from tinygpt.checkpoints.model_folder import load

DECODED = ("0.9M", "10.9M")


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the bytes that decoding reads with the memory's speed.")
    parser.add_argument("--repeats", type=common.at_least_one, default=5, help="repeats of each measurement")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device("cpu")
    table = [("size", "MB of weights", "tokens/s", "GB/s", "the machine's GB/s", "share", "slowest–fastest")]
    with tempfile.TemporaryDirectory() as name:
        for size in DECODED:
            write_model(Path(name) / f"gpt2-{size}", "gpt2", size)
            model, _ = load(Path(name) / f"gpt2-{size}")
            model.position_embedding = None  # of which a token reads one row
            array = torch.ones(sum(weight.numel() for weight in model.parameters() if weight.dim() == 2))
            size_in_bytes, decoding = array.nbytes, TinyGPT(Path(name), device).decode("gpt2", size, 1)
            speeds, limits = [], []
            for _ in range(options.repeats):
                speeds.append(speed(decoding, device))
                limits.append(speed(partial(read, array), device))
            shares = [tokens * size_in_bytes / limit for tokens, limit in zip(speeds, limits, strict=True)]
            tokens, limit = statistics.median(speeds), statistics.median(limits)
            table.append((
                size, f"{size_in_bytes / 1e6:.1f}", f"{tokens:.0f}", f"{tokens * size_in_bytes / 1e9:.1f}",
                f"{limit / 1e9:.1f}", f"{statistics.median(shares):.0%}", f"{min(shares):.0%}–{max(shares):.0%}",
            ))  # fmt: skip
    print(f"{common.machine(device)}\n")
    common.print_table(table)


def read(array: torch.Tensor) -> int:
    """Read all of an array; its bytes, as a decoding returns its tokens."""
    array.sum()
    return array.nbytes


if __name__ == "__main__":
    with console.prepared():
        main()

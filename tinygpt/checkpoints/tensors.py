"""Tensors in safetensors files."""

import os
import re
from pathlib import Path

import safetensors
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors (of any shape) as a safetensors file; OSError where the system refuses.

    safetensors tells that in words only.
    """
    try:
        save_file(tensors, path, metadata)
    except safetensors.SafetensorError as problem:
        number = re.search(r"os error (\d+)", str(problem))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from problem

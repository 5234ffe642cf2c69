"""Write tensors to safetensors files, and read their headers."""

import os
import re
from pathlib import Path

import safetensors
from safetensors.torch import save_file
from torch import Tensor

from tinygpt.files.text import check_fetched


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors as a safetensors file. Raises OSError, which safetensors reports only in a message."""
    try:
        save_file(tensors, path, metadata)
    except safetensors.SafetensorError as problem:
        number = re.search(r"os error (\d+)", str(problem))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from problem


def read_header(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name → (shape, dtype) of every tensor in a safetensors file. Raises ValueError if it is damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            slices = {name: file.get_slice(name) for name in file.keys()}
            return {name: (tuple(part.get_shape()), part.get_dtype()) for name, part in slices.items()}
    except safetensors.SafetensorError as problem:
        check_fetched(path)
        raise ValueError(f"{path} is damaged: {problem}.") from problem

"""Every combination of some settings: what `dvc exp run --queue -S a=1,2 -S b=3,4` queues.

The first setting changes slowest: all values of the last come before the next value of the first.

    grid({"a": [1, 2], "b": [3, 4]}) → [{"a": 1, "b": 3}, {"a": 1, "b": 4}, {"a": 2, "b": 3}, {"a": 2, "b": 4}]
"""

from typing import Any


def grid(settings: dict[str, list[Any]]) -> list[dict[str, Any]]:
    """Setting → its values; returns one dictionary per experiment, and one empty dictionary without settings."""
    raise NotImplementedError

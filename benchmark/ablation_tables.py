"""The tables."""

from typing import Any


def renew_page(*a: Any) -> None:
    pass

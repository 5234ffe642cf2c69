"""Checks of command-line options."""

from collections.abc import Iterable
from pathlib import Path

import typer


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """Raise ValueError if one of the options `names`, which would be ignored, was given."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name != "DEFAULT":
            raise ValueError(f"{parameter.opts[0]} {why}.")


def must_be_file(path: Path | None, option: str) -> None:
    """Raise ValueError, before any work, if no file can be written at `path`."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder; {option} needs a file name, such as {path / 'report'}.")
    must_be_folder(path.parent, option)


def must_be_folder(path: Path | None, option: str) -> None:
    """Raise ValueError, before any work, if `path` cannot be a folder because it or a parent is a file."""
    for place in (path, *path.parents) if path else ():
        if place.is_file():
            raise ValueError(f"{place} is a file; {option} needs a folder there. Choose another path.")

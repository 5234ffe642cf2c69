"""What several commands share: checks of options."""

from collections.abc import Iterable
from pathlib import Path

import typer


def refuse(context: typer.Context, names: Iterable[str], why: str) -> None:
    """ValueError where one of these options was given, which would be ignored."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in names and source is not None and source.name != "DEFAULT":
            raise ValueError(f"{parameter.opts[0]} {why}.")


def must_be_file(path: Path | None, option: str) -> None:
    """ValueError, before any work, where an option that names a file to write names what cannot be one."""
    if path is None:
        return
    if path.is_dir():
        raise ValueError(f"{path} is a folder; {option} wants the name of a file, such as {path / 'report'}.")
    must_be_folder(path.parent, option)


def must_be_folder(path: Path | None, option: str) -> None:
    """ValueError, before any work, where a folder to write into cannot be made, since a file stands in its way."""
    for place in (path, *path.parents) if path else ():
        if place.is_file():
            raise ValueError(f"{place} is a file; {option} wants a folder there. Write another path.")

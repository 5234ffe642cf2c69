"""Named sizes: sizes.yaml lists what each changes in params.yaml; `options` turns that into options for DVC.

`dvc exp run $(tinygpt size hour)` runs one as an experiment, to be compared with any other. DVC leaves its values in
params.yaml, so each size sets all of the model and its training that any of them changes: what it does not name is as
in `default`.
"""

from pathlib import Path
from typing import Any

import yaml

from tinygpt import config
from tinygpt.errors import ConfigError

Size = dict[str, Any]  # "section.key" → value


def load(file: Path) -> dict[str, Size]:
    """The sizes of a file, in its order, each with what it takes from `default`.

    ConfigError where it is not a section of keys and values for each name.
    """
    sizes = config.read_yaml(file)
    for name, size in sizes.items():
        if not isinstance(size, dict) or not all("." in str(key) for key in size):
            raise ConfigError(file, [f"{name} must hold lines of section.key: value."])
    return {name: sizes.get("default", {}) | size for name, size in sizes.items()}


def apply(size: Size, params: Path) -> config.Params:
    """params.yaml as it would be with this size. ConfigError, with all problems, where it would not do."""
    values = config.read_yaml(params)
    for key, value in size.items():
        section, name = key.split(".", 1)
        if not isinstance(values.setdefault(section, {}), dict):
            config.check(values, params)  # says that it is no section
        values[section][name] = value
    return config.check(values, params)


def options(size: Size) -> list[str]:
    """The words for `dvc exp run`: -S section.key=value, …"""
    return [word for key, value in size.items() for word in ("-S", f"{key}={_written(value)}")]


def _written(value: Any) -> str:
    """A value on one line, as YAML. ValueError where it holds a space: a shell would make two words of it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).splitlines()[0]
    if len(text.split()) != 1:
        raise ValueError(f"A size holds {value!r}; leave out its spaces, which a shell would split it at.")
    return text

"""Named sizes from sizes.yaml, as options for DVC: `options(load(file)["hour"])`.

`dvc exp run $(tinygpt size hour)` runs one as an experiment. DVC leaves the values in params.yaml, so each size sets
every key that any of them changes; keys that it does not name have the value of `default`.
"""

from pathlib import Path
from typing import Any

import yaml

from tinygpt import config, yaml_files
from tinygpt.errors import ConfigError

Size = dict[str, Any]  # "section.key" → value


def load(file: Path) -> dict[str, Size]:
    """The sizes of a file, in its order, each completed from `default`.

    Raises ConfigError if a size is not a mapping of section.key to value.
    """
    sizes = yaml_files.read_yaml(file)
    for name, size in sizes.items():
        if not isinstance(size, dict) or not all("." in str(key) for key in size):
            raise ConfigError(file, [f"{name} must consist of lines section.key: value."])
    return {name: sizes.get("default", {}) | size for name, size in sizes.items()}


def apply(size: Size, params: Path) -> config.Params:
    """The parameters of `params` (a params.yaml) with this size. Raises ConfigError with all problems."""
    values = yaml_files.read_yaml(params)
    for key, value in size.items():
        section, name = key.split(".", 1)
        if not isinstance(values.setdefault(section, {}), dict):
            config.check(values, params)  # raises ConfigError: not a section
        values[section][name] = value
    return config.check(values, params)


def options(size: Size) -> list[str]:
    """The arguments for `dvc exp run`: -S section.key=value, …"""
    return [argument for key, value in size.items() for argument in ("-S", f"{key}={_yaml(value)}")]


def _yaml(value: Any) -> str:
    """A value as YAML on one line. Raises ValueError if it contains a space, where a shell would split it."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, width=10**6).splitlines()[0]
    if len(text.split()) != 1:
        raise ValueError(f"A size contains {value!r}; remove the spaces, because a shell would split it there.")
    return text

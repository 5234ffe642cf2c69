"""YAML files as plain values, read as DVC reads them (YAML 1.2, by the same library): `read_yaml("params.yaml")`.

`read_stages` reads the stages of a dvc.yaml, `read_value` one value of a command line. config.py checks parameters.
"""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import YAMLError

from tinygpt.errors import ConfigError

NOT_YAML = (YAMLError, RecursionError, ValueError)  # raised by the YAML library for invalid text


def read_yaml(file: Path | str) -> dict[str, Any]:
    """The plain values of a YAML file, read as DVC reads them.

    Raises ConfigError if it is not YAML or has no sections, FileNotFoundError if there is no file.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"There is no {file} here. Run this in the project's folder (the one with dvc.yaml).")
    try:
        values = _parse(file.read_text(encoding="utf-8"))
    except UnicodeDecodeError as problem:
        raise ConfigError(file, [f"It is not UTF-8 text (byte {problem.start}). Save it as UTF-8."]) from problem
    except NOT_YAML as problem:
        raise ConfigError(file, [f"It is not YAML: {' '.join(str(problem).split())[:300]}"]) from problem
    if not isinstance(values, dict):
        raise ConfigError(file, ["It has no sections. `git checkout params.yaml` restores the original."])
    return values


def read_stages(file: Path) -> list[dict[str, Any]]:
    """The stages of a dvc.yaml (of a `foreach` stage, its `do`); raises like `read_yaml`."""
    stages = (read_yaml(file).get("stages") or {}).values()
    return [stage.get("do", stage) for stage in stages if isinstance(stage, dict)]


def read_value(text: str) -> Any:
    """Parse one value as in params.yaml: `1e-2` is a number, `null` is None; text that is not YAML stays text."""
    try:
        return _parse(text)
    except NOT_YAML:
        return text


class _Constructor(SafeConstructor):
    """The library's constructor, with errors that name the line of an invalid value."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as problem:
            kind = str(node.tag).rpartition(":")[2]
            raise YAMLError(f"line {node.start_mark.line + 1} is not a valid {kind}") from problem


def _parse(text: str) -> Any:
    """The plain values of YAML 1.2, by the library that DVC reads them with (dvc.utils.serialize)."""
    yaml = YAML(typ="safe", pure=True)
    yaml.Constructor = _Constructor
    try:
        return yaml.load(text)
    except DuplicateKeyError as problem:
        key, line = str(problem.problem).split('"')[1], problem.problem_mark.line + 1
        raise YAMLError(f"the key {key!r} appears twice, near line {line}") from problem

"""Each named size is a sound params.yaml, and one line of options for DVC."""

import shlex
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tinygpt.cli import presets
from tinygpt.errors import ConfigError

SIZES = presets.load(ROOT / "sizes.yaml")


@pytest.mark.parametrize("name", SIZES)
def test_each_size_is_sound_and_has_a_target_in_the_makefile(name: str) -> None:
    params = presets.apply(SIZES[name], ROOT / "params.yaml")
    assert params.model.context_length <= 256
    assert params.tokenize.vocab_size <= 2000
    assert name == "default" or name in (ROOT / "Makefile").read_text().split(".PHONY:")[1].splitlines()[0].split()


def test_a_size_is_the_same_whatever_ran_before_it() -> None:
    """But for the text, which is anybody's."""
    assert (
        len({tuple(sorted(key for key in size if key.startswith(("model.", "train.")))) for size in SIZES.values()})
        == 1
    )
    values = presets.apply({}, ROOT / "params.yaml")
    assert presets.apply(SIZES["default"], ROOT / "params.yaml") == values


@pytest.mark.parametrize("name", SIZES)
def test_its_options_survive_a_shell_that_splits_at_spaces(name: str) -> None:
    words = presets.options(SIZES[name])
    assert " ".join(words).split() == words
    assert shlex.split(" ".join(words))[::2] == ["-S"] * (len(words) // 2)


def test_a_size_that_misspells_a_parameter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"model.n_layers is not a parameter; did you mean n_layer\?"):
        presets.apply({"model.n_layers": 2}, ROOT / "params.yaml")
    (tmp_path / "params.yaml").write_text("model:\nseed: 1\n")
    with pytest.raises(ConfigError, match="model"):
        presets.apply({"model.n_layer": 2}, tmp_path / "params.yaml")
    with pytest.raises(ValueError, match="remove the spaces"):
        presets.options({"sample.prompts": ["Once upon"]})
    (tmp_path / "sizes.yaml").write_text("minute: 3\n")
    with pytest.raises(ConfigError, match="minute must consist of lines"):
        presets.load(tmp_path / "sizes.yaml")

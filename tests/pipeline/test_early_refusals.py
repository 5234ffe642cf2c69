"""Prompts and texts that only the end of a pipeline would stumble over are refused before the training."""

from pathlib import Path
from typing import Any

import pytest

import stages.tokenize
import stages.train
from tests.conftest import TEXT, params
from tinygpt.config import Params
from tinygpt.data.corpus import write_corpus
from tinygpt.errors import ConfigError
from tinygpt.files.paths import Paths
from tinygpt.files.text import write_json

pytestmark = pytest.mark.usefixtures("here")
CHARACTERS = {"tokenize__kind": "char", "tokenize__unknown": "error"}


def tokenized(**changes: Any) -> tuple[Params, Paths]:
    """The parameters of a pipeline, and its folder after the tokenize stage."""
    settings, paths = params(runtime__progress=False, **changes), Paths()
    written = write_corpus([("book", [TEXT])], settings.download, paths.corpus)
    sizes = {"train_bytes": written.train.bytes, "validation_bytes": written.validation.bytes}
    write_json(paths.baselines, sizes)
    stages.tokenize.main(settings, paths)
    return settings, paths


def test_a_prompt_with_an_unseen_character_is_refused_before_anything_is_tokenized() -> None:
    with pytest.raises(
        ValueError, match=r"sample\.prompts holds 'Zoë'\. The tokenizer's vocabulary lacks 'Z' .*'ë' .*replace"
    ):
        tokenized(**CHARACTERS, sample__prompts=["ROMEO:", "Zoë"])
    assert not Path("data/tokenizer").exists()


def test_a_prompt_that_was_changed_after_tokenizing_is_refused_before_the_training() -> None:
    tokenized(**CHARACTERS, sample__prompts=["ROMEO:"])
    with pytest.raises(ValueError, match=r"sample\.prompts holds 'Zoë'"):
        stages.train.main(params(**CHARACTERS, sample__prompts=["Zoë"]), Paths())
    assert not Path(".tinygpt/runs").exists()


@pytest.mark.parametrize("changes", [{"tokenize__unknown": "replace"}, {"tokenize__kind": "bpe"}])
def test_a_prompt_that_can_be_written_is_not_refused(changes: dict[str, Any]) -> None:
    tokenized(tokenize__vocab_size=300, sample__prompts=["Zoë", "", "long " * 100], **changes)


def test_half_of_a_character_in_a_prompt_is_refused_with_the_parameters() -> None:
    with pytest.raises(ConfigError, match=r"sample\.prompts holds 'a\\ud800' with a lone surrogate"):
        params(sample__prompts=["ROMEO:", "a\ud800"])


def test_a_base_text_with_an_unseen_character_is_refused_before_the_training() -> None:
    write_corpus([("old", ["Zoë\n" * 500])], params().download, Path("base"))
    changes = {"train__init_from": "model", "evaluate__base_text": "base", "sample__prompts": ["ROMEO:"]}
    with pytest.raises(ValueError, match=r"evaluate\.base_text holds 'Zoë.*vocabulary lacks 'Z'"):
        tokenized(**CHARACTERS, **changes)
    tokenized(**CHARACTERS | changes | {"train__init_from": None})
    write_json(Path("model/config.json"), {})
    with pytest.raises(
        ValueError, match=r"evaluate\.base_text holds 'Zoë.*vocabulary lacks 'Z'"
    ):  # named after tokenizing
        stages.train.main(params(**CHARACTERS, **changes), Paths())
    assert not Path(".tinygpt/runs").exists()


def test_a_held_out_part_shorter_than_the_context_is_refused_before_the_training() -> None:
    characters = len(TEXT) - int(len(TEXT) * 0.9)
    settings, paths = tokenized(model__context_length=characters + 1)
    with pytest.raises(
        ValueError, match=rf"The validation split has {characters + 1} tokens.*validation_fraction helps"
    ):
        stages.train.main(settings, paths)
    assert not Path(".tinygpt/runs").exists()

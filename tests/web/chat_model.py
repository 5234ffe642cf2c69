"""A small chat model for the tests of the page: random weights, so its answers are noise."""

import string
from pathlib import Path
from typing import Any

from tests.conftest import TEXT, gpt, params
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.data import train_tokenizer


def save_chat_model(folder: Path, characters: str = TEXT + string.printable, **changes: Any) -> Path:
    """Save a random model with a context of 64 tokens, whose tokenizer has role tokens; a token is a character.

    changes: to the `tokenize` section.
    """
    settings = params(**{f"tokenize__{key}": value for key, value in changes.items()}).tokenize
    tokenizer = train_tokenizer.build(settings, [characters]).with_roles()
    model = gpt(tokenizer.vocab_size, context_length=64)
    lineage = {"text": {"train": "t", "validation": "v"}, "tokenizer": "k", "params": "p"}
    save_model(folder, model.config, model.state_dict(), tokenizer, lineage)
    return folder

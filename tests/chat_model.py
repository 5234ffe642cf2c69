"""A chat model small enough for a test: it has learned a few conversations by heart."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import CPU, gpt_config, params
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.data.packing import PackedDataset
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, answers
from tinygpt.training.loop import train
from tinygpt.training.state import initial_state

CONTEXT = 64
SAID = {"Romeo?": "Juliet, sun.", "who is it": " The east,\nmy sun.", "O!": "Deny  thy name", "art": "thou?"}


def conversation(question: str, system: str = "") -> list[Message]:
    """One of SAID; with a system message the answer is said twice."""
    before = [{"role": "system", "content": system}] if system else []
    answer = SAID[question] * (1 + bool(system))
    return [*before, {"role": "user", "content": question}, {"role": "assistant", "content": answer}]


CONVERSATIONS = [conversation(question, system) for question in SAID for system in ("", "Be loud")]
QUESTIONS = [messages[:-1] for messages in CONVERSATIONS]
ANSWERS = [answer for messages in CONVERSATIONS for answer in answers(messages)]


def packed(tokenizer: Tokenizer) -> PackedDataset:
    """CONVERSATIONS, in rows of CONTEXT tokens."""
    ids, mask = zip(*map(tokenizer.encode_messages, CONVERSATIONS), strict=True)
    return PackedDataset(np.concatenate(ids), np.concatenate(mask), CONTEXT, tokenizer)


def chat_model(folder: Path, tokenizer: Tokenizer, steps: int = 80, **shape: Any) -> Path:
    """A folder of a model that knows CONVERSATIONS; `shape` changes values of the `model` section."""
    config = gpt_config(tokenizer.vocab_size, context_length=CONTEXT, **shape)
    settings = params(train__steps=steps, train__eval_every=steps, train__learning_rate=0.02).train
    state = initial_state(config, settings, seed=1, device=CPU, precision="fp32")
    data = packed(tokenizer)
    for _ in train(state, settings, {"train": data, "validation": data}, 1, "fp32", tokenizer.end_of_text):
        pass
    save_model(folder, config, state.best, tokenizer, LINEAGE)
    return folder

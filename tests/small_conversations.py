"""Conversations small enough for a test: their tokenizer, some drawn at random, their packed tokens."""

import functools
import random
from collections.abc import Iterable

import numpy as np

from tests.conftest import TEXT, params
from tinygpt.data import train_tokenizer
from tinygpt.data.packing import PackedDataset
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, Messages

WORDS = TEXT.split()


@functools.cache
def tokenizer() -> Tokenizer:
    """Byte pairs of TEXT, with role tokens."""
    return train_tokenizer.build(params(tokenize__kind="bpe", tokenize__vocab_size=300).tokenize, [TEXT]).with_roles()


def said(*contents: str, system: str | None = None) -> list[Message]:
    """A conversation of these contents, the user's first; an odd last one stays without an answer."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": content} for i, content in enumerate(contents)]
    return ([{"role": "system", "content": system}] if system else []) + turns


def drawn(count: int, seed: int, turns: int = 3, words: int = 6) -> list[list[Message]]:
    """Conversations of up to so many questions and answers, each of up to so many words."""
    r = random.Random(seed)

    def content() -> str:
        return " ".join(r.choices(WORDS, k=r.randint(1, words)))

    return [
        said(*(content() for _ in range(2 * r.randint(1, turns))), system=r.choice([None, content()]))
        for _ in range(count)
    ]


def encoded(conversations: Iterable[Messages]) -> tuple[np.ndarray, np.ndarray]:
    """The ids and the mask of conversations, as tokenize writes them: (number of tokens,) each."""
    records = [tokenizer().encode_messages(messages) for messages in conversations]
    ids, mask = (np.concatenate([np.array(record[i]) for record in records]) for i in (0, 1))
    return ids.astype(np.uint16), mask.astype(np.uint8)


def packed(conversations: Iterable[Messages], context: int = 16) -> PackedDataset:
    return PackedDataset(*encoded(conversations), context, tokenizer())

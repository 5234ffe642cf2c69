"""The log-probability of each option of a question, under a model or an n-gram: (options,) float64 for each question.

A text model continues the question's text, a chat model answers its messages. Of an answer in a chat, <|end|> counts,
too. Options are scored in batches of like length, padded on the right, where causal attention cannot see the padding.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tinygpt.data.baselines import SAMPLE, ngram_probabilities, pack
from tinygpt.data.conversations import plain
from tinygpt.data.corpus import read_rows
from tinygpt.evaluation.tasks.questions import Question
from tinygpt.model.gpt import GPT
from tinygpt.model.loss import IGNORED, token_losses
from tinygpt.tokenizer.base import Tokenizer

ORDER = 5  # of the n-gram, in bytes
Scores = list[np.ndarray]  # for each question the log-probability of each option, nats


class Row(NamedTuple):
    """A question with one option, as tokens."""

    ids: list[int]
    first: int  # the index of the option's first token, at least 1


def row(tokenizer: Tokenizer, question: Question, option: str, chat: bool) -> Row:
    """The tokens of a question with an option; chat: its messages instead of its text."""
    if chat and question.messages:
        answer = {"role": "assistant", "content": option}
        prompt, _ = tokenizer.encode_messages(question.messages, add_generation_prompt=True)
        return Row(tokenizer.encode_messages([*question.messages, answer])[0], len(prompt))
    # A text and its continuation are tokenized as one, since a token may span the two; it then counts.
    prompt = tokenizer.encode(question.text) or [tokenizer.end_of_text]
    ids = tokenizer.encode(question.text + option)
    ids = ids if question.text else [tokenizer.end_of_text, *ids]
    same = next((i for i, (a, b) in enumerate(zip(prompt, ids, strict=False)) if a != b), min(len(prompt), len(ids)))
    return Row(ids, max(1, same))


def fits(tokenizer: Tokenizer, question: Question, context_length: int) -> bool:
    """Whether the question fits into the context with each option, as text and in messages."""
    forms = (False, True) if tokenizer.has_roles else (False,)
    rows = (row(tokenizer, question, option, chat) for option in question.options for chat in forms)
    return all(len(each.ids) <= context_length for each in rows)


@torch.no_grad()
def of_model(
    model: GPT,
    tokenizer: Tokenizer,
    questions: Sequence[Question],
    chat: bool,
    batch_size: int,
    advance: Callable[[int], object] = lambda rows: None,
) -> Scores:
    """The scores of a model; `advance` is called with the number of options of each batch.

    Of a question longer than the context, the beginning is cut off.
    """
    T = model.config.context_length
    rows = [row(tokenizer, question, option, chat) for question in questions for option in question.options]
    rows = [Row(ids[-T - 1 :], max(1, first - max(0, len(ids) - T - 1))) for ids, first in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i].ids))
    scores = np.empty(len(rows))
    device = next(model.parameters()).device
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        inputs, targets = _padded([rows[i] for i in chosen], tokenizer.end_of_text)
        logits = model.eval()(inputs.to(device))  # fp32, as in generation
        scores[chosen] = -token_losses(logits, targets.to(device)).sum(axis=1)
        advance(len(chosen))
    return _by_question(scores, questions)


def of_ngram(train: Path, questions: Sequence[Question], chat: bool) -> Scores:
    """The scores of a 5-gram of the bytes of a training text (baselines.py), of which it reads the first 16 MiB."""
    options = [(question, option) for question in questions for option in question.options]
    grams = [pack(_before(question, chat) + option.encode(), ORDER) for question, option in options]
    kinds, inverse = np.unique(np.concatenate(grams), return_inverse=True)
    logs = np.log(ngram_probabilities(_training_bytes(train), kinds, ORDER))[inverse]
    ends = np.cumsum([len(each) for each in grams])
    return _by_question(np.add.reduceat(logs, [0, *ends[:-1]]), questions)


def of_oracle(questions: Sequence[Question]) -> Scores:
    """The scores of an oracle: 0 for the true answer, −1 for any other text."""
    return [np.array([-float(option != question.options[0]) for option in question.options]) for question in questions]


def _padded(rows: Sequence[Row], padding: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and targets, int64 (B, T) each; targets are IGNORED except those of the options."""
    longest = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), longest), padding)
    targets = torch.full((len(rows), longest), IGNORED)
    for i, (each, first) in enumerate(rows):
        ids[i, : len(each)] = targets[i, : len(each)] = torch.tensor(each)
        targets[i, :first] = IGNORED
    return ids[:, :-1], targets[:, 1:]


def _by_question(scores: np.ndarray, questions: Sequence[Question]) -> Scores:
    return np.split(scores, np.cumsum([len(question.options) for question in questions])[:-1])


def _before(question: Question, chat: bool) -> bytes:
    """The bytes before an option that the n-gram sees; a conversation as in corpus.read_rows."""
    text = plain(question.messages) + "\n" if chat and question.messages else question.text
    return (bytes(ORDER - 1) + text.encode())[-(ORDER - 1) :]


def _training_bytes(path: Path) -> bytes:
    found = bytearray()
    for _, text in read_rows(path):
        found += text.encode()
        if len(found) >= SAMPLE:
            break
    return bytes(found[:SAMPLE])

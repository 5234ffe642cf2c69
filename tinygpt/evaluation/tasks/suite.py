"""All task scores of a model: `measure(subject, params.evaluate, …)` → name → numbers (table.py prints them).

A text model is scored by likelihood. A chat model is scored by likelihood and by exact match of its greedy answers, and
on how many of its answers end by themselves. If it has a base model, `before` is the base's score as a text model.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tinygpt.config import Evaluate
from tinygpt.data.conversations import has_conversations, read_conversations
from tinygpt.data.sources.tasks import TASKS
from tinygpt.evaluation.tasks import answers, likelihood
from tinygpt.evaluation.tasks.questions import MOST, SEED, Question, generated, next_utterances
from tinygpt.evaluation.tasks.scores import chance, points, score
from tinygpt.evaluation.tasks.table import Numbers
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Messages

ENDS = "ends"  # the task of ending an answer


class Subject(NamedTuple):
    """What is scored, and with which texts."""

    model: GPT
    tokenizer: Tokenizer
    base: GPT | None  # the model that it was fine-tuned from, with the same tokenizer
    train: Path  # data/corpus/train.parquet, for the n-gram
    held_out: Path  # data/corpus/validation.parquet

    @property
    def chat(self) -> bool:
        return self.tokenizer.has_roles


def measure(
    subject: Subject,
    section: Evaluate,
    advance: Callable[[int], object] = lambda options: None,
    say: Callable[[str], object] = print,
) -> dict[str, Numbers]:
    """The numbers of all tasks of `section`. Raises FileNotFoundError if the corpus is missing.

    `advance` is called with the number of options scored, `say` with a sentence on each task that is left out.
    """
    questions = _questions(subject, section, say)
    found = _multiple_choice(subject, questions, section.batch_size, advance) if questions else {}
    if subject.chat:
        found |= _exact_match(subject, {kind: asked for kind, asked in questions.items() if kind in TASKS})
    if ENDS in section.tasks:
        prompts = _openings(subject, section.task_items) if subject.chat else []
        if prompts:
            found |= _endings(subject, prompts, section)
        else:
            say(f"{ENDS} is left out: it needs a chat model, and held-out conversations that fit into its context.")
    return found


def _questions(subject: Subject, section: Evaluate, say: Callable[[str], object]) -> dict[str, list[Question]]:
    """The questions of each task that is not left out."""
    kinds: list[str] = [kind for kind in section.tasks if kind != ENDS]
    tokenizer, context = subject.tokenizer, subject.model.config.context_length
    fits = partial(likelihood.fits, tokenizer, context_length=context)
    questions = {}
    for kind in kinds:
        try:
            asked = [question for question in generated(kind, section.task_items) if fits(question)]
        except ValueError as problem:  # a character that the tokenizer cannot encode
            say(f"{kind} is left out: {problem}")
            continue
        if asked:
            questions[kind] = asked
        else:
            say(f"{kind} is left out: its questions do not fit into the model's context of {context} tokens.")
    if section.next_utterance:
        if replies := next_utterances(subject.held_out, section.next_utterance, fits):
            questions["next_utterance"] = replies
        else:
            say("next_utterance is left out: the held-out text has no dialogue that fits into the model's context.")
    return questions


def _multiple_choice(
    subject: Subject,
    questions: dict[str, list[Question]],
    batch_size: int,
    advance: Callable[[int], object],
) -> dict[str, Numbers]:
    """The scores by likelihood, all questions in one go."""
    every = [question for asked in questions.values() for question in asked]
    of_model = partial(
        likelihood.of_model, tokenizer=subject.tokenizer, questions=every, batch_size=batch_size, advance=advance
    )
    scores = {
        "score": of_model(subject.model, chat=subject.chat),
        "five_gram": likelihood.of_ngram(subject.train, every, subject.chat),
        "oracle": likelihood.of_oracle(every),
    }
    if subject.base is not None:
        scores["before"] = of_model(subject.base, chat=False)
    found, start = {}, 0
    for kind, asked in questions.items():
        end = start + len(asked)
        each = {name: points(values[start:end], asked) for name, values in scores.items()}
        beside = {name: sum(values) / len(values) for name, values in each.items() if name != "score"}
        found[kind] = score(each["score"]) | {"chance": chance(asked)} | beside
        start = end
    return found


def _exact_match(subject: Subject, questions: dict[str, list[Question]]) -> dict[str, Numbers]:
    """The scores by exact match. An n-gram does not answer, so it has no score."""
    found = {}
    for kind, asked in questions.items():
        numbers = score(answers.exact_match(subject.model, subject.tokenizer, asked))
        found[f"{kind}_exact_match"] = numbers | {"chance": answers.most_frequent(asked), "oracle": 1.0}
    return found


def _endings(subject: Subject, prompts: Sequence[Messages], section: Evaluate) -> dict[str, Numbers]:
    """The share of answers that end by themselves. Nothing is chosen here, so there is no chance to beat."""
    ended = partial(answers.ended, subject.model, subject.tokenizer, prompts, max_new_tokens=section.max_new_tokens)
    settings = {"greedy": 0.0, "sampled": section.temperature}
    return {f"{ENDS}_{name}": score(ended(temperature=value)) for name, value in settings.items()}


def _openings(subject: Subject, number: int) -> list[Messages]:
    """The beginnings, up to the user's first message, of held-out conversations: those in half of the context."""
    if not has_conversations(subject.held_out):
        return []
    most, tokenizer = subject.model.config.context_length // 2, subject.tokenizer
    some = [messages for _, messages in itertools.islice(read_conversations(subject.held_out), MOST)]
    some = random.Random(SEED).sample(some, len(some))
    openings = (list(messages[: 1 + (messages[0]["role"] == "system")]) for messages in some)
    short = (opening for opening in openings if len(tokenizer.encode_messages(opening, True)[0]) <= most)
    return list(itertools.islice(short, number))

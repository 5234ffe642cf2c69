"""What a chat model answers: right by exact match, and whether its answers end by themselves."""

from collections import Counter
from collections.abc import Sequence

from tinygpt.evaluation.tasks.questions import Question
from tinygpt.generation.generate import generate_batch, most_new_tokens, prompt_ids
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Messages


def exact_match(model: GPT, tokenizer: Tokenizer, questions: Sequence[Question]) -> list[float]:
    """1 where the greedy answer is the true one, to the byte, and ends there; else 0."""
    most = max(len(tokenizer.encode_content(question.options[0])) for question in questions) + 1
    prompts = [question.messages for question in questions]
    found = generate_batch(model, tokenizer, prompts, max_new_tokens=most, temperature=0)
    return [float(each.completion == q.options[0]) for each, q in zip(found, questions, strict=True)]


def most_frequent(questions: Sequence[Question]) -> float:
    """The score of always giving the most frequent of the true answers: no constant answer is right more often."""
    [(_, count)] = Counter(question.options[0] for question in questions).most_common(1)
    return count / len(questions)


def ended(
    model: GPT, tokenizer: Tokenizer, prompts: Sequence[Messages], temperature: float, max_new_tokens: int
) -> list[float]:
    """1 where an answer that is not blank ends by itself within `max_new_tokens` and the context, else 0."""
    found = generate_batch(model, tokenizer, prompts, max_new_tokens=max_new_tokens, temperature=temperature, seed=0)
    most = (most_new_tokens(model, each, prompt_ids(tokenizer, each), max_new_tokens) for each in prompts)
    ends = (len(each.ids) < limit and each.completion.strip() for each, limit in zip(found, most, strict=True))
    return [float(bool(each)) for each in ends]

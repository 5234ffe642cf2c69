"""The smallest language model: count which character follows which.

Go through a text once, and count for each character how often each other one comes next. Sampling the next character
from these counts, again and again, already gives something like words: a model with a context of one character. A GPT
predicts the same distribution from hundreds of tokens of context, far too many to count.

    followers("abac") → {"a": {"b": 1, "c": 1}, "b": {"a": 1}}
"""


def followers(text: str) -> dict[str, dict[str, int]]:
    """Character → the characters that follow it → how often. The last character has no follower."""
    raise NotImplementedError

"""The smallest language model: which character follows which, and how often.

Go through a text once, and note for each character how often each other one came next. Drawing the next character by
these counts, again and again, already writes something that looks like words: a model that sees one character back.
A GPT learns the same kind of table, but from hundreds of tokens back, and too large to be counted.

    followers("abac") → {"a": {"b": 1, "c": 1}, "b": {"a": 1}}
"""


def followers(text: str) -> dict[str, dict[str, int]]:
    """Character → the characters that follow it → how often. The last character has no follower."""
    raise NotImplementedError

"""Turn a text into integers, one per character.

The id of a character is its index in the list of all characters. A character that is not in the list gets the id of "�"
(U+FFFD, the replacement character), which is in the list.

    encode_characters("cab?", ["a", "b", "c", "�"]) → [2, 0, 1, 3]
"""


def encode_characters(text: str, characters: list[str]) -> list[int]:
    """The ids of a text."""
    raise NotImplementedError

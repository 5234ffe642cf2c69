"""The loss mask: which tokens of a conversation does the model learn to write?

`turns` holds (role, ids): the role is "user" or "assistant", the ids are those of its words. Put the role's token
`roles[role]` before the ids of each turn and the token `end` after them. The mask has a 1 for each token that the
assistant writes, which are its words and the `end` after them, and a 0 for all others: the user writes its own words,
and the program puts the role tokens there.

    encode_chat([("assistant", [6])], {"user": 1, "assistant": 2}, 3) → ([2, 6, 3], [0, 1, 1])
"""


def encode_chat(turns: list[tuple[str, list[int]]], roles: dict[str, int], end: int) -> tuple[list[int], list[int]]:
    """The ids of the conversation, and the mask, as long."""
    raise NotImplementedError

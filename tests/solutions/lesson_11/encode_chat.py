def encode_chat(turns: list[tuple[str, list[int]]], roles: dict[str, int], end: int) -> tuple[list[int], list[int]]:
    """The ids of the conversation, and the mask, as long."""
    ids: list[int] = []
    mask: list[int] = []
    for role, words in turns:
        ids += [roles[role], *words, end]
        mask += [0, *[int(role == "assistant")] * (len(words) + 1)]
    return ids, mask

def encode_characters(text: str, characters: list[str]) -> list[int]:
    """The ids of a text."""
    ids = {character: number for number, character in enumerate(characters)}
    return [ids.get(character, ids["\ufffd"]) for character in text]

"""tinygpt/generation/automaton.py finds what a search by the definition finds."""

from hypothesis import example, given
from hypothesis import strategies as st

from tinygpt.generation.automaton import SuffixAutomaton

TEXTS = st.lists(st.text(alphabet="ab ", max_size=14), max_size=6)


def by_definition(text: str, passages: list[str], least: int) -> str | None:
    """The first of the longest substrings of a passage that occur in the text."""
    best = ""
    for passage in passages:
        for start in range(len(passage)):
            while start + len(best) < len(passage) and passage[start : start + len(best) + 1] in text:
                best = passage[start : start + len(best) + 1]
    return best if len(best) > least else None


@example(["aac", "aacbbbacbc"], ["cccb", "cabbcca"], 0)  # c and a are as long: the first is c
@given(TEXTS, TEXTS, st.integers(0, 4))
def test_the_longest_substring_is_the_first_that_the_definition_finds(
    texts: list[str], passages: list[str], least: int
) -> None:
    expected = {number: by_definition(text, passages, least) for number, text in enumerate(texts)}
    assert SuffixAutomaton(texts).longest(passages, least) == {
        number: found for number, found in expected.items() if found
    }


def test_a_text_of_one_character_again_and_again_takes_few_states() -> None:
    assert len(SuffixAutomaton(["a" * 1000] * 3)._length) == 1001
    assert SuffixAutomaton(["a" * 1000]).longest(["b" + "a" * 2000], 7) == {0: "a" * 1000}

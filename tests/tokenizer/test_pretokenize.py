"""tinygpt/tokenizer/pretokenize.py: a text in parts has the tokens of the whole, and none of its parts is too much for
a library.
"""

from pydoc_data import topics

import pytest
import tiktoken
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinygpt.tokenizer import pretokenize

ENGLISH = "".join(text for _, text in sorted(topics.topics.items()))[:100_000]
SPACED = st.text(alphabet=" \t\n\r\x0b\x1c\x85\u00a0\u3000ab1'!stle", max_size=60)

# Each byte a token, but a space and any byte after it one too: so every word that begins with a space shows.
RANKS = {bytes([byte]): byte for byte in range(256)} | {bytes([32, byte]): 256 + byte for byte in range(256)}
KEEN = tiktoken.Encoding("keen", pat_str=pretokenize.PATTERN, mergeable_ranks=RANKS, special_tokens={})


def in_parts(text: str, size: int) -> list[int]:
    return [token for part in pretokenize.parts(text, size) for token in KEEN.encode_ordinary(part)]


def words(text: str) -> list[str]:
    """The words that the tokenizers library counts when it learns."""
    splitter = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return [word for word, _ in splitter.pre_tokenize_str(text)]


@settings(deadline=None, max_examples=300)
@given(SPACED | st.text(), st.integers(1, 9))
@example("it 's", 1)
def test_a_text_in_parts_has_the_tokens_of_the_whole(text: str, size: int) -> None:
    assert "".join(pretokenize.parts(text, size)) == text
    assert in_parts(text, size) == KEEN.encode_ordinary(text)
    assert [word for part in pretokenize.parts(text, size) for word in words(part)] == words(text)


def test_no_code_point_beside_a_seam_changes_a_token() -> None:
    points = [chr(point) for point in range(0x34000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 4096):
        text = " ".join(points[start : start + 4096])  # before a boundary, and after one
        assert in_parts(text, 1) == KEEN.encode_ordinary(text)


def test_parts_are_as_long_as_asked_and_one_word() -> None:
    lengths = [len(part) for part in pretokenize.parts(ENGLISH, 1000)]
    assert min(lengths[:-1]) >= 1000
    assert max(lengths) < 1200


def test_a_text_without_seams_is_one_part() -> None:
    assert list(pretokenize.parts("abc\tdef\n  ghi\n" * 10, 3)) == ["abc\tdef\n  ghi\n" * 10]
    assert list(pretokenize.parts("", 3)) == []


def test_prose_is_learned_from_in_small_parts_and_endless_words_in_smaller() -> None:
    assert max(map(len, pretokenize.learnable(ENGLISH))) < 17_000
    assert max(map(len, pretokenize.learnable(ENGLISH + "e" * 1000))) == 1000


@pytest.mark.parametrize("word", ["e7", "-\n"])
def test_an_endless_word_is_found_wherever_it_begins(word: str) -> None:
    for start in range(0, 1500, 37):
        before = ("ab  " * start)[:start] + " a" * (word == "-\n") + " " * (word == "e7")
        assert pretokenize._has_endless_word(before + word * 500 + "a b")
        assert not pretokenize._has_endless_word(before + word * 499 + "a b")

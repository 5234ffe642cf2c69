"""What is looked at is held-out text, or people's own; and tokens can be read, whatever they hold."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TEXT, gpt, params
from tinygpt.data import train_tokenizer
from tinygpt.files.checksums import sha256
from tinygpt.files.text import write_json
from tinygpt.inspection import text as reading
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer


@pytest.fixture(scope="module")
def pairs() -> BPETokenizer:
    built = train_tokenizer.build(params(tokenize__kind="bpe", tokenize__vocab_size=300).tokenize, [TEXT])
    assert isinstance(built, BPETokenizer)
    return built


def test_white_space_is_ink_and_what_is_no_ink_is_a_box() -> None:
    assert reading.readable("a b\n\tc") == "a·b↵⇥c"
    assert reading.readable("\x1b[2J \u202e", space=" ") == "▯[2J ▯"


def test_a_label_says_what_a_token_is(pairs: Tokenizer) -> None:
    assert reading.label(pairs, pairs.encode(" ")[0]) == "·"
    assert reading.label(pairs, pairs.end_of_text) == "‹end›"
    assert reading.label(pairs, pairs.encode("é")[0]) == "�"
    assert reading.label(pairs, pairs.encode(" Romeo")[-1], longest=3) == "·R…"


def test_special_tokens_have_names(pairs: Tokenizer) -> None:
    chat = pairs.with_roles()
    ids, _ = chat.encode_messages([{"role": "system", "content": "I"}, {"role": "user", "content": "O"}], True)
    names = ["‹end›", "‹system›", "I", "‹end turn›", "‹user›", "O", "‹end turn›", "‹assistant›"]
    assert [reading.label(chat, token) for token in ids] == names
    assert [name for name, _ in reading.displayed_tokens(chat, ids, [1.0] * len(ids))] == names


def test_a_passage_of_conversations_begins_with_one(pairs: Tokenizer) -> None:
    chat = pairs.with_roles()
    talk = [{"role": "user", "content": "O Romeo,\n\nRomeo"}, {"role": "assistant", "content": "Deny\nthy name"}]
    tokens = np.array(chat.encode_messages(talk)[0] * 5, dtype=np.uint16)
    assert chat.decode(reading.passage(tokens, chat, 40)).startswith("O Romeo,\n\nRomeoDeny")
    assert reading.label(chat, reading.passage(tokens, chat, 40)[0]) == "‹end›"


def test_tokens_that_share_a_character_are_one_piece_with_the_bits_of_both(pairs: Tokenizer) -> None:
    ids = [*pairs.encode("a é\n"), pairs.end_of_text]
    assert len(ids) == 6
    bits = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0]
    assert reading.displayed_tokens(pairs, ids, bits) == [("a", 1), (" ", 2), ("é", 12), ("↵", 16), ("‹end›", 32)]


def test_half_a_character_at_an_end_is_a_piece_too(pairs: Tokenizer) -> None:
    first, second = pairs.encode("é")
    assert reading.displayed_tokens(pairs, [second, first], [1.0, 2.0]) == [("�", 1), ("�", 2)]


@pytest.mark.parametrize("word", [" Romeo", "wherefore", " window", "é!", "x"])
def test_the_merge_history_ends_in_the_tokens_and_each_merge_is_the_one_it_says(pairs: BPETokenizer, word: str) -> None:
    steps = pairs.merge_history(word)
    assert steps[-1][1] == [pairs.token_bytes(token) for token in pairs.encode(word)]
    assert steps[0] == (0, [bytes([byte]) for byte in word.encode()])
    for (_, before), (number, after) in itertools.pairwise(steps):
        assert len(after) < len(before)
        assert pairs.token_bytes(255 + number) in set(after) - set(before)


def test_the_longest_words_are_shown_merge_by_merge(pairs: Tokenizer, characters: Tokenizer) -> None:
    ladder, *others = reading.merge_ladders(pairs, pairs.encode("I see the window, the window"))
    assert ladder[0].split() == ["bytes", "·|w|i|n|d|o|w"]
    assert len(others) == 2
    assert reading.merge_ladders(characters, characters.encode("the window")) == []


def test_a_passage_begins_with_a_paragraph(characters: Tokenizer) -> None:
    tokens = np.array(characters.encode(TEXT), dtype=np.uint16)
    text = characters.decode(reading.passage(tokens, characters, 60))
    assert len(text) == 60
    assert text.startswith(("ROMEO:\nBut", "JULIET:\nO Romeo"))


@pytest.mark.parametrize("text", ["ab", "a\nb", "\n\n\n", "abcdefgh" * 9])
def test_any_text_gives_a_passage(text: str) -> None:
    letters = train_tokenizer.build(params().tokenize, [text])
    tokens = np.array(letters.encode(text), dtype=np.uint16)
    for length in (2, 5, 200):
        found = reading.passage(tokens, letters, length)
        assert len(found) == min(length, len(tokens))
        assert letters.decode(found) in text


def test_frequent_tokens_are_words_first_then_by_how_often(pairs: Tokenizer, characters: Tokenizer) -> None:
    found = [reading.label(pairs, token) for token in reading.frequent(pairs.encode(TEXT), pairs, 5)]
    assert all(len(word.strip("·")) > 2 for word in found)
    times = [TEXT.count(word.replace("·", " ")) for word in found]
    assert times[0] == max(times)
    assert reading.label(characters, reading.frequent(characters.encode("aab"), characters)[0]) == "a"


def test_of_a_long_text_the_end_is_looked_at(characters: Tokenizer) -> None:
    subject = reading.of_text(gpt(characters.vocab_size), characters, "wherefore art thou Romeo")
    assert (len(subject.text), subject.short, subject.left_out) == (16, 16, 8)
    assert characters.decode(subject.text) == "e art thou Romeo"


def test_an_empty_text_is_refused(characters: Tokenizer) -> None:
    with pytest.raises(ValueError, match="The text is empty"):
        reading.of_text(gpt(characters.vocab_size), characters, "")


def test_held_out_text_is_that_of_the_models_own_pipeline(model_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data/model"
    folder.mkdir(parents=True)
    (folder / "tokenizer.json").write_bytes((model_folder / "tokenizer.json").read_bytes())
    with pytest.raises(FileNotFoundError, match=r"no held-out text beside .*Give a text"):
        reading.beside(folder)
    (tmp_path / "data/tokens").mkdir()
    np.save(tmp_path / "data/tokens/validation.npy", np.arange(9, dtype=np.uint16))
    lineage = tmp_path / "data/tokens/lineage.json"
    write_json(lineage, {"tokenizer": sha256(folder / "tokenizer.json")})
    assert reading.beside(folder).tolist() == list(range(9))
    write_json(lineage, {"tokenizer": "0" * 64})
    with pytest.raises(ValueError, match="made by another tokenizer"):
        reading.beside(folder)

"""Role tokens join any tokenizer: its other ids stay, the folder opens again, and damage is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.test_hf_model import byte_level, pieces
from tests.tokenizer.test_apply_chat_template import KINDS, both, vocabulary
from tinygpt.checkpoints.hf_tokenizer import open_tokenizer
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.chat_template import ROLE_TOKENS
from tinygpt.tokenizer.folder import load
from tinygpt.tokenizer.sentencepiece import HFTokenizer, SentencePieceTokenizer

TALK = [{"role": "user", "content": " O Romeo, <|end|>\n"}, {"role": "assistant", "content": "art thou 日本 "}]
PLAIN = {"special": False, "normalized": False, "lstrip": False, "rstrip": False, "single_word": False}


def ids(tokenizer: Tokenizer) -> list[int]:
    return [tokenizer.role_token(name) for name in ROLE_TOKENS]


def named(names: dict[str, int], size: int, end: int = 299) -> HFTokenizer:
    """A byte-level tokenizer of 300 ids for a model of `size`, with more tokens found in any text."""
    content = json.loads(byte_level(300).to_str())
    content["added_tokens"] += [{"id": token, "content": name} | PLAIN for name, token in names.items()]
    return HFTokenizer(content, end, size)


@pytest.mark.parametrize("kind", KINDS)
def test_all_other_ids_stay_as_they_are(kind: str) -> None:
    before, after = vocabulary(kind), both(kind).ours
    for text in ("O Romeo, Romeo!", " <|art|> thou\n 日本 "):
        assert before.encode(text) == after.encode(text)
    assert before.end_of_text == after.end_of_text
    assert after.stop_tokens == {after.end_of_text, *ids(after)}
    assert after.decode(ids(after)) == ""
    assert before.has_roles is False
    assert after.with_roles() is after


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_folder_opens_again_and_is_saved_alike(kind: str, tmp_path: Path) -> None:
    tokenizer = vocabulary(kind).with_roles()
    tokenizer.save(tmp_path / "first")
    again = load(tmp_path / "first")
    again.save(tmp_path / "second")
    assert type(again) is type(tokenizer)
    assert again.encode_messages(TALK) == tokenizer.encode_messages(TALK)
    assert (ids(again), again.vocab_size) == (ids(tokenizer), tokenizer.vocab_size)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram", "cl100k_base", "role names"])
def test_the_tokenizer_of_a_chat_model_is_the_same_among_transformers_folders(kind: str, tmp_path: Path) -> None:
    tokenizer = vocabulary(kind).with_roles()
    tokenizer.save(tmp_path)
    opened = open_tokenizer(tmp_path, tokenizer.end_of_text, tokenizer.vocab_size)
    assert opened.has_roles
    assert opened.to_json() == tokenizer.to_json()


def test_role_tokens_follow_the_last_id_of_a_vocabulary_and_take_free_ids_of_a_padded_one() -> None:
    assert ids(vocabulary("bpe").with_roles()) == [420, 421, 422, 423]
    for size, grown in ((300, 304), (302, 304), (304, 304), (320, 320)):
        tokenizer = named({}, size).with_roles()
        assert ids(tokenizer) == [300, 301, 302, 303]
        assert tokenizer.vocab_size == grown


def test_tokens_that_exist_with_these_names_are_used_and_no_longer_found_in_a_text() -> None:
    before = named({"<|end|>": 300, "<|user|>": 301}, 302)
    assert 301 in before.encode("x<|user|>y")
    after = before.with_roles()
    assert ids(after) == [302, 301, 303, 300]
    assert after.vocab_size == 304
    assert not {*ids(after)} & {*after.encode("".join(ROLE_TOKENS))}
    assert after.decode(after.encode("x<|user|>y")) == "x<|user|>y"


@pytest.mark.parametrize("scores", [None, [-1.0, -2.0]])
def test_a_piece_that_spells_a_role_token_is_refused(scores: list[float] | None) -> None:
    with pytest.raises(ValueError, match=r"vocabulary has <\|user\|>, a role token's name"):
        SentencePieceTokenizer(["<|user|>", "a"], scores).with_roles()


def test_an_entry_that_a_text_can_become_is_refused() -> None:
    content = json.loads(byte_level(300).to_str())
    content["model"] |= {"ignore_merges": True, "vocab": content["model"]["vocab"] | {"<|end|>": 299}}
    content["added_tokens"][-1]["id"] = 300
    content["pre_tokenizer"] |= {"use_regex": False}
    with pytest.raises(ValueError, match=r"reads <\|end\|> in a text as the role token"):
        HFTokenizer(content, 300, 301).with_roles()


def test_one_token_cannot_be_the_end_of_a_text_and_a_role_token() -> None:
    with pytest.raises(ValueError, match=r"<\|endoftext\|> is a role token; conversations need both"):
        named({"<|end|>": 300}, 301, end=300).with_roles()


def damaged(folder: Path, file: str, change: Any) -> None:
    path = folder / file
    path.write_text(json.dumps(change(json.loads(path.read_text(encoding="utf-8")))), encoding="utf-8")


def added(content: dict[str, Any], change: Any) -> dict[str, Any]:
    """A tokenizer.json whose last added token is another, or none."""
    *kept, last = content["added_tokens"]
    return content | {"added_tokens": kept + change(last)}


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram", "pieces", "cl100k_base", "llama"])
@pytest.mark.parametrize(
    "change",
    [
        lambda last: [],
        lambda last: [last | {"content": "<|end >"}],
        lambda last: [last | {"id": last["id"] + 1}],
        lambda last: [last, last | {"id": last["id"] + 1, "content": "<|tool|>"}],
    ],
    ids=["missing", "renamed", "renumbered", "one too many"],
)
def test_a_folder_with_damaged_role_tokens_is_refused(kind: str, change: Any, tmp_path: Path) -> None:
    vocabulary(kind).with_roles().save(tmp_path)
    damaged(tmp_path, "tokenizer.json", lambda content: added(content, change))
    with pytest.raises(ValueError, match=r"is damaged, or not TinyGPT's: .*dvc repro tokenize"):
        load(tmp_path)


@pytest.mark.parametrize("flag", ["yes", 1, None, []])
def test_a_flag_that_is_no_flag_is_refused(flag: Any, tmp_path: Path) -> None:
    HFTokenizer(json.loads(pieces(400).to_str()), 2, 400).with_roles().save(tmp_path)
    damaged(
        tmp_path, "tokenizer_config.json", lambda found: found | {"tinygpt": found["tinygpt"] | {"has_roles": flag}}
    )
    with pytest.raises(ValueError, match=r"is damaged, or not TinyGPT's: .*dvc repro tokenize"):
        load(tmp_path)


def test_a_hosted_vocabulary_keeps_its_kind() -> None:
    tokenizer = vocabulary("cl100k_base").with_roles()
    assert isinstance(tokenizer, BPETokenizer)
    assert not tokenizer.learned_here

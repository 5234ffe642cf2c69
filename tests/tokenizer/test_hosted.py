"""OpenAI's vocabularies: fetched by name, kept as JSON, the same ids in tiktoken, here, and in transformers.

No network is needed: stand-ins have the real patterns, and merges learned here.
"""

import functools
import itertools
import json
from pathlib import Path
from pydoc_data import topics
from typing import Any
from unittest import mock

import numpy as np
import pytest
import requests
import tiktoken
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiktoken_ext import openai_public

from tests.conftest import params
from tinygpt.data.train_tokenizer import build
from tinygpt.tokenizer import bpe, pretokenize
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.folder import load

ENGLISH = "\n".join(topics.topics.values())
LATER = {"cl100k_base": pretokenize.CL100K, "o200k_base": pretokenize.O200K}
NAMES = ["gpt2", "r50k_base", "p50k_base", *LATER]
MIXED = "naïve café, 東京タワー, Ωμέγα, 🙂👍🏽 don't WE'LL\n\n\tx = 12345;\r\n  /* HelloWorld */ <|endoftext|>"
quick = settings(deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


def section(kind: str) -> Any:
    return params(tokenize__kind=kind, tokenize__vocab_size=600).tokenize


@functools.cache
def standing_in(name: str) -> tiktoken.Encoding:
    """Like the real one of this name: its pattern, its gap before <|endoftext|>, and words that no merge makes."""
    learned = build(section("bpe"), [ENGLISH])
    tokens = [learned.token_bytes(token) for token in range(learned.end_of_text)]
    unreachable = [] if name in ("gpt2", "r50k_base") else [b" zyxwv", b"qxqzq", "東京".encode(), b"\r\n\t\t\r"]
    ranks = {token: rank for rank, token in enumerate([*tokens, *unreachable])}
    ends = {"<|endoftext|>": len(ranks)}
    if name == "p50k_base":  # <|endoftext|> stands in the midst there
        ends = {"<|endoftext|>": 500}
        ranks = {token: rank + (rank >= 500) for token, rank in ranks.items()}
    elif name in LATER:
        ends = {"<|endoftext|>": len(ranks) + 1, "<|fim_prefix|>": len(ranks) + 2}
    return tiktoken.Encoding(
        name, pat_str=LATER.get(name, pretokenize.PATTERN), mergeable_ranks=ranks, special_tokens=ends
    )


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@functools.cache
def fetched(name: str) -> Tokenizer:
    with mock.patch.object(tiktoken, "get_encoding", standing_in):
        return build(section(name), [])


@functools.cache
def library(name: str) -> Any:
    content = fetched(name).to_json() | {"added_tokens": []}  # so that a literal <|endoftext|> is text there, too
    return tokenizers.Tokenizer.from_str(json.dumps(content))


def renumbered(name: str, ids: list[int]) -> list[int]:
    """Ids of tiktoken as ours, where <|endoftext|> stands last."""
    return [token - (name == "p50k_base" and token > 500) for token in ids]


def test_the_patterns_are_those_of_tiktoken() -> None:
    nothing = mock.Mock(return_value={})
    with mock.patch.multiple(openai_public, load_tiktoken_bpe=nothing, data_gym_to_mergeable_bpe_ranks=nothing):
        real = {name: openai_public.ENCODING_CONSTRUCTORS[name]()["pat_str"] for name in NAMES}
    assert real == {name: LATER.get(name, pretokenize.PATTERN) for name in NAMES}


def test_ids_on_prose_are_those_of_tiktoken_and_of_the_library(name: str) -> None:
    for text in (ENGLISH, MIXED, " zyxwv qxqzq qxqzqa 東京x\r\n\t\t\r", ""):
        ids = fetched(name).encode(text)
        assert ids == fetched(name).encode_array(text).tolist() == library(name).encode(text).ids
        assert ids == renumbered(name, standing_in(name).encode_ordinary(text))
        assert fetched(name).decode(ids) == text


@quick
@given(text=st.text() | st.text(alphabet=" \t\n\r\x0b\x1c\x85\u00a0\u3000aAéb1'!sStlLEe/ſ\u0301中", max_size=40))
def test_ids_on_any_text_are_those_of_tiktoken_and_of_the_library(name: str, text: str) -> None:
    ids = fetched(name).encode(text)
    assert ids == library(name).encode(text).ids == renumbered(name, standing_in(name).encode_ordinary(text))
    assert fetched(name).decode(ids) == text


@functools.cache
def keen_splitter(pattern: str) -> tuple[BPETokenizer, Any]:
    """Merges a sign of each class with any byte after it, so that each difference in splitting shows."""
    keen = BPETokenizer([(bytes([left]), bytes([right])) for left in b" aA1!'\n" for right in range(256)], pattern)
    return keen, tokenizers.Tokenizer.from_str(json.dumps(keen.to_json()))


@quick
@given(
    pattern=st.sampled_from([*LATER.values()]), text=st.text(alphabet=" \t\n\r\u3000aAéb1'!sStlL/\u0301中", max_size=40)
)
def test_the_later_patterns_cut_alike_where_signs_of_all_classes_meet(pattern: str, text: str) -> None:
    keen, theirs = keen_splitter(pattern)
    for one in (text, "1" * len(text)):  # numbers are cut in threes
        assert keen.encode(one) == theirs.encode(one).ids


@pytest.mark.slow
@pytest.mark.parametrize("pattern", LATER.values(), ids=LATER)
def test_the_later_patterns_cut_alike_at_every_code_point(pattern: str) -> None:
    keen, theirs = keen_splitter(pattern)
    # Planes beyond these hold no class. Beside each sign that its class decides about.
    points = map(chr, itertools.chain(range(0xD800), range(0xE000, 0x34000), range(0xE0000, 0xE1000)))
    joined = [f"a{point}1{point} {point}A{point}\n{point}!{point}'{point}l" for point in points]
    blocks = ["".join(joined[start : start + 1024]) for start in range(0, len(joined), 1024)]
    assert [keen.encode(text) for text in blocks] == [found.ids for found in theirs.encode_batch_fast(blocks)]


@pytest.mark.parametrize("pattern", LATER.values(), ids=LATER)
@pytest.mark.parametrize("text", ["x" + " " * 1_100_000 + "y", "(" + "\r\n" * 300_000 + " " * 100])
def test_spaces_without_end_are_no_obstacle(pattern: str, text: str) -> None:
    keen, theirs = keen_splitter(pattern)
    assert keen.encode_array(text).tolist() == theirs.encode(text).ids


def test_a_saved_vocabulary_needs_no_network_and_opens_in_transformers(name: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    fetched(name).save(tmp_path)
    with mock.patch.object(tiktoken, "get_encoding", side_effect=AssertionError):
        loaded = load(tmp_path)
    assert loaded.to_json() == fetched(name).to_json()
    theirs, text = transformers.AutoTokenizer.from_pretrained(tmp_path), MIXED.replace("<|endoftext|>", "")
    assert theirs.encode(text) == loaded.encode(text)
    assert theirs.decode(loaded.encode(text)) == text
    assert theirs.eos_token_id == loaded.end_of_text == len(theirs) - 1


def test_gpt2s_vocabulary_has_the_form_of_one_learned_here() -> None:
    assert fetched("gpt2").to_json() == fetched("r50k_base").to_json() == build(section("bpe"), [ENGLISH]).to_json()


@pytest.mark.parametrize("problem", [requests.ConnectionError("no network"), ValueError("hash mismatch")])
def test_a_vocabulary_that_cannot_be_fetched_names_the_way_out(problem: Exception) -> None:
    with (
        mock.patch.object(tiktoken, "get_encoding", side_effect=problem),
        pytest.raises(OSError, match=r"could not fetch the cl100k_base vocabulary .*tokenize.kind=bpe"),
    ):
        build(section("cl100k_base"), [])


def damages(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The content, wrong in one place each."""
    model, before = content["model"], content["pre_tokenizer"]
    left, right = next(pair for pair in model["merges"] if "".join(pair) == "the")
    split, as_bytes = before["pretokenizers"]
    slow = before | {"pretokenizers": [split | {"pattern": {"Regex": "(a+)+$"}}, as_bytes]}
    swapped = model["vocab"] | {"the": model["vocab"]["and"], "and": model["vocab"]["the"]}
    return {
        "a pattern that could take for ever": content | {"pre_tokenizer": slow},
        "words are cut twice": content | {"pre_tokenizer": before | {"pretokenizers": [split, content["decoder"]]}},
        "a merge is missing": content
        | {"model": model | {"merges": [pair for pair in model["merges"] if pair != [left, right]]}},
        "words are not taken whole": content | {"model": {k: v for k, v in model.items() if k != "ignore_merges"}},
        "or perhaps": content | {"model": model | {"ignore_merges": False}},
        "two entries are swapped": content | {"model": model | {"vocab": swapped}},
        "two bytes are swapped": content | {"model": model | {"vocab": model["vocab"] | {"!": 1, '"': 0}}},
    }


@pytest.mark.parametrize("kind", LATER)
def test_a_file_that_is_wrong_in_any_one_place_is_refused(kind: str, tmp_path: Path) -> None:
    for damaged in damages(fetched(kind).to_json()).values():
        (tmp_path / "tokenizer.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(ValueError, match=r"is damaged, or not TinyGPT's: .*dvc repro tokenize"):
            load(tmp_path)


def test_a_token_that_its_bytes_never_merge_into_has_no_merge() -> None:
    ranks = {token: rank for rank, token in enumerate([*bpe.BYTES, b"ab", b"abc", b"abcd"])}
    assert bpe.last_merge(b"abcd", ranks) == (b"abc", b"d")
    assert bpe.last_merge(b"abcd", {token: rank for token, rank in ranks.items() if token != b"abc"}) is None


def test_ids_of_a_large_vocabulary_are_kept_as_32_bit_integers(tmp_path: Path) -> None:
    from tinygpt.data.dataset import open_tokens
    from tinygpt.data.encode import write_tokens

    many = [(bytes([a]), bytes([b])) for a in range(256) for b in range(256)]
    large = BPETokenizer(many, pretokenize.CL100K)
    assert large.vocab_size > 65_536
    write_tokens([("d", "ÿ")], large, tmp_path / "tokens.npy")
    tokens = open_tokens(tmp_path / "tokens.npy")
    assert tokens.dtype == np.uint32
    assert large.decode(int(token) for token in tokens) == "ÿ"

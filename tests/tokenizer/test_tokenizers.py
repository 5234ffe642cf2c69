"""tinygpt/tokenizer/char.py: ids agree with the library that learned them, texts come back, damage is refused."""

import functools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from pydoc_data import topics
from typing import Any

import numpy as np
import pytest
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinygpt import config
from tinygpt.data.train_tokenizer import build, spread
from tinygpt.files.text import read_json
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.folder import load

ENGLISH = [str(text) for _, text in sorted(topics.topics.items())]  # about 700 KB that comes with Python
MIXED = ["naïve café, 東京タワー, Ωμέγα, 🙂👍🏽 don't  we'll\n\n\tx = 12345;\r\n" * 50]
MEBIBYTE = 2**20

quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def section(**changes: Any) -> config.Tokenize:
    return config.Tokenize(
        **{"kind": "bpe", "vocab_size": 1024, "algorithm": "unigram", "unknown": "replace", "from": None, **changes}
    )


@functools.cache
def library(tokenizer: Tokenizer) -> Any:
    """The tokenizers library, reading our tokenizer.json."""
    return tokenizers.Tokenizer.from_str(json.dumps(tokenizer.to_json()))


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return build(section(), ENGLISH + MIXED)


@pytest.fixture(scope="module")
def char() -> Tokenizer:
    return build(section(kind="char"), MIXED)


@pytest.fixture
def kinds(bpe: Tokenizer, char: Tokenizer) -> list[Tokenizer]:
    return [bpe, char, build(section(kind="char", unknown="error"), MIXED)]


# bpe


def test_ids_agree_with_the_tokenizers_library_on_prose(bpe: Tokenizer) -> None:
    theirs = [encoding.ids for encoding in library(bpe).encode_batch_fast(ENGLISH + MIXED)]
    assert [bpe.encode(text) for text in ENGLISH + MIXED] == theirs


@quick
@given(st.text())
def test_ids_agree_with_the_tokenizers_library_on_any_text(bpe: Tokenizer, text: str) -> None:
    assert bpe.encode(text) == library(bpe).encode(text).ids


@quick
@given(st.text(alphabet=" \t\n\r\x0b\x1c\x85\u00a0\u3000ab1'!stle", max_size=40))
def test_ids_agree_with_the_tokenizers_library_where_white_space_meets_words(text: str) -> None:
    keen = keen_splitter()
    assert keen.encode(text) == library(keen).encode(text).ids


@functools.cache
def keen_splitter() -> BPETokenizer:
    """Merges a space, letter, digit or sign with any byte after it, so that each difference in splitting shows."""
    return BPETokenizer([(bytes([left]), bytes([right])) for left in b" a1!\n" for right in range(256)])


def test_ids_agree_with_the_tokenizers_library_on_every_code_point() -> None:
    keen = keen_splitter()
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    blocks = ["".join(points[start : start + 4096]) for start in range(0, len(points), 4096)]
    # After a letter, a digit and a space each: its class decides which of them it joins. Other planes hold no class.
    classed = [point for point in points if ord(point) < 0x34000 or 0xE0000 <= ord(point) < 0xE1000]
    joined = [f"a{point}1{point} {point}" for point in classed]
    beside = ["".join(joined[start : start + 1024]) for start in range(0, len(joined), 1024)]
    theirs = [encoding.ids for encoding in library(keen).encode_batch_fast(blocks + beside)]
    assert [keen.encode(text) for text in blocks + beside] == theirs
    assert "".join(keen.decode(ids) for ids in theirs) == "".join(blocks + beside)


@quick
@given(st.text())
def test_any_text_comes_back_from_bpe(bpe: Tokenizer, text: str) -> None:
    ids = bpe.encode(text)
    assert bpe.decode(ids) == text
    assert sum(bpe.byte_lengths()[ids]) == len(text.encode())


@quick
@given(st.lists(st.integers(0, 1022)))
def test_any_ids_decode_as_the_tokenizers_library_decodes_them(bpe: Tokenizer, ids: list[int]) -> None:
    assert bpe.decode(ids) == library(bpe).decode(ids)


def test_the_vocabulary_is_the_bytes_the_merges_and_the_end(bpe: Tokenizer) -> None:
    assert bpe.vocab_size == 1024
    assert {bpe.token_bytes(token) for token in range(256)} == {bytes([byte]) for byte in range(256)}
    assert len({bpe.token_bytes(token) for token in range(1024)}) == 1024
    assert bpe.token_bytes(bpe.end_of_text) == b""


def test_the_same_text_gives_the_same_file_with_one_thread_and_with_many(tmp_path: Path) -> None:
    script = """if True:
        import sys
        from pydoc_data.topics import topics
        from tinygpt import config
        from tinygpt.data import train_tokenizer
        section = config.Tokenize(kind="bpe", vocab_size=1024, algorithm="unigram", unknown="replace", **{"from": None})
        train_tokenizer.build(section, iter(topics.values())).save(sys.argv[1])
    """
    for threads in ("1", "4"):
        environment = os.environ | {"RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        subprocess.run([sys.executable, "-c", script, tmp_path / threads], check=True, env=environment, timeout=60)
    one, four = ((tmp_path / threads / "tokenizer.json").read_bytes() for threads in ("1", "4"))
    assert one == four


def test_too_large_a_vocabulary_is_refused_with_the_largest_that_works() -> None:
    with pytest.raises(ValueError, match=r"vocab_size is 999, but this text gives only (\d+); set it to") as caught:
        build(section(vocab_size=999), ["a small text, a smaller text"])
    largest = int(str(caught.value).rstrip(" orles.").rsplit(" ", 1)[-1])
    assert build(section(vocab_size=largest), ["a small text, a smaller text"]).vocab_size == largest


def test_of_a_large_text_as_much_is_learned_from_as_is_allowed_and_evenly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinygpt.data.train_tokenizer.LEARNED", 30_000)
    read: list[str] = []
    texts = [f"{number:02} " + "to be or not " * 77 for number in range(100)]  # about 100 KB

    def train(vocab_size: int, texts: Iterator[str]) -> None:
        read.extend(texts)

    monkeypatch.setattr("tinygpt.data.train_tokenizer._train_bpe", train)
    build(section(), texts, sum(map(len, texts)))
    assert 29_000 < sum(map(len, read)) <= 30_000
    gaps = np.diff([texts.index(text) for text in read])
    assert set(gaps.tolist()) == {3, 4}
    read.clear()
    build(section(), texts[:29], 30_000)
    assert read == texts[:29]


def test_a_large_rows_turn_comes_when_enough_was_passed_over() -> None:
    texts = ["s" * 10, "l" * 1000] * 50
    taken = list(spread(texts, 0.25))
    assert 0.2 < sum(map(len, taken)) / sum(map(len, texts)) <= 0.25


@pytest.mark.parametrize("texts", [[], [""], ["a"]])
def test_a_text_without_pairs_is_refused(texts: list[str]) -> None:
    with pytest.raises(ValueError, match="too short to learn pairs from"):
        build(section(), texts)


ENDLESS = {
    "spaces, then a word": "x" + " " * (MEBIBYTE + 1) + "y",
    "spaces at the end": "x" + " " * MEBIBYTE,
    "wide spaces, then lines": "x" + "\u3000" * (MEBIBYTE // 2) + "\ny",
    "separators that Python alone counts as white space": " " * 600_000 + "\x1c" * 200 + " " * 600_000 + "\x1cy",
    "one letter": "e" * MEBIBYTE,
    "letters without end": "".join(ENGLISH)[:MEBIBYTE].replace(" ", "").replace("\n", ""),
    "emoji": "😀" * (MEBIBYTE // 4),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_rows_without_end_encode_as_in_the_tokenizers_library(bpe: Tokenizer, name: str) -> None:
    assert bpe.encode(ENDLESS[name]) == library(bpe).encode(ENDLESS[name]).ids


@pytest.mark.parametrize("name", ENDLESS)
def test_no_word_is_so_long_that_learning_never_ends(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    lengths: list[int] = []

    def record(_: Any, texts: Iterator[str], trainer: Any) -> None:
        lengths.extend(len(text) for text in texts)

    monkeypatch.setattr(tokenizers, "Tokenizer", recording_library(record))
    with pytest.raises(ValueError, match="too short"):  # nothing was learned
        build(section(), [ENDLESS[name]])
    assert sum(lengths) == len(ENDLESS[name])
    assert name == "letters without end" or max(lengths) <= 1000


def recording_library(record: Any) -> Any:
    class CUDAGraphRunner:
        def __init__(self, model: Any) -> None:
            self.pre_tokenizer = None

        train_from_iterator = record

        def to_str(self) -> str:
            return json.dumps(BPETokenizer([]).to_json())

    return CUDAGraphRunner


# char


@quick
@given(st.data())
def test_any_text_over_its_alphabet_comes_back_from_char(char: Tokenizer, data: st.DataObject) -> None:
    text = data.draw(st.text(alphabet=sorted(set(MIXED[0]))))
    assert char.decode(char.encode(text)) == text
    assert char.encode(text) == library(char).encode(text).ids


def test_characters_are_numbered_in_their_order() -> None:
    tokenizer = build(section(kind="char"), ["ba", "🙂c", "a"])
    assert tokenizer.encode("abc\ufffd🙂") == [0, 1, 2, 3, 4]
    assert tokenizer.vocab_size == 6
    assert tokenizer.byte_lengths().tolist() == [1, 1, 1, 3, 4, 0]


def test_an_unknown_character_is_replaced_as_in_the_tokenizers_library(char: Tokenizer) -> None:
    assert char.decode(char.encode("caféQ!\ud800")) == "café\ufffd\ufffd\ufffd"
    assert char.encode("caféQ!") == library(char).encode("caféQ!").ids


def test_an_unknown_character_is_refused_by_name_where_the_policy_is_error(tmp_path: Path) -> None:
    build(section(kind="char", unknown="error"), ["abc \ufffd"]).save(tmp_path)
    tokenizer = load(tmp_path)
    assert tokenizer.decode(tokenizer.encode("cab\ufffd")) == "cab\ufffd"
    with pytest.raises(ValueError, match=r"'é' \(U\+00E9\), 'z' \(U\+007A\)\. .* tokenize.unknown to replace"):
        tokenizer.encode("a éz é")
    with pytest.raises(ValueError, match="and 21 more"):
        tokenizer.encode("defghijklmnopqrstuvwxyz123")


def test_an_empty_text_gives_no_characters() -> None:
    with pytest.raises(ValueError, match="is empty"):
        build(section(kind="char"), [])


# all kinds


def test_a_literal_end_of_text_is_plain_text(kinds: list[Tokenizer]) -> None:
    for tokenizer in [kinds[0], build(section(kind="char"), ["<|endoftext|>"])]:
        ids = tokenizer.encode("<|endoftext|>")
        assert tokenizer.end_of_text not in ids
        assert tokenizer.decode(ids) == "<|endoftext|>"
        assert tokenizer.decode([*ids, tokenizer.end_of_text]) == "<|endoftext|>"


@pytest.mark.parametrize("text", [*MIXED, "", "x = 1", "x = don't " * 60_000, "<|endoftext|> = <|endoftext|>"])
def test_an_array_holds_the_same_ids_as_a_list(kinds: list[Tokenizer], text: str) -> None:
    for tokenizer in kinds:
        known = text if tokenizer.unknown or isinstance(tokenizer, BPETokenizer) else text.replace("<|endoftext|>", "")
        ids = tokenizer.encode_array(known)
        assert isinstance(ids, np.ndarray)
        assert ids.tolist() == tokenizer.encode(known)


def test_half_a_character_decodes_as_a_replacement(bpe: Tokenizer) -> None:
    first, second = [next(t for t in range(256) if bpe.token_bytes(t) == bytes([byte])) for byte in "é".encode()]
    assert bpe.decode([first, second]) == "é"
    assert bpe.decode([first]) == bpe.decode([second]) == "\ufffd"


@pytest.mark.parametrize("token", [-1, 1024, 10**12])
def test_an_id_outside_the_vocabulary_is_refused(bpe: Tokenizer, token: int) -> None:
    with pytest.raises(ValueError, match=f"Token {token} is not in this vocabulary of 1024"):
        bpe.decode([token])


def test_byte_lengths_are_those_of_the_tokens(kinds: list[Tokenizer]) -> None:
    for tokenizer in kinds:
        lengths = tokenizer.byte_lengths()
        assert lengths.dtype == np.int64
        assert lengths.tolist() == [len(tokenizer.token_bytes(token)) for token in range(tokenizer.vocab_size)]


def test_a_saved_tokenizer_loads_as_it_was(kinds: list[Tokenizer], tmp_path: Path) -> None:
    for tokenizer in kinds:
        tokenizer.save(tmp_path)
        loaded = load(tmp_path)
        assert type(loaded) is type(tokenizer)
        assert loaded.to_json() == tokenizer.to_json()
        assert loaded.encode(MIXED[0]) == tokenizer.encode(MIXED[0])


def test_transformers_opens_the_folder_with_the_same_ids(kinds: list[Tokenizer], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    for tokenizer in kinds:
        tokenizer.save(tmp_path)
        for opener in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
            theirs = opener.from_pretrained(tmp_path)
            assert theirs.encode(MIXED[0]) == tokenizer.encode(MIXED[0])
            assert theirs.decode(tokenizer.encode(MIXED[0])) == MIXED[0]
            assert len(theirs) == tokenizer.vocab_size
            assert theirs.bos_token_id == theirs.eos_token_id == tokenizer.end_of_text
            assert theirs.encode("<|endoftext|>") == [tokenizer.end_of_text]


def test_loading_imports_no_training_library(bpe: Tokenizer, tmp_path: Path) -> None:
    bpe.save(tmp_path)
    script = (
        "import sys; from tinygpt.tokenizer.folder import load; assert 'tiktoken' not in sys.modules; "
        "load(sys.argv[1]); assert not {'tokenizers', 'torch'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script, tmp_path], check=True, timeout=60)


# damage


def test_a_missing_tokenizer_says_which_stage_makes_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No tokenizer at .* Run `dvc repro tokenize`\."):
        load(tmp_path)


def damages(content: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The content, wrong in one place each."""

    def changed(**changes: Any) -> dict[str, Any]:
        return content | {"model": content["model"] | changes}

    vocabulary = content["model"]["vocab"]
    names = list(vocabulary)
    yield {}
    yield {key: value for key, value in content.items() if key != "decoder"}
    yield content | {"normalizer": {"type": "NFKC"}}
    yield content | {"added_tokens": []}
    yield content | {"pre_tokenizer": {"type": "Whitespace"}}
    yield content | {"surprise": 1}
    yield content | {"model": None}
    yield changed(type="Unigram")
    yield changed(type=[])
    yield changed(vocab=names)
    yield changed(vocab=None, unk_token="x", merges=None)
    yield changed(vocab={name: place for name, place in vocabulary.items() if name != names[3]})
    yield changed(vocab=vocabulary | {names[3]: vocabulary[names[4]]})
    yield changed(vocab=vocabulary | {names[-1]: len(names) + 5})
    yield changed(vocab=vocabulary | {names[-1]: "7"})
    yield changed(vocab=vocabulary | {"two or more": len(names)})
    yield changed(vocab=vocabulary | {"\ud800": len(names)})
    if merges := content["model"].get("merges"):
        yield changed(merges=merges[:-1])
        yield changed(merges=[merges[-1], *merges[:-1]])
        yield changed(merges=[*merges, merges[0]])
        yield changed(merges=[*merges, ["Ġ"]])
        yield changed(merges=[*merges, [1, 2]])
        yield changed(merges=[*merges, ["東", "京"]])
        # Consistent in all parts, but the last merge joins what none before it makes, or makes what one before it made.
        for left, right in (["qqq", "zzz"], merges[-1]):
            end = content["added_tokens"][0] | {"id": len(names) + 1}
            larger = changed(merges=[*merges, [left, right]], vocab=vocabulary | {left + right: len(names)})
            yield larger | {"added_tokens": [end]}


def test_a_file_that_is_wrong_in_any_one_place_is_refused(kinds: list[Tokenizer], tmp_path: Path) -> None:
    others: list[Any] = [[], None, 3]
    for tokenizer in kinds:
        for damaged in [*damages(tokenizer.to_json()), *others]:
            (tmp_path / "tokenizer.json").write_text(json.dumps(damaged), encoding="utf-8")
            with pytest.raises(ValueError, match=r"tokenizer.json is damaged, or not TinyGPT's: .*dvc repro tokenize"):
                load(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"\x80\x04\x95", b"[" * 100_000])
def test_bytes_that_are_not_json_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"is damaged.*dvc repro tokenize"):
        load(tmp_path)


def test_a_file_of_absurd_size_is_refused_unread(
    bpe: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bpe.save(tmp_path)
    os.truncate(tmp_path / "tokenizer.json", 2**40)
    monkeypatch.delattr(Path, "read_text")
    with pytest.raises(ValueError, match=r"is larger than [\d,]+ bytes\. Run `dvc repro tokenize`"):
        load(tmp_path)


def test_both_files_are_json_and_name_the_class_and_the_ends(char: CharTokenizer, tmp_path: Path) -> None:
    char.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    assert read_json(tmp_path / "tokenizer_config.json") == {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|endoftext|>",
        "clean_up_tokenization_spaces": False,
    }

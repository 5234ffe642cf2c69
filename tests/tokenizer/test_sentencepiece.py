"""tinygpt/tokenizer/sentencepiece.py: SentencePiece's own ids, and every text comes back."""

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from pydoc_data import topics
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import MIXED, gpt, params
from tinygpt.data import train_tokenizer
from tinygpt.data.train_tokenizer import build
from tinygpt.generation import generate
from tinygpt.tokenizer import sentencepiece as pieces
from tinygpt.tokenizer.folder import load
from tinygpt.tokenizer.sentencepiece import SentencePieceTokenizer

sentencepiece: Any = pytest.importorskip("sentencepiece")

ENGLISH = [str(text) for _, text in sorted(topics.topics.items())]
TRAPS = [
    "<0x0A>",
    " é<0x41>東<0x00>",
    "<0<0x0A><0x0a><0xGG>",
    "<|endoftext|>",
    "▁a ▁▁ ▁",
    "<unk><s></s>",
    "\ufeffx",
    "",
]
ALGORITHMS = ["unigram", "bpe"]
quick = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def section(algorithm: str, size: int = 1024) -> Any:
    changes = {"tokenize__kind": "sentencepiece", "tokenize__algorithm": algorithm, "tokenize__vocab_size": size}
    return params(**changes).tokenize


@functools.cache
def learned(algorithm: str) -> tuple[SentencePieceTokenizer, Any]:
    """Ours, and the sentencepiece model that it was made from."""
    spied = mock.Mock(wraps=sentencepiece.SentencePieceProcessor)
    with mock.patch.object(sentencepiece, "SentencePieceProcessor", spied):
        ours = build(section(algorithm), [*ENGLISH, MIXED * 50])
    assert isinstance(ours, SentencePieceTokenizer)
    return ours, sentencepiece.SentencePieceProcessor(**spied.call_args.kwargs)


@pytest.fixture(scope="module", params=ALGORITHMS)
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def theirs(algorithm: str, text: str) -> list[int]:
    """SentencePiece's ids, without its entry for the unknown, which is its first."""
    return [token - 1 for token in learned(algorithm)[1].encode(text)]


def likelihood(algorithm: str, ids: list[int]) -> Fraction:
    """The logarithm of it, exactly; what is unknown is so in every cut."""
    scores = learned(algorithm)[0].scores
    return (
        sum((Fraction(scores[token]) for token in ids if token >= pieces.FIRST), Fraction()) if scores else Fraction()
    )


def agrees(algorithm: str, text: str) -> bool:
    """Whether ours are SentencePiece's ids, or another cut that is likelier, or as likely."""
    ours, its = learned(algorithm)[0].encode(text), theirs(algorithm, text)
    return ours == its or (algorithm == "unigram" and likelihood(algorithm, ours) >= likelihood(algorithm, its))


def test_ids_on_prose_are_sentencepieces_own(algorithm: str) -> None:
    lines = [line for text in ENGLISH for line in text.split("\n")]
    different = [line for line in lines if learned(algorithm)[0].encode(line) != theirs(algorithm, line)]
    assert all(agrees(algorithm, line) for line in different)
    assert all(re.search(r"(.)\1\1", line) for line in different)  # ties come of runs of one sign
    prose = [line for line in different if not re.fullmatch(r"\s*(\S)\1+", line)]  # and not what underlines a heading
    assert len(prose) <= (len(lines) / 200 if algorithm == "unigram" else 0)


@quick
@given(text=st.text() | st.text(alphabet=" \t\n\r\0é<0xA1>-=.ethas'Ω日", max_size=60))
def test_ids_on_any_text_are_sentencepieces_own(algorithm: str, text: str) -> None:
    assert agrees(algorithm, text.replace("▁", "_"))


@quick
@given(text=st.text() | st.text(alphabet=" \t\n\r\0é<0xA1>|▁-=.ethas'Ω日", max_size=60))
def test_any_text_comes_back(algorithm: str, text: str) -> None:
    ours, _ = learned(algorithm)
    ids = ours.encode(text)
    assert ours.decode(ids) == text
    assert ours.end_of_text not in ids
    assert sum(ours.byte_lengths()[ids]) == len(text.encode())


def test_every_trap_comes_back(algorithm: str) -> None:
    ours, _ = learned(algorithm)
    for text in [*TRAPS, *(f"{first}{second}" for first in TRAPS for second in TRAPS), MIXED]:
        assert ours.decode(ours.encode_array(text).tolist()) == text


@pytest.mark.slow
def test_every_code_point_comes_back(algorithm: str) -> None:
    ours, _ = learned(algorithm)
    points = [chr(point) for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    for start in range(0, len(points), 2048):
        text = " ".join(points[start : start + 2048])
        assert ours.decode(ours.encode_array(text).tolist()) == text


def test_the_vocabulary_is_a_new_line_the_bytes_the_pieces_and_the_end(algorithm: str) -> None:
    ours, its = learned(algorithm)
    assert ours.vocab_size == 1024
    assert ours.token_bytes(0) == b"\n"
    assert [ours.token_bytes(token) for token in range(1, 257)] == [bytes([byte]) for byte in range(256)]
    assert ours.token_bytes(ours.end_of_text) == b""
    assert ours.encode("the cat\n")[-1] == 0
    for token in range(pieces.FIRST, ours.end_of_text):
        assert ours.token_bytes(token).decode() == its.id_to_piece(token + 1).replace("▁", " ")


def test_long_texts_are_encoded_in_parts_as_the_whole(algorithm: str) -> None:
    ours, _ = learned(algorithm)
    text = "".join(ENGLISH)[:60_000] + "x" * 20_000 + " " * 20_000 + "日本" * 10_000
    assert ours.encode(text) == ours._library.encode(text).ids == ours.encode_array(text).tolist()


def test_transformers_opens_the_folder_with_the_same_ids(algorithm: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    ours, _ = learned(algorithm)
    ours.save(tmp_path)
    for opener in (transformers.AutoTokenizer, transformers.PreTrainedTokenizerFast):
        opened = opener.from_pretrained(tmp_path)
        for text in [MIXED, *ENGLISH[:20], *(trap for trap in TRAPS if "endoftext" not in trap)]:
            assert opened.encode(text) == ours.encode(text)
            assert opened.decode(ours.encode(text)) == text
        assert len(opened) == ours.vocab_size
        assert opened.encode("<|endoftext|>") == [opened.eos_token_id] == [ours.end_of_text]


def test_it_is_saved_as_json_and_loads_where_sentencepiece_is_missing(algorithm: str, tmp_path: Path) -> None:
    ours, _ = learned(algorithm)
    ours.save(tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    script = (
        "import sys; sys.modules['sentencepiece'] = None; from tinygpt.tokenizer.folder import load; "
        "t = load(sys.argv[1]); print(t.encode(sys.argv[2]))"
    )
    words = [sys.executable, "-c", script, str(tmp_path), "The cat sat."]
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=60)
    assert json.loads(done.stdout) == ours.encode("The cat sat.")
    assert load(tmp_path).to_json() == ours.to_json()


@pytest.mark.slow
def test_the_same_text_gives_the_same_file_whatever_the_threads(algorithm: str, tmp_path: Path) -> None:
    script = """if True:
        import sys
        from tests.tokenizer.test_sentencepiece import ENGLISH, section
        from tinygpt.data import train_tokenizer
        train_tokenizer.build(section(sys.argv[1], 600), ENGLISH[::3]).save(sys.argv[2])
    """
    for threads in ("1", "3"):
        environment = os.environ | {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "PYTHONHASHSEED": threads}
        words = [sys.executable, "-c", script, algorithm, str(tmp_path / threads)]
        only = ["taskset", "-c", "0"] if threads == "1" and Path("/usr/bin/taskset").exists() else []
        subprocess.run([*only, *words], check=True, env=environment, timeout=120)
    one, three = ((tmp_path / threads / "tokenizer.json").read_bytes() for threads in ("1", "3"))
    assert one == three


@pytest.mark.parametrize("problem", [OSError("the disk is gone"), KeyboardInterrupt()])
def test_what_breaks_off_the_text_is_told_as_it_is(problem: BaseException) -> None:
    def texts() -> Iterator[str]:
        yield "the cat sat on the mat"
        raise problem

    with pytest.raises(type(problem)):
        build(section("bpe"), texts())


@pytest.mark.parametrize("texts", [[], [""], ["\n\0\n"]])
def test_an_empty_text_gives_no_pieces(algorithm: str, texts: list[str]) -> None:
    with pytest.raises(ValueError, match=r"is empty\. Add text"):
        build(section(algorithm), texts)


def test_a_vocabulary_of_the_wrong_size_is_refused_with_one_that_works(algorithm: str) -> None:
    texts = ["the cat sat on the mat and the cap is on the cat "]
    for size, says in ((9999, r"vocab_size is 9999, but this text gives only \d+"), (260, r"set it to \d+ or more")):
        with pytest.raises(ValueError, match=says) as caught:
            build(section(algorithm, size), texts)
        works = int(re.findall(r"set it to (\d+)", str(caught.value))[0])
        assert build(section(algorithm, works), texts).vocab_size == works


def test_a_missing_package_is_told_with_the_command_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find(name))
    with pytest.raises(ValueError, match=r"pip install -c requirements.lock -e '.\[sentencepiece\]'"):
        build(section("bpe"), iter(lambda: pytest.fail("the text was read"), 1))
    train_tokenizer.check(params().tokenize)


@pytest.mark.parametrize("text", ["e" * 2**20, " " * 2**20, "日本語" * 2**18, "a\0b" * 2**18, "x\n" * 2**18])
def test_lines_without_end_are_learned_from_in_parts_and_none_is_lost(text: str) -> None:
    lines = list(train_tokenizer._lines(text))
    assert max(len(line.encode()) for line in lines) <= train_tokenizer.LINE
    assert "".join(lines) == text.replace("\n", "").replace("\0", "")


def test_a_line_with_a_sign_that_sentencepiece_reserves_is_learned_from_all_the_same() -> None:
    ours = build(section("bpe", 280), ["wherefore\u2585wherefore\0wherefore\twherefore▁wherefore " * 20])
    assert len(ours.encode("wherefore")) == 1


def test_of_a_large_text_as_much_is_learned_from_as_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tokenizer, "LEARNED", 30_000)
    read: list[str] = []
    monkeypatch.setattr(train_tokenizer, "_train_pieces", lambda _, texts: read.extend(texts))
    build(section("bpe"), ["to be or not " * 77] * 100, 100_100)
    assert 28_000 < sum(map(len, read)) <= 30_000


def damages(content: dict[str, Any]) -> list[dict[str, Any]]:
    """The content, wrong in one place each."""
    model, vocabulary = content["model"], content["model"]["vocab"]
    wrong: list[dict[str, Any]] = [
        content | {"pre_tokenizer": None},
        content | {"normalizer": {"type": "NFKC"}},
        content | {"added_tokens": []},
        content | {"decoder": {"type": "Fuse"}},
    ]
    if model["type"] == "BPE":
        names = list(vocabulary)
        swapped = {name: place for place, name in enumerate([*names[:-2], names[-1], names[-2]])}
        models = [
            {"merges": model["merges"][:-1]},
            {"merges": [*model["merges"], ["x", "y"]]},
            {"vocab": vocabulary | {names[-1]: vocabulary[names[-2]]}},
            {"vocab": swapped | {names[0]: 5}},
            {"vocab": vocabulary | {"<|endoftext|>": len(vocabulary)}},
            {"byte_fallback": False},
        ]
    else:
        first = vocabulary[300]
        models = [
            {"vocab": [*vocabulary[:300], *vocabulary[301:]]},
            {"vocab": [*vocabulary[:300], first, *vocabulary[300:]]},
            {"vocab": [*vocabulary[:300], [first[0], float("nan")], *vocabulary[301:]]},
            {"vocab": [*vocabulary[:300], [first[0], "1"], *vocabulary[301:]]},
            {"vocab": [*vocabulary[:300], [first[0], 7.5], *vocabulary[301:]]},  # the highest is that of a new line
            {"vocab": [["\r", vocabulary[0][1]], *vocabulary[1:]]},
            {"vocab": vocabulary[: pieces.FIRST]},
            {"unk_id": 5},
            {"byte_fallback": False},
        ]
    return wrong + [content | {"model": model | changes} for changes in models]


def test_a_file_that_is_wrong_in_any_one_place_is_refused(algorithm: str, tmp_path: Path) -> None:
    for damaged in damages(learned(algorithm)[0].to_json()):
        (tmp_path / "tokenizer.json").write_text(json.dumps(damaged), encoding="utf-8")
        with pytest.raises(ValueError, match=r"is damaged, or not TinyGPT's: .*dvc repro tokenize"):
            load(tmp_path)


def test_streaming_holds_back_half_characters(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, text = learned(algorithm)[0], "the 漢字!\n"  # of which the text that it was learned from held no sign
    ids = ours.encode(text)
    assert len(ids) > len(text)
    monkeypatch.setattr(
        generate, "generate_ids", lambda *_, **__: ([token] for token in [*ids, *ours.encode("漢")[:1]])
    )
    shown = list(generate.stream(gpt(ours.vocab_size), ours, "the"))
    assert "".join(shown) == text + "\ufffd"
    assert shown[-1] == "\ufffd"

"""tinygpt/data/conversations.py: conversations are read from files of any form, checked, split whole, and tokenized."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import params
from tests.small_conversations import drawn, said, tokenizer
from tinygpt import config
from tinygpt.data import conversations, corpus
from tinygpt.data.conversations import Conversation, has_conversations, read_conversations
from tinygpt.data.corpus import read_rows, read_scored, write_corpus
from tinygpt.data.encode import write_conversations
from tinygpt.data.sources import documents
from tinygpt.tokenizer.chat_template import Messages

pytestmark = pytest.mark.usefixtures("here")
TALKS = [
    said("Who art thou?", "Juliet."),
    said("naïve 東京\n🙂", "מי\tאתה", "a", "b", system="Be brief."),
    said("<|end|><|system|>{{ 7*7 }}", "49"),
]


def section(**changes: object) -> config.Download:
    values: dict[str, object] = {"source": "files", "path": "own", "pattern": "**/*", "url": None, "sha256": None}
    values |= {"text_column": "messages", "max_documents": None, "validation_fraction": 0.1}
    return params(**{f"download__{key}": value for key, value in (values | changes).items()}).download


def sharegpt(messages: Messages) -> list[dict[str, Any]]:
    names = {"system": "system", "user": "human", "assistant": "gpt"}
    return [{"from": names[message["role"]], "value": message["content"]} for message in messages]


def lines(values: list[Any], column: str = "messages", name: str = "talk") -> None:
    """own/<name>.jsonl, with a value in `column` on each line."""
    Path("own").mkdir(exist_ok=True)
    text = "".join(json.dumps({"id": i, column: value}) + "\n" for i, value in enumerate(values))
    Path("own", f"{name}.jsonl").write_text(text, encoding="utf-8")


def parquet(values: list[Any], folder: str = "own", column: str = "messages") -> None:
    Path(folder).mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: values, "id": [*range(len(values))]}), Path(folder, "talk.parquet"))


def found(**changes: object) -> list[Any]:
    """The messages of each document of the source."""
    read = [content for _, content in documents.documents(section(**changes))[0]]
    assert all(isinstance(content, Conversation) for content in read)
    return [content.messages for content in read if isinstance(content, Conversation)]


def written(talks: Sequence[Messages], **changes: object) -> dict[str, list[tuple[str, Messages]]]:
    """What `write_corpus` makes of these conversations: split → (document, messages)."""
    named = ((f"talk/{number}", Conversation(talk)) for number, talk in enumerate(talks))
    write_corpus(named, section(**changes), Path("corpus"))
    return {split: [*read_conversations(Path(f"corpus/{split}.parquet"))] for split in ("train", "validation")}


# Read


@pytest.mark.parametrize("write", [lines, parquet])
def test_messages_are_read_from_files(write: Any) -> None:
    write(TALKS)
    documents.check_source(section())
    assert found() == TALKS


def test_messages_are_read_from_a_dataset_of_the_hub() -> None:
    pytest.importorskip("datasets")
    parquet(TALKS, "dataset/data")
    assert found(source="hub", dataset="dataset") == TALKS
    Path("dataset/data/talk.parquet").unlink()
    parquet([sharegpt(talk) for talk in TALKS], "dataset/data", "conversations")
    assert found(source="hub", dataset="dataset", text_column="conversations") == TALKS


@pytest.mark.parametrize("write", [lines, parquet])
def test_the_form_of_sharegpt_is_read(write: Any) -> None:
    write([sharegpt(talk) for talk in TALKS], column="conversations")
    assert found(text_column="conversations") == TALKS


def test_other_keys_are_dropped_and_line_ends_are_plain() -> None:
    message: Any = {"role": "user", "content": "a\r\nb\rc", "name": "x", "weight": 0.5, "from": "human"}
    lines([[message, {"role": "assistant", "content": "d", "tool_calls": None}]])
    assert found() == [said("a\nb\nc", "d")]


def test_a_null_is_passed_over_and_counted() -> None:
    lines([TALKS[0], None, TALKS[1]])
    passed: list[str] = []
    assert len([*documents.documents(section(), tell=passed.append)[0]]) == 2
    assert passed == ["row: null in 'messages'"]


def test_documents_are_named_after_file_and_line() -> None:
    lines(TALKS)
    assert [name for name, _ in documents.documents(section())[0]] == [f"talk.jsonl/{i}" for i in (1, 2, 3)]


# Refused


def first(role: Any = "user", content: Any = "a", **keys: Any) -> list[dict[str, Any]]:
    """A conversation with this first message."""
    return [{"role": role, "content": content, **keys}, *said("a", "b")[1:]]


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ([], "a conversation is a list of messages"),
        (["a"], "message 1 is 'a', not an object with role and content"),
        ([{"role": "user"}], "message 1 is {'role': 'user'}, not an object"),
        ([{"text": "a"}], "message 1 is {'text': 'a'}, not an object"),
        (first("tool"), "message 1 has the role 'tool'; roles are system, user, assistant"),
        (first(["user"]), r"message 1 has the role \['user'\]"),
        (first(None), "message 1 has the role None"),
        (first(content=""), "message 1 is empty"),
        (first(content="\r\n"), "message 1 is empty"),
        (first(content=None), "message 1 has the content None, which is not text"),
        (first(content=float("nan")), "message 1 has the content nan, which is not text"),
        (first(content={"parts": ["a"]}), "message 1 has the content {'parts': .*, which is not text"),
        (first(content="a\ud83d"), "message 1 has a lone surrogate"),
        (said("a"), "the last message must be the assistant's"),
        (said("a", "b")[1:], "user and assistant take turns, and the user begins"),
        ([*said("a", "b"), *first("system")], "a system message stands first, and there is at most one"),
        ([{"from": "human"}, *said("a", "b")[1:]], "message 1 has the content None, which is not text"),
        ([{"from": "bing", "value": "a"}], "message 1 has the role 'bing'"),
        ([{"from": ["human"], "value": "a"}], r"message 1 has the role \['human'\]"),
        ([{"from": {}, "value": "a"}], "message 1 has the role {}"),
    ],
)
def test_a_wrong_record_is_refused_with_its_file_and_line(value: Any, why: str) -> None:
    lines([TALKS[0], TALKS[1], value])
    for read in (found, lambda: documents.check_source(section())):
        with pytest.raises(ValueError, match=rf"^own/talk.jsonl, line 3: {why}.*\. Correct or remove it\.$"):
            read()


def test_a_wrong_record_of_a_parquet_file_and_of_a_dataset_is_refused_with_its_row() -> None:
    parquet([TALKS[0], said("a", "")])
    with pytest.raises(ValueError, match=r"^own/talk.parquet, row 2: message 2 is empty\. Correct or remove it\.$"):
        found()
    pytest.importorskip("datasets")
    parquet([TALKS[0], said("a", "")], "dataset/data")
    with pytest.raises(ValueError, match=r"^Row 2 of dataset: message 2 is empty\. Correct or remove it\.$"):
        found(source="hub", dataset="dataset")


def test_a_missing_column_is_named_with_those_that_are_there() -> None:
    lines(TALKS, "conversations")
    with pytest.raises(ValueError, match=r"line 1 has no column 'messages'.*text_column to one of: id, conversations"):
        found()


def test_messages_that_are_no_list_are_refused() -> None:
    lines([TALKS[0][0]])
    with pytest.raises(ValueError, match=r"own/talk.jsonl, line 1: 'messages' is {.*}, which is not text"):
        found()


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ([TALKS[0], "a text"], r"talk.jsonl/2 is a text, and the documents before it are conversations"),
        (["a text", TALKS[0]], r"talk.jsonl/2 is a conversation, and the documents before it are texts"),
    ],
)
def test_texts_and_conversations_do_not_mix(values: list[Any], why: str) -> None:
    lines(values)
    with pytest.raises(ValueError, match=f"{why}. Use one kind only."):
        write_corpus(documents.documents(section())[0], section(), Path("corpus"))
    assert not [*Path("corpus").iterdir()]


def test_a_conversation_of_more_than_a_mebibyte_is_refused() -> None:
    lines([TALKS[0], said(*["a", "b"] * 20_000)])
    with pytest.raises(ValueError, match=r"talk.jsonl/2 has more than 1,048,576 bytes\. Cut the conversation, or"):
        write_corpus(documents.documents(section())[0], section(), Path("corpus"))
    largest = said("a", "é" * (2**19 - 100))
    assert len(written([largest, *[said("a", "é" * 2**14)] * 20])["train"]) > 1


@pytest.mark.parametrize("small", [0, 1, 2])
def test_too_few_conversations_to_hold_out_whole_ones_are_refused(small: int) -> None:
    talks = [said("a", "long " * 1000), *[said("a", "b")] * small]
    with pytest.raises(ValueError, match=rf"There are {small + 1} conversations, too few to hold out whole ones"):
        written(talks)


def test_what_is_held_out_is_measured_by_what_is_said() -> None:
    talks = [said("a", "long " * 300), *[said("a", "b")] * 15]  # as JSON, the short ones are long enough
    with pytest.raises(ValueError, match=r"Only \d\d characters would be held out; evaluation needs 100 or more"):
        written(talks)
    assert not [*Path("corpus").iterdir()]


def test_too_little_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"own holds .* characters of text; a model needs 1,000 or more"):
        written([said("a", "b")])
    with pytest.raises(ValueError, match=r"own holds 0 characters"):
        write_corpus([], section(), Path("corpus"))


# Written


def test_whole_conversations_are_held_out_and_none_is_lost_or_changed() -> None:
    talks = drawn(80, seed=7)
    split = written(talks)
    assert sorted(split["train"] + split["validation"]) == sorted((f"talk/{i}", talk) for i, talk in enumerate(talks))
    sizes = {name: sum(len(json.dumps(talk)) for _, talk in part) for name, part in split.items()}
    assert 0.05 < sizes["validation"] / sum(sizes.values()) < 0.2
    assert written(talks) == split
    assert len(written(talks, max_documents=50)["train"]) < 50


def test_near_duplicates_are_on_one_side() -> None:
    talks = [talk for talk in drawn(40, seed=8, words=30) for _ in range(2)]  # each twice
    for talk in talks[1::2]:
        talk[-1] = {"role": "assistant", "content": talk[-1]["content"] + " Or so."}
    split = written(talks)
    sides = {name: {int(document.split("/")[1]) // 2 for document, _ in part} for name, part in split.items()}
    assert sides["validation"]
    assert not sides["train"] & sides["validation"]


def test_a_source_may_know_what_is_held_out() -> None:
    talks = [(f"talk/{i}", Conversation(talk)) for i, talk in enumerate(drawn(80, seed=7))]
    write_corpus(talks, section(), Path("corpus"), is_held_out=lambda name: name.endswith("3"))
    held = [name for name, _ in read_conversations(Path("corpus/validation.parquet"))]
    assert held == [f"talk/{i}" for i in range(3, 80, 10)]


def test_rows_are_what_is_said_and_scored_is_what_the_assistant_says() -> None:
    written([TALKS[1], *drawn(60, seed=9)])
    paths = [Path(f"corpus/{split}.parquet") for split in ("train", "validation")]
    assert all(has_conversations(path) for path in paths)
    rows = dict(row for path in paths for row in read_rows(path))
    assert rows["talk/0"] == "Be brief.\n\nnaïve 東京\n🙂\n\nמי\tאתה\n\na\n\nb\n"
    assert dict(row for path in paths for row in read_scored(path))["talk/0"] == "מי\tאתה\nb\n"


def test_of_texts_rows_and_scored_are_the_same() -> None:
    texts = ((f"{i}", [f"text {i} " * 50]) for i in range(20))
    write_corpus(texts, section(), Path("corpus"))
    path = Path("corpus/train.parquet")
    assert not has_conversations(path)
    assert [*read_scored(path)] == [*read_rows(path)]
    with pytest.raises(FileNotFoundError, match=r"No text at nowhere.parquet. Run `dvc repro download`"):
        read_rows(Path("nowhere.parquet"))


def test_a_corpus_is_read_a_row_group_at_a_time_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "GROUP_ROWS", 7)
    talks = drawn(80, seed=7)
    train = written(talks)["train"]
    assert pq.ParquetFile("corpus/train.parquet").num_row_groups > 5
    assert train == sorted(train, key=lambda row: int(row[0].split("/")[1]))


def test_a_conversation_survives_its_row() -> None:
    for talk in TALKS:
        row = conversations.as_row(Conversation(talk))
        assert "\n" not in row
        assert conversations.from_row(row) == talk


def test_tokens_and_mask_are_those_of_the_conversations() -> None:
    talks = [("a", TALKS[0]), ("b", TALKS[1]), ("c", TALKS[2])]
    sizes: list[int] = []
    counts = write_conversations(talks, tokenizer(), Path("t.npy"), Path("t.mask.npy"), sizes.append)
    expected: list[Any] = [tokenizer().encode_messages(talk) for talk in TALKS]
    ids, mask = np.load("t.npy"), np.load("t.mask.npy")
    assert ids.tolist() == [token for each, _ in expected for token in each]
    assert mask.tolist() == [value for _, each in expected for value in each]
    assert (ids.dtype, mask.dtype) == (np.uint16, np.uint8)
    assert counts == (len(ids), mask.sum())
    assert sizes == [len("".join(f"{m['content']}\n" for m in talk if m["role"] == "assistant").encode())
                     for talk in TALKS]  # fmt: skip


# Hostile


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def hostile() -> Iterator[tuple[str, str]]:
    """Lines of a .jsonl file, and what their refusal names."""
    for value in ("Infinity", "1e999", "0", "true", '{"a": {}}', "[null]", "[[]]", '[{"role": NaN}]', '["a", {}]'):
        yield f'{{"messages": {value}}}', "line 1"
    yield f'{{"messages": {nested(100_000)}}}', "line 1 is not JSON"
    yield f'{{"messages": {nested(50)}}}', "line 1: message 1 is"
    yield f'{{"messages": {"9" * 5000}}}', "line 1 is not JSON"
    yield '{"messages": [{"role": "user", "role": "assistant", "content": "a"}]}', "'role' appears twice"
    yield '{"messages": [{"role": "user", "content": "a"}', "not JSON|spread over several lines"


@pytest.mark.parametrize(("line", "why"), [*hostile()], ids=lambda value: value[:40])
def test_a_hostile_line_is_refused_in_a_sentence(line: str, why: str) -> None:
    Path("own").mkdir()
    Path("own/talk.jsonl").write_text(line + "\n" + '{"messages": "a"}\n' * 200, encoding="utf-8")
    with pytest.raises(ValueError, match=why) as problem:
        [*documents.documents(section())[0]]
    assert type(problem.value) is ValueError
    assert "own/talk.jsonl" in str(problem.value)
    assert len(str(problem.value)) < 500

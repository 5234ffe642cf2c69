"""tinygpt/data/packing.py: conversations in rows. Nothing that counts is lost, read twice, or read across records."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_conversations import drawn, encoded, packed, said, tokenizer
from tinygpt.data.dataset import TokenDataset, training_batches
from tinygpt.data.encode import array_file, write_conversations, write_tokens
from tinygpt.data.packing import PackedDataset, next_fit, open_examples
from tinygpt.model.loss import IGNORED
from tinygpt.tokenizer.chat_template import END, ROLES, Messages

LONG = "a question that is far longer than all the others and than any context of these tests " * 2


def records(ids: list[int]) -> list[list[int]]:
    """A row's ids, cut before each <|endoftext|>; padding is left out."""
    found: list[list[int]] = []
    for token in ids:
        if token == tokenizer().end_of_text:
            found.append([])
        found[-1].append(token)
    return [record for record in found if len(record) > 1]


def rows(data: PackedDataset) -> list[list[int]]:
    """All T + 1 ids of each row; the last is known if it counts, else it is left out."""
    everything = []
    for row in range(len(data)):
        inputs, targets = data[row]
        last = [int(targets[-1])] if targets[-1] != IGNORED else []
        everything.append(inputs.tolist() + last)
    return everything


def counted(data: PackedDataset) -> list[int]:
    """The targets that count, of all rows, in order."""
    return [int(token) for row in range(len(data)) for token in data[row][1] if token != IGNORED]


def written(conversations: Sequence[Messages]) -> list[int]:
    """The tokens that the assistant writes."""
    ids, mask = encoded(conversations)
    return ids[mask == 1].tolist()


@pytest.mark.parametrize("context", [64, 100, 1000])
def test_every_counted_token_is_in_one_row_once(context: int) -> None:
    talks = drawn(60, seed=context, turns=6, words=4)
    assert 64 < max(len(encoded([talk])[0]) for talk in talks) < 1000  # some are longer than the context, or none
    data = packed(talks, context)
    assert counted(data) == written(talks)
    assert data.left_out == 0


def test_a_target_is_the_token_after_its_input() -> None:
    for row in range(len(data := packed(drawn(30, seed=2), 40))):
        inputs, targets = data[row]
        places = (targets[:-1] != IGNORED).nonzero().flatten()
        assert len(places)
        assert torch.equal(targets[:-1][places], inputs[1:][places])


def test_no_record_is_split_across_rows() -> None:
    talks = drawn(60, seed=1, turns=1, words=3)
    data = packed(talks, 60)
    found = [record for row in rows(data) for record in records(row)]
    assert found == [tokenizer().encode_messages(talk)[0] for talk in talks]
    assert len(data) < len(talks) / 2  # several records share a row


def test_padding_never_counts_and_is_its_own_document() -> None:
    data = packed([said("Who art thou?", "Juliet.")], 64)
    length = len(encoded([said("Who art thou?", "Juliet.")])[0])
    inputs, targets = data[0]
    assert (inputs[length:] == tokenizer().end_of_text).all()
    assert (targets[length - 1 :] == IGNORED).all()
    assert targets[length - 2] == tokenizer().role_token(END)


def test_a_record_longer_than_the_context_is_cut_at_turns_and_keeps_its_system_message() -> None:
    turns = [f"{who} {number}: it is the east" for number in range(9) for who in ("question", "answer")]
    talk = said(*turns, system="You are JULIET.")
    data, head = packed([talk], 80), tokenizer().encode_messages(talk[:1])[0]
    assert counted(data) == written([talk])
    assert len(data) > 3
    user = tokenizer().role_token(ROLES["user"])
    for row in rows(data):
        [record] = records(row)
        assert record[: len(head) + 1] == [*head, user]


def test_a_long_record_without_a_system_message_is_cut_too() -> None:
    talk = said(*["it is the east"] * 20)
    data = packed([talk], 48)
    assert counted(data) == written([talk])
    start = [tokenizer().end_of_text, tokenizer().role_token(ROLES["user"])]
    assert all(row[:2] == start for row in rows(data))


def test_the_parts_of_a_long_record_share_rows_with_others() -> None:
    long, short = said(*["light"] * 10), said("light", "sun")
    data = packed([short, long, short], len(encoded([long])[0]) - 2)
    assert counted(data) == written([short, long, short])
    assert [len(records(row)) for row in rows(data)] == [1, 1, 2]


def test_of_a_turn_longer_than_the_context_only_the_end_is_left_out() -> None:
    talk = said("light", "sun", "east", LONG, "window", "Juliet", system="Be brief.")
    data, answers = packed([talk], 40), written([talk])
    left = len(answers) - len(counted(data))
    assert 0 < left < len(answers)
    assert data.left_out == left
    beginning = written([said("light", "sun", "east", LONG)])[:-left]
    assert counted(data) == beginning + written([said("window", "Juliet")])


def test_an_answer_whose_question_fills_the_context_is_left_out_and_the_others_stay() -> None:
    talk = said("light", "sun", LONG, "lost", "window", "Juliet")
    data = packed([talk], 24)
    assert counted(data) == written([said("light", "sun", "window", "Juliet")])
    assert data.left_out == len(written([said(LONG, "lost")]))


@pytest.mark.parametrize("talk", [said(LONG, "lost"), said("light", "lost", system=LONG)])
def test_conversations_in_which_no_answer_fits_are_refused(talk: Messages) -> None:
    with pytest.raises(ValueError, match=r"No answer .* fits into a context of 24 tokens\. Raise model\.context_len"):
        packed([talk], 24)


@pytest.mark.parametrize("context", [1, 2, 3, 5, 8, 13, 21, 34])
def test_any_context_gives_rows_of_its_length_or_a_refusal(context: int) -> None:
    talks = [*drawn(20, seed=context, turns=6), said("O", "O")]
    if context < 5:  # <|endoftext|>, <|user|>, O, <|end|> and <|assistant|> precede the answer
        with pytest.raises(ValueError, match="No answer"):
            packed(talks, context)
        return
    data = packed(talks, context)
    inputs, targets = data.__getitems__(list(range(len(data))))
    assert inputs.shape == targets.shape == (len(data), context)
    assert (targets != IGNORED).any(dim=1).all()
    assert int((targets != IGNORED).sum()) + data.left_out == len(written(talks))


def test_rows_are_a_function_of_the_data_alone() -> None:
    talks = drawn(40, seed=3)
    one, other = packed(talks, 40), packed(talks, 40)
    assert rows(one) == rows(other)
    for row in reversed(range(len(one))):  # in any order, alone or in a batch
        assert all(torch.equal(a, b[0]) for a, b in zip(one[row], other.__getitems__([row]), strict=True))
    first, again = ([*training_batches(one, 4, seed=7, start=start, stop=9)] for start in (0, 3))
    for mine, theirs in zip(first[3:], again, strict=True):
        assert torch.equal(mine[0], theirs[0])
        assert torch.equal(mine[1], theirs[1])


def test_batches_of_one_visit_every_row_once_an_epoch() -> None:
    data = packed(drawn(25, seed=4), 40)
    batches = [*training_batches(data, 1, seed=1, start=0, stop=data.windows)]
    seen = sorted(tuple(inputs[0].tolist()) for inputs, _ in batches)
    assert seen == sorted(tuple(data[row][0].tolist()) for row in range(len(data)))
    with pytest.raises(IndexError):
        data[len(data)]


def test_an_evaluation_reads_all_rows_in_order_or_as_many_as_its_limit_allows() -> None:
    data = packed(drawn(40, seed=5), 40)
    targets = torch.cat([targets for _, targets in data.evaluation(3)])
    assert targets[targets != IGNORED].tolist() == counted(data)
    for limit, number in ((40 * 5, 5), (40 * 5 + 39, 5), (1, 1), (10**9, len(data))):
        some = torch.cat([inputs for inputs, _ in data.evaluation(3, limit)])
        assert len(some) == number
        assert len({tuple(row) for row in some.tolist()}) == number


@pytest.mark.parametrize(
    ("lengths", "groups"),
    [
        ([], []),
        ([3], [[3]]),
        ([5, 5, 1], [[5, 5], [1]]),
        ([5, 6, 4], [[5], [6, 4]]),
        ([11], [[11]]),
        ([1, 11, 1, 9], [[1], [11], [1, 9]]),
        ([0, 0, 10, 0], [[0, 0, 10, 0]]),
    ],
)
def test_next_fit_closes_a_group_where_the_next_item_does_not_fit(lengths: list[int], groups: list[list[int]]) -> None:
    assert [lengths[group] for group in next_fit(lengths, 10)] == groups


# Files


def test_a_split_with_a_mask_is_packed_and_one_without_is_cut_into_windows(tmp_path: Path) -> None:
    ids, mask = tmp_path / "train.npy", tmp_path / "train.mask.npy"
    talks = [(f"{number}", talk) for number, talk in enumerate(drawn(20, seed=6))]
    number, answers = write_conversations(talks, tokenizer(), ids, mask)
    expected = encoded(talk for _, talk in talks)
    assert (number, answers) == (len(expected[0]), int(expected[1].sum()))
    assert all(np.array_equal(np.load(path), array) for path, array in zip((ids, mask), expected, strict=True))
    data = open_examples(ids, mask, 100, tokenizer())
    assert isinstance(data, PackedDataset)
    assert counted(data) == written([talk for _, talk in talks])
    with pytest.raises(FileNotFoundError, match=r"holds conversations, but there is no .*none.npy"):
        open_examples(ids, tmp_path / "none.npy", 40, tokenizer())
    write_tokens([("text", "What light through yonder window breaks? " * 40)], tokenizer(), ids)
    assert isinstance(open_examples(ids, tmp_path / "none.npy", 40, tokenizer()), TokenDataset)


def test_a_mask_that_does_not_fit_its_tokens_is_refused(tmp_path: Path) -> None:
    ids, mask = tmp_path / "train.npy", tmp_path / "train.mask.npy"
    write_conversations([("a", said("light", "sun"))], tokenizer(), ids, mask)
    with array_file(mask, np.dtype("u1")) as append:
        append(np.ones(3))
    with pytest.raises(ValueError, match=r"train.mask.npy is damaged: it does not fit .*`dvc repro tokenize`"):
        open_examples(ids, mask, 40, tokenizer())
    mask.write_bytes(mask.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"train.mask.npy is damaged"):
        open_examples(ids, mask, 40, tokenizer())

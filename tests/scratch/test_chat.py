"""tinygpt/scratch/chat.py: the reference implementation of chat fine-tuning agrees with the fast path."""

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F

from tests.conftest import gpt
from tests.small_conversations import drawn, encoded, packed, said, tokenizer
from tinygpt.model import gpt as fast_gpt
from tinygpt.model import loss as fast_loss
from tinygpt.model.loss import IGNORED
from tinygpt.scratch import chat
from tinygpt.tokenizer.chat_template import USER, Messages


def rows(talks: Sequence[Messages], context: int) -> list[chat.Record]:
    """The packed rows of the reference implementation, without parts in which nothing counts."""
    user = tokenizer().role_token(USER)
    parts = [part for talk in talks for part in chat.cut(chat.encode(talk, tokenizer()), context + 1, user)]
    return chat.pack([part for part in parts if any(counts for _, counts in part)], context + 1)


def test_a_conversation_has_the_ids_and_the_mask_of_the_fast_path() -> None:
    for talk in [*drawn(20, seed=1), said("<|end|>", "🙂", system="<|user|>")]:
        record = chat.encode(talk, tokenizer())
        ids, mask = tokenizer().encode_messages(talk)
        assert [token for token, _ in record] == ids
        assert [int(counts) for _, counts in record] == mask


@pytest.mark.parametrize("context", [8, 24, 64, 100, 1000])
def test_rows_are_those_of_the_fast_path(context: int) -> None:
    talks = [*drawn(40, seed=context, turns=6), said("a", "b"), said("light " * 40, "sun"), said("sun", "light " * 40)]
    inputs, targets = chat.batch(rows(talks, context), context, tokenizer().end_of_text)
    data = packed(talks, context)
    expected = data.__getitems__(list(range(len(data))))
    assert torch.equal(inputs, expected[0])
    assert torch.equal(targets, expected[1])
    assert int(encoded(talks)[1].sum()) - int((targets != IGNORED).sum()) == data.left_out


def test_a_record_that_fits_stays_whole_and_a_longer_one_keeps_its_beginning() -> None:
    user = tokenizer().role_token(USER)
    record = chat.encode(said(*["it is the east"] * 12, system="Be brief."), tokenizer())
    assert chat.cut(record, len(record), user) == [record]
    beginning = record[: next(i for i, (token, _) in enumerate(record) if token == user)]
    parts = chat.cut(record, len(record) - 1, user)
    assert len(parts) == 2
    assert all(part[: len(beginning)] == beginning for part in parts)
    assert beginning + [token for part in parts for token in part[len(beginning) :]] == record


def test_the_masked_loss_is_that_of_the_fast_path() -> None:
    random = torch.Generator().manual_seed(1)
    logits, targets = torch.randn(3, 8, 50, generator=random), torch.randint(50, (3, 8), generator=random)
    targets[torch.rand(3, 8, generator=random) < 0.6] = IGNORED
    expected = fast_loss.cross_entropy(logits, targets, "sum") / (targets != IGNORED).sum()
    torch.testing.assert_close(chat.cross_entropy(logits, targets), expected)
    torch.testing.assert_close(chat.cross_entropy(logits, targets), F.cross_entropy(logits.mT, targets))


def test_without_a_counted_token_loss_and_gradient_are_zero() -> None:
    logits = torch.randn(2, 4, 9, requires_grad=True)
    loss = chat.cross_entropy(logits, torch.full((2, 4), IGNORED))
    loss.backward()
    assert loss == 0
    assert logits.grad is not None
    assert not logits.grad.any()


def test_mask_and_positions_of_documents_are_those_of_the_fast_path() -> None:
    tokens = torch.tensor([[9, 1, 2, 9, 3, 9, 9], [4, 5, 9, 9, 1, 1, 1], [1, 2, 3, 4, 5, 6, 7], [9] * 7])
    mask, positions = fast_gpt.document_mask(tokens, 9)
    for row, each in enumerate(tokens):
        expected = chat.document_mask(each, 9)
        assert torch.equal(mask[row, 0], expected[0])
        assert torch.equal(positions[row], expected[1])


def test_a_model_has_the_same_loss_on_packed_rows_as_on_each_conversation_alone() -> None:
    talks = drawn(12, seed=4, turns=1)
    model = gpt(tokenizer().vocab_size, context_length=96)
    inputs, targets = chat.batch(rows(talks, 96), 96, tokenizer().end_of_text)
    assert len(inputs) < len(talks)
    whole = chat.cross_entropy(model(inputs, tokenizer().end_of_text), targets)
    total = counted = 0.0
    for talk in talks:
        one, answers = chat.batch([chat.encode(talk, tokenizer())], 96, tokenizer().end_of_text)
        number = int((answers != IGNORED).sum())
        total += float(chat.cross_entropy(model(one), answers).detach()) * number
        counted += number
    assert float(whole.detach()) == pytest.approx(total / counted, rel=1e-5)

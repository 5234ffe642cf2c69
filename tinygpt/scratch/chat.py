"""Chat fine-tuning: what the model reads of a conversation, and which of its tokens it learns to write.

A record is a conversation as a list of (token id, whether it counts): `encode` → `cut` → `pack` → `batch` → inputs and
targets, and `cross_entropy` of the targets that count. A row has at most `size` = context_length + 1 tokens, because
the targets are the inputs shifted by one. `document_mask` keeps records that share a row apart. A model
learns only what the assistant writes: it need not predict the questions, and it must not learn to ask them itself.
Left out: choosing rows at random, files, and dropping parts in which nothing counts.
"""

from itertools import pairwise

import torch
from torch import Tensor

from tinygpt.model.loss import IGNORED
from tinygpt.scratch import loss
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import END, ROLES, Messages

Record = list[tuple[int, bool]]  # tokens: id, and whether it counts


def encode(messages: Messages, tokenizer: Tokenizer) -> Record:
    """<|endoftext|>, then each message between a role token and <|end|>. The answers and their <|end|> count."""
    record = [(tokenizer.end_of_text, False)]
    for message in messages:
        answer = message["role"] == "assistant"
        record.append((tokenizer.role_token(ROLES[message["role"]]), False))
        record += [(token, answer) for token in tokenizer.encode(message["content"])]
        record.append((tokenizer.role_token(END), answer))
    return record


def cut(record: Record, size: int, user: int) -> list[Record]:
    """A record in parts of at most `size` tokens: whole if it fits, else cut before the token `user`.

    Every part begins like the record, up to the first user's message, so with the system message. The end of a turn
    that is too long on its own is lost.
    """
    if len(record) <= size:
        return [record]
    turns = [place for place, (token, _) in enumerate(record) if token == user]
    beginning = record[: turns[0]]
    room = max(0, size - len(beginning))
    groups = pack([record[turn:following] for turn, following in pairwise([*turns, len(record)])], room)
    return [beginning + group[:room] for group in groups]


def pack(records: list[Record], size: int) -> list[Record]:
    """Next-fit: fill a row of `size` tokens with whole records, in order, and begin another if the next does not fit.

    A record longer than `size` is a row of its own.
    """
    rows = [records[0]]
    for record in records[1:]:
        if len(rows[-1]) + len(record) <= size:
            rows[-1] = rows[-1] + record
        else:
            rows.append(record)
    return rows


def batch(rows: list[Record], context_length: int, padding: int) -> tuple[Tensor, Tensor]:
    """Inputs and targets of B rows, each filled up with `padding` to context_length + 1 tokens: int64 (B, T) each.

    The target of a token is the one after it, or IGNORED if that does not count.
    """
    full = [row + [(padding, False)] * (context_length + 1 - len(row)) for row in rows]
    inputs = torch.tensor([[token for token, _ in row[:-1]] for row in full])
    targets = torch.tensor([[token if counts else IGNORED for token, counts in row[1:]] for row in full])
    return inputs, targets


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """The mean of −ln p(target) over the targets that count, in nats; 0 if none does: (B, T, V), (B, T) → a scalar."""
    counts = targets != IGNORED  # (B, T)
    losses = loss.cross_entropy(logits, torch.where(counts, targets, 0), "none").view(targets.shape)
    return (losses * counts).sum() / counts.sum().clamp(min=1)


def document_mask(tokens: Tensor, separator: int) -> tuple[Tensor, Tensor]:
    """For a row of documents, each begun by `separator`: which token attends to which, and positions in the documents.

    int64 (T,) → bool (T, T), true where the token of that row attends to that of the column; int64 (T,).
    """
    T = len(tokens)
    mask, positions = torch.zeros(T, T, dtype=torch.bool), torch.zeros(T, dtype=torch.int64)
    start = 0  # of the document
    for i in range(T):
        if tokens[i] == separator:
            start = i
        mask[i, start : i + 1] = True  # itself, and all before it in its document
        positions[i] = i - start
    return mask, positions

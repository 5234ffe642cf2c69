"""Lesson 11's exercises, tested."""

from collections.abc import Callable
from typing import Any

import torch

from tinygpt.data.packing import next_fit
from tinygpt.exercises import same
from tinygpt.model.loss import IGNORED, cross_entropy
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.chat_template import END, ROLES


def encode_chat(yours: Callable[..., Any]) -> None:
    """as `encode_messages` in tinygpt/tokenizer/base.py"""
    tokenizer = CharTokenizer("abcdefghijklmnopqrstuvwxyz ", "error").with_roles()
    roles = {role: tokenizer.role_token(ROLES[role]) for role in ("user", "assistant")}
    for words in (["who art thou", "thy love"], ["one", "two", "three", "four"]):
        pairs = list(zip(("user", "assistant") * (len(words) // 2), words, strict=True))
        ids, mask = tokenizer.encode_messages([{"role": role, "content": text} for role, text in pairs])
        turns = [(role, tokenizer.encode(text)) for role, text in pairs]
        same(f"encode_chat of {words}", yours(turns, roles, tokenizer.role_token(END)), (ids[1:], mask[1:]))


def answer_loss(yours: Callable[..., Any]) -> None:
    """as `accumulate` in tinygpt/training/passes.py"""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 7, generator=generator)
    targets = torch.randint(7, (12,), generator=generator)
    for counted in (12, 5, 1, 0):
        mask = (torch.arange(12) < counted).long()
        masked = torch.where(mask.bool(), targets, IGNORED)
        expected = cross_entropy(logits[None], masked[None], "sum") / max(1, counted)
        same(f"answer_loss with {counted} counted tokens", yours(logits, targets, mask), expected)


def pack(yours: Callable[..., Any]) -> None:
    """as `next_fit` in tinygpt/data/packing.py"""
    for lengths, size in (([3, 4, 2, 6], 8), ([8, 8, 1], 8), ([1] * 10, 4), ([5, 5, 5, 2, 2, 2], 9)):
        rows = [[*range(group.start, group.stop)] for group in next_fit(lengths, size)]
        same(f"pack({lengths}, {size})", yours(lengths, size), rows)

"""Lesson 1's exercises, tested."""

import itertools
import math
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinygpt.config import Download
from tinygpt.data.corpus import read_rows, write_corpus
from tinygpt.exercises import same

TEXT = "If music be the food of love, play on;\nGive me excess of it, that, surfeiting,\n" * 20


def hold_out(yours: Callable[..., Any]) -> None:
    """as tinygpt/data/corpus.py splits a lone text"""
    same('hold_out("abcdefghij", 0.2)', yours("abcdefghij", 0.2), ("abcdefgh", "ij"))
    section = Download.model_construct(max_documents=None, validation_fraction=0.13)
    with tempfile.TemporaryDirectory() as folder:
        write_corpus([("text", [TEXT])], section, Path(folder))
        parts = [next(iter(read_rows(Path(folder) / f"{split}.parquet")))[1] for split in ("train", "validation")]
    same(f"hold_out(text, 0.13) of {len(TEXT)} characters", yours(TEXT, 0.13), (parts[0], parts[1]))


def uniform_bits(yours: Callable[..., Any]) -> None:
    """as `uniform` in tinygpt/data/baselines.py"""
    same('uniform_bits(b"abab")', yours(b"abab"), 1.0)
    same("uniform_bits(text)", yours(TEXT.encode()), math.log2(len(set(TEXT.encode()))))


def followers(yours: Callable[..., Any]) -> None:
    """as `bigram` in tinygpt/data/baselines.py counts them"""
    same('followers("abac")', yours("abac"), {"a": {"b": 1, "c": 1}, "b": {"a": 1}})
    pairs = Counter(itertools.pairwise(TEXT))
    expected = {one: {b: times for (a, b), times in pairs.items() if a == one} for one, _ in pairs}
    same("followers(text)", yours(TEXT), expected)

"""Lesson 2's exercises, tested."""

from collections.abc import Callable
from typing import Any

from tinygpt.exercises import same
from tinygpt.scratch import bpe
from tinygpt.tokenizer.char import CharTokenizer

VERSE = "Rough winds do shake the darling buds of May"


def encode_characters(yours: Callable[..., Any]) -> None:
    """as CharTokenizer in tinygpt/tokenizer/char.py"""
    same('encode_characters("cab?", ["a", "b", "c", "�"])', yours("cab?", ["a", "b", "c", "�"]), [2, 0, 1, 3])
    characters = sorted({*VERSE, "�"})
    expected = CharTokenizer(VERSE, "replace").encode(VERSE + " 1609")
    same("encode_characters(verse, characters)", yours(VERSE + " 1609", characters), expected)


def commonest_pair(yours: Callable[..., Any]) -> None:
    """as `learning` in tinygpt/scratch/bpe.py"""
    words = [([b"a", b"b", b"a", b"b"], 2), ([b"b", b"a"], 1)]
    same('commonest_pair([([b"a", b"b", b"a", b"b"], 2), ([b"b", b"a"], 1)])', yours(words), (b"a", b"b"))
    words = [([b"x", b"y"], 3), ([b"a", b"b", b"a", b"b"], 1)]
    same('commonest_pair([([b"x", b"y"], 3), ([b"a", b"b", b"a", b"b"], 1)])', yours(words), (b"x", b"y"))
    for text in ("banana nab na", "the other mother she"):
        expected, _, _ = next(bpe.learning([text]))
        words = [(bpe.single_bytes(word), 1) for word in bpe.split(text)]
        same(f"commonest_pair of {text!r}", yours(words), expected)


def merge(yours: Callable[..., Any]) -> None:
    """as `merge` in tinygpt/scratch/bpe.py"""
    for word, pair in (("ababc", (b"a", b"b")), ("aaa", (b"a", b"a")), ("cab", (b"x", b"y")), ("", (b"a", b"b"))):
        tokens = bpe.single_bytes(word)
        same(f"merge({tokens}, {pair})", yours(list(tokens), pair), bpe.merge(tokens, pair))
    twice = bpe.merge(bpe.single_bytes("ababab"), (b"a", b"b"))
    same(f"merge({twice}, (b'ab', b'ab'))", yours(list(twice), (b"ab", b"ab")), bpe.merge(twice, (b"ab", b"ab")))

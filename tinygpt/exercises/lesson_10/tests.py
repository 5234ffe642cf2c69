"""Lesson 10's exercises, tested."""

from collections.abc import Callable
from typing import Any

from tinygpt.data import baselines
from tinygpt.exercises import same
from tinygpt.scratch import loss


def bits_per_byte(yours: Callable[..., Any]) -> None:
    """as `bits_per_byte` in tinygpt/scratch/loss.py"""
    for text in ("to be", "être"):
        losses = [3.1, 0.2, 1.7]
        expected = loss.bits_per_byte(sum(losses), len(text.encode()))
        same(f"bits_per_byte({losses}, {text!r})", yours(list(losses), text), expected)


def compressed_bits(yours: Callable[..., Any]) -> None:
    """as `bz2` in tinygpt/data/baselines.py"""
    train = b"".join(b"%d squared is %d\n" % (number, number**2) for number in range(300))
    held_out = b"".join(b"%d cubed is %d\n" % (number, number**3) for number in range(100))
    same("compressed_bits(train, held_out)", yours(train, held_out), baselines.bits_per_byte(train, held_out)["bz2"])


def best_step(yours: Callable[..., Any]) -> None:
    """as `record_validation` in tinygpt/training/loop.py keeps the best weights"""
    same("best_step of [(0, 4.1), (100, 2.9), (200, 3.4)]", yours([(0, 4.1), (100, 2.9), (200, 3.4)]), (100, 3.4 - 2.9))
    same("best_step of [(0, 4.0), (10, 2.5), (20, 2.5)]", yours([(0, 4.0), (10, 2.5), (20, 2.5)]), (10, 0.0))
    same("best_step of [(0, 4.0), (10, 3.0)]", yours([(0, 4.0), (10, 3.0)]), (10, 0.0))

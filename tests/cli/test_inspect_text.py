"""The inside in a terminal: readable with and without colour, and safe whatever the text holds."""

import io
import re
from typing import Any

import numpy as np
import pytest

from tests.conftest import TEXT, gpt, params
from tinygpt.cli.inspect_text import show
from tinygpt.console import wants_colour
from tinygpt.data import train_tokenizer
from tinygpt.inspection import activations
from tinygpt.inspection import text as reading
from tinygpt.inspection.activations import EXAMPLE, VIEWS
from tinygpt.inspection.text import Subject
from tinygpt.tokenizer.base import Tokenizer

PAINT = re.compile(r"\x1b\[[0-9;]*m")


def lines(subject: Subject, *names: str, colour: bool = False, width: int = 80, **asked: Any) -> list[str]:
    shape = subject.model.config
    chosen: dict[str, Any] = {"blocks": range(shape.n_layer), "heads": range(shape.n_head)} | asked
    shown = show(names or VIEWS, subject, EXAMPLE, colour=colour, width=width, **chosen)
    return "\n".join(shown).splitlines()


def subject(tokens: Tokenizer, text: str = TEXT[:200], **shape: Any) -> Subject:
    return reading.of_text(gpt(tokens.vocab_size, **shape), tokens, text)


def test_every_kind_of_model_is_shown_and_colour_adds_nothing_but_colour(
    characters: Tokenizer, shape: dict[str, Any]
) -> None:
    plain, painted = (lines(subject(characters, **shape), colour=colour) for colour in (False, True))
    assert "\x1b" not in "".join(plain)
    assert "\x1b[" in "".join(painted)
    assert [line.split()[0] for line in plain if line.startswith(tuple(name.upper() for name in VIEWS))] == [
        name.upper() for name in VIEWS
    ]
    words = [[word for line in shown for word in re.findall(r"\w+", PAINT.sub("", line))] for shown in (plain, painted)]
    assert [word.lower() for word in words[0]] == [word.lower() for word in words[1]]


@pytest.mark.parametrize("colour", [False, True])
def test_lines_keep_to_the_width(characters: Tokenizer, colour: bool) -> None:
    shown = lines(subject(characters, TEXT[:900], context_length=256, n_layer=9), colour=colour)
    long = [line for line in shown if len(PAINT.sub("", line).rstrip()) > 80]
    assert long == []


@pytest.mark.parametrize("text", ["a", "ab", "\n\n", "汉字", "a\x1b[2J\x07\u202eb\r"])
@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_any_text_is_shown_and_moves_no_cursor(text: str, kind: str) -> None:
    tokens = train_tokenizer.build(params(tokenize__kind=kind, tokenize__vocab_size=280).tokenize, [TEXT + text])
    shown = lines(subject(tokens, text, n_layer=1, context_length=32), colour=True)
    assert all(sign.isprintable() for line in shown for sign in PAINT.sub("", line))


def test_surprisal_shows_the_text_and_its_sum(characters: Tokenizer) -> None:
    one = subject(characters, "thou art\nRomeo")
    acts = activations.get_activations(one.model, one.text)
    bits = acts.bits
    shown = "\n".join(lines(one, "surprisal"))
    assert "thou art↵\n" in shown
    assert f"{bits.mean():.2f} bits per token on average, {bits.sum():.0f} in total, over {len(bits)} tokens" in shown


def test_the_table_marks_what_a_filter_would_cut(characters: Tokenizer) -> None:
    one = subject(characters, "But, soft! what")
    acts = activations.get_activations(one.model, one.text)
    steps = activations.steps(acts.logits, EXAMPLE)
    rows = lines(one, "next")[4 : 4 + len(one.text) - 1]
    for step, (row, token) in enumerate(zip(rows, one.text[1:], strict=True)):
        assert row.count("✗") == sum(not kept[step, token] for kept in steps.kept.values())
        assert f"{int(steps.kept['min-p 0.05'][step].sum())}" in row.split()


def test_one_head_alone_is_shown_token_by_token(characters: Tokenizer) -> None:
    one = subject(characters, "soft! what")
    weights = activations.get_activations(one.model, one.text).attention[1, 0].numpy()
    shown = lines(one, "attention", blocks=[1], heads=[0])
    most = int(weights[-1].argmax())
    assert shown[-1].startswith("t  ")
    assert shown[-1].split("  ")[-1].startswith(f"{'soft!·what'[most]} {weights[-1, most]:.0%}")
    assert "--layer" not in "".join(shown)
    assert "--layer" in "".join(lines(one, "attention"))


def test_loss_by_position_is_shown_where_it_is_known(characters: Tokenizer) -> None:
    tokens = np.array(characters.encode(TEXT), dtype=np.uint16)
    known = reading.held_out(gpt(characters.vocab_size), characters, tokens, np.linspace(5, 3, 16))
    assert "    9–16   3.467" in "\n".join(lines(known, "position"))
    assert "mean loss" not in "\n".join(lines(subject(characters), "position"))


class Screen(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colour_is_for_terminals_and_for_those_who_want_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert wants_colour(Screen())
    assert not wants_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not wants_colour(Screen())
    monkeypatch.setenv("NO_COLOR", "")  # set but empty: as if it were not there
    assert wants_colour(Screen())
    monkeypatch.setenv("TERM", "dumb")
    assert not wants_colour(Screen())

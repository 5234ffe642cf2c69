"""Pictures of the inside are the same bytes every time, of every kind of model, whatever the text holds."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from tests.conftest import SHAPES, TEXT, gpt, params
from tinygpt.data import train_tokenizer
from tinygpt.inspection import figures as views
from tinygpt.inspection import text as reading
from tinygpt.inspection.activations import EXAMPLE, VIEWS
from tinygpt.inspection.text import Subject
from tinygpt.plots import style
from tinygpt.tokenizer.base import Tokenizer

STRANGE = "a $5$ b^2_{3} \x1b[2J\t汉字 é\u202e\n\n\\frac{$}"


@pytest.fixture(scope="module")
def pairs() -> Tokenizer:
    return train_tokenizer.build(params(tokenize__kind="bpe", tokenize__vocab_size=300).tokenize, [TEXT])


def drawn(folder: Path, subject: Subject) -> dict[str, bytes]:
    """Every view, drawn without a warning: name → bytes."""
    shape = subject.model.config
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paths = views.draw(folder, VIEWS, subject, EXAMPLE, range(shape.n_layer), range(shape.n_head))
    return {path.name: path.read_bytes() for path in paths}


def subject(tokens: Tokenizer, text: str = TEXT[:200], **shape: Any) -> Subject:
    return reading.of_text(gpt(tokens.vocab_size, **shape), tokens, text)


@pytest.mark.parametrize("name", ["qwen3-grouped", "gpt2"])
def test_every_view_is_the_same_bytes_twice(tmp_path: Path, pairs: Tokenizer, name: str) -> None:
    first, again = (drawn(tmp_path / folder, subject(pairs, **SHAPES[name])) for folder in ("a", "b"))
    assert first == again
    assert list(first) == [f"{name}.png" for name in VIEWS]
    assert len(set(first.values())) == len(VIEWS)
    assert all(data[:8] == b"\x89PNG\r\n\x1a\n" for data in first.values())


@pytest.mark.parametrize(("kind", "text"), [("char", "\n\n"), ("char", STRANGE), ("bpe", "a"), ("bpe", STRANGE)])
def test_any_text_can_be_drawn(tmp_path: Path, pairs: Tokenizer, kind: str, text: str) -> None:
    tokens = pairs if kind == "bpe" else train_tokenizer.build(params().tokenize, [STRANGE])
    shape = {"n_layer": 1, "n_head": 1, "context_length": 64}
    assert len(drawn(tmp_path, subject(tokens, text, **shape))) == len(VIEWS)


def test_a_model_of_many_heads_and_blocks_is_drawn_in_part(tmp_path: Path, characters: Tokenizer) -> None:
    drawn(tmp_path, subject(characters, TEXT[:256], n_layer=11, n_head=8, context_length=256))


def test_what_is_known_of_positions_is_drawn_beside_them(tmp_path: Path, characters: Tokenizer) -> None:
    tokens = np.array(characters.encode(TEXT), dtype=np.uint16)
    held_out = reading.held_out(gpt(characters.vocab_size), characters, tokens, np.linspace(5, 3, 16))
    assert views.draw(tmp_path, ["position"], held_out, EXAMPLE, [], []) == [
        tmp_path / "position.png",
        tmp_path / "by_position.png",
    ]


def test_a_page_breaks_where_a_piece_would_pass_the_edge_or_ends_a_line() -> None:
    assert views._typeset([79, 1, 1, 5, 90, 2], [False, False, False, True, False, False]) == [
        (0, 0),
        (0, 79),
        (1, 0),
        (1, 1),
        (2, 0),
        (3, 0),
    ]
    assert len(views._typeset([1] * 99, [True] * 99)) == views.LINES


def test_words_are_drawn_as_they_are_written() -> None:
    axes = Figure().add_subplot()
    style.write(axes, 0, 0, "$a$ 汉\U0001f600")
    (text,) = axes.texts
    assert text._preprocess_math(text.get_text()) == ("$a$ ▯▯", False)  # type: ignore[attr-defined]

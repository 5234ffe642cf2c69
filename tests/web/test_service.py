"""What answers the page: the text of `tinygpt generate`, stopped within a token; what does not fit is refused."""

import contextlib
import math
import shlex
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import TEXT
from tinygpt.cli import main
from tinygpt.generation import generate
from tinygpt.inspection import activations
from tinygpt.web import service
from tinygpt.web.models import ModelRegistry
from tinygpt.web.requests import BOUNDS, CHARACTERS, make_request, number, text, titled
from tinygpt.web.service import Serving, Visitor

SETTINGS = (0.8, 0, 0.95, 0.0, 40, 7)  # in the order of BOUNDS


@pytest.fixture
def ours(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serving:
    """One that serves the small model, from an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Serving(ModelRegistry([model_folder]))


def only(ours: Serving) -> str:
    (name,) = ours.models.find()
    return name


def written(ours: Serving, prompt: str, *settings: Any) -> Visitor:
    """A visitor whose order has been carried out."""
    visitor = Visitor()
    ours.begin(visitor, prompt, only(ours), *(settings or SETTINGS))
    for _ in ours.write(visitor):
        pass
    return visitor


def test_the_answer_is_that_of_the_command_line_and_the_same_again(ours: Serving) -> None:
    opened = ours.models.load(only(ours))
    settings: Any = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "min_p": 0.0, "max_new_tokens": 40, "seed": 7}
    (expected,) = generate.generate(opened.model, opened.tokenizer, "ROMEO:", **settings)
    first, again = written(ours, "ROMEO:"), written(ours, "ROMEO:")
    assert first.turns[0].answer == again.turns[0].answer == expected.completion
    assert written(ours, "ROMEO:", 0.8, 0, 0.95, 0.0, 40, 8).turns[0].answer != expected.completion
    assert first.note == "40 tokens, seed 7."


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [("ROMEO:\nO", SETTINGS), ("-", (0.8, 0, 0.95, 0.0, 200, 1337)), ("it's", (1, 5, 0.5, 0.125, 9, 0))],
)
def test_the_command_shown_prints_the_same_text(ours: Serving, prompt: str, settings: Any) -> None:
    visitor = written(ours, prompt, *settings)
    if prompt == "-":  # which stands for standard input, in a shell
        assert visitor.command == ""
        return
    program, *words = shlex.split(visitor.command)
    assert program == "tinygpt"
    assert CliRunner().invoke(main.app, words).output == visitor.text + "\n"


def test_the_text_so_far_is_the_prompt_of_what_follows(ours: Serving) -> None:
    visitor = written(ours, "ROMEO:")
    so_far = visitor.text
    ours.begin(visitor, "\nJULIET:", only(ours), *SETTINGS)
    assert visitor.order
    assert visitor.order.prompt == so_far + "\nJULIET:"


def test_stop_ends_an_answer_within_a_token_and_the_worker_is_free(
    ours: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PACE", -1.0)  # look after every token
    visitor = Visitor()
    ours.begin(visitor, "ROMEO:", only(ours), 0.8, 0, 0.95, 0.0, 1000, 7)
    steps = ours.write(visitor)
    for _ in range(5):
        next(steps)
    assert ours.running == 1
    ours.stop(visitor)
    assert list(steps) == []
    assert (ours.running, visitor.order) == (0, None)
    assert visitor.note == "5 tokens, seed 7; stopped."
    assert len(visitor.turns[0].tokens) == 5


def test_an_order_that_still_waits_can_be_stopped(ours: Serving) -> None:
    visitor = Visitor()
    ours.begin(visitor, "ROMEO:", only(ours), *SETTINGS)
    ours.stop(visitor)
    assert list(ours.write(visitor)) == []
    assert (visitor.text, visitor.order) == ("ROMEO:", None)


def test_an_order_that_was_stopped_and_never_had_its_turn_keeps_nobody_waiting(ours: Serving) -> None:
    visitor = Visitor()
    ours.begin(visitor, "ROMEO:", only(ours), *SETTINGS)
    ours.stop(visitor)  # and the queue was full, or the line broke: nobody calls `write`
    assert ours.undo(visitor) == "ROMEO:"
    ours.begin(visitor, "JULIET:", only(ours), *SETTINGS)
    list(ours.write(visitor))
    assert visitor.note == "40 tokens, seed 7."


def test_an_answer_is_shown_by_the_tokenizer_that_it_was_written_with(ours: Serving, model_folder: Path) -> None:
    pytest.importorskip("gradio")
    from tinygpt.web.handlers import Page

    visitor = written(ours, "ROMEO:")
    shown = Page(ours).sheet(visitor)
    ours.models.load = lambda name: pytest.fail(f"{name} may be another model by now, or gone")  # type: ignore[method-assign]
    assert Page(ours).sheet(visitor) == shown
    assert visitor.turns[0].tokens


def test_a_visitor_who_leaves_frees_the_worker(ours: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PACE", -1.0)
    visitor = ours.visitor("somebody")
    ours.begin(visitor, "ROMEO:", only(ours), *SETTINGS)
    steps = ours.write(visitor)
    next(steps)
    ours.forget("somebody")
    assert list(steps) == []
    assert ours.running == 0
    assert ours.visitor("somebody").turns == []


def test_a_worker_is_free_when_its_generator_is_closed(ours: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "PACE", -1.0)
    visitor = Visitor()
    ours.begin(visitor, "ROMEO:", only(ours), *SETTINGS)
    with contextlib.closing(ours.write(visitor)) as steps:
        next(steps)
    assert (ours.running, visitor.order) == (0, None)


def test_an_answer_ends_after_its_seconds(ours: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "SECONDS", -1.0)
    visitor = written(ours, "ROMEO:")
    assert visitor.turns[0].answer == ""
    assert "stopped after" in visitor.note


def test_one_visitor_has_one_answer_written_at_a_time(ours: Serving) -> None:
    visitor = Visitor()
    ours.begin(visitor, "ROMEO:", only(ours), *SETTINGS)
    for again in (
        lambda: ours.begin(visitor, "x", only(ours), *SETTINGS),
        lambda: ours.again(visitor, only(ours), *SETTINGS),
        lambda: ours.undo(visitor),
        lambda: ours.clear(visitor),
    ):
        with pytest.raises(ValueError, match="An answer is being written already"):
            again()


def test_retry_takes_the_next_seed_undo_gives_the_text_back_and_clear_forgets(ours: Serving) -> None:
    visitor = written(ours, "ROMEO:")
    first = visitor.text
    assert ours.again(visitor, only(ours), *SETTINGS) == 8
    assert list(ours.write(visitor)) is not None
    assert visitor.text == written(ours, "ROMEO:", 0.8, 0, 0.95, 0.0, 40, 8).text != first
    ours.begin(visitor, "\nJULIET:", only(ours), *SETTINGS)
    list(ours.write(visitor))
    assert ours.undo(visitor) == "\nJULIET:"
    assert len(visitor.turns) == 1
    ours.clear(visitor)
    assert visitor.text == ""
    assert ours.undo(visitor) == ""
    with pytest.raises(ValueError, match="nothing to take back or to try again"):
        ours.again(visitor, only(ours), *SETTINGS)


def test_an_answer_stays_until_there_is_another_in_its_place(ours: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = written(ours, "ROMEO:")
    first = visitor.text
    ours.again(visitor, only(ours), *SETTINGS)
    ours.stop(visitor)
    assert list(ours.write(visitor)) == []  # stopped before its first token
    assert visitor.text == first
    ours.again(visitor, only(ours), *SETTINGS)
    ours.stop(visitor)  # and it never had its turn
    assert ours.undo(visitor) == "ROMEO:"
    visitor = written(ours, "ROMEO:")
    ours.again(visitor, only(ours), *SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(ours.models, "load", Mock(side_effect=ValueError("It is damaged.")))
        with pytest.raises(ValueError, match=r"^It is damaged\.$"):
            list(ours.write(visitor))
    assert visitor.text == first


def test_only_so_many_visitors_are_remembered_and_the_forgotten_ones_are_stopped(ours: Serving) -> None:
    first = ours.visitor("first")
    ours.begin(first, "ROMEO:", only(ours), *SETTINGS)
    order = first.order
    for count in range(service.VISITORS + 50):
        ours.visitor(f"visitor {count}")
    assert len(ours._visitors) == service.VISITORS
    assert order
    assert order.stop.is_set()


@pytest.mark.parametrize("temperature", [0, 1])
def test_every_token_is_seen_as_generation_saw_it_also_beyond_the_context(ours: Serving, temperature: float) -> None:
    model = ours.models.load(only(ours)).model
    tokens = written(ours, "ROMEO:", temperature, 3, 1, 0, 60, 7).turns[0].tokens  # of a context of 16
    assert len(tokens) == 60
    for seen in tokens:
        assert seen.sampled
        assert seen.sampled > 0  # whatever was written could be
        assert seen.rank <= (1 if temperature == 0 else 3)
        assert sum(chance > 0 for _, _, chance in seen.alternatives) == (1 if temperature == 0 else 3)
    ids = [0, *(seen.token for seen in tokens)][: model.config.context_length]
    bits = activations.get_activations(model, ids).bits
    found = [-math.log2(seen.probability or 0) for seen in service.predictions(model, ids, 1)]
    assert found == pytest.approx(bits.tolist(), rel=1e-4)


def test_a_long_text_is_read_to_a_bound_which_is_said(ours: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "READ_TOKENS", 50)
    _, seen, left_out = ours.read(TEXT[:120], only(ours))
    assert (len(seen), left_out) == (50, 70)


def test_an_attention_map_is_of_the_head_asked_for(ours: Serving) -> None:
    opened, ids, weights, more = ours.attend(TEXT[:10], only(ours), 2, 1)
    assert (len(ids), more) == (10, False)
    torch.testing.assert_close(weights, activations.get_activations(opened.model, ids).attention[1, 0])
    assert ours.attend(TEXT[:99], only(ours), 1, 1)[3]
    for block, head, says in ((3, 1, "Block is 3"), (1, 0, "Head is 0"), ("1", 1, "Block is '1'")):
        with pytest.raises(ValueError, match=says):
            ours.attend(TEXT[:10], only(ours), block, head)


NUMBERS: list[Any] = [math.nan, math.inf, -math.inf, -1, 1e308, 10**400, "0.8", None, True, [1], {"a": 1}]


@pytest.mark.parametrize("value", NUMBERS, ids=[repr(value)[:12] for value in NUMBERS])
@pytest.mark.parametrize("name", BOUNDS)
def test_a_slider_that_says_anything_else_is_refused_in_a_sentence(name: str, value: Any) -> None:
    with pytest.raises(
        ValueError, match=rf"^{titled(name)} is .{{1,30}}; it must be a (whole )?number from .* to .*\."
    ):
        number(name, value, *BOUNDS[name])


@pytest.mark.parametrize(("name", "value"), [("top-k", 1.5), ("seed", 0.1), ("max new tokens", 2.000001)])
def test_what_is_counted_is_whole(name: str, value: float) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        number(name, value, *BOUNDS[name])


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x" * (CHARACTERS + 1), "has 20,001 characters"),
        ("a\ud800", "half a character"),
        (b"x", "not text"),
        (["x"], "not text"),
        (7, "not text"),
    ],
)
def test_a_text_that_is_none_is_refused_in_a_sentence(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        text(value)


def test_the_text_so_far_and_the_new_one_are_capped_together() -> None:
    with pytest.raises(ValueError, match="That makes 20,001 characters"):
        make_request("x" * (CHARACTERS + 1), "data/model", SETTINGS)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "", None, 3, ["data/model"], "data/model\0"])
def test_a_model_that_is_not_on_the_shelf_is_refused(ours: Serving, name: Any) -> None:
    visitor = Visitor()
    for ask in (
        lambda: ours.begin(visitor, "x", name, *SETTINGS),
        lambda: ours.read("x", name),
        lambda: ours.attend("x", name, 1, 1),
    ):
        with pytest.raises(ValueError, match="no such model"):
            ask()
    assert visitor.turns == []


def test_what_a_damaged_model_was_asked_can_be_taken_back(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "mine")
    ours, visitor = Serving(ModelRegistry()), Visitor()
    ours.begin(visitor, "ROMEO:", "mine", *SETTINGS)
    Path("mine/config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine is damaged: config\.json does not match .* Undo gives"):
        list(ours.write(visitor))
    assert (ours.running, visitor.order) == (0, None)
    assert ours.undo(visitor) == "ROMEO:"

"""The page's service writes what `tinygpt generate` writes, stops within a token, and refuses invalid values."""

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
from tinygpt.config import SAMPLING
from tinygpt.generation import generate
from tinygpt.inspection import activations
from tinygpt.web import service as service_module
from tinygpt.web.models import ModelRegistry
from tinygpt.web.requests import DEFAULTS, LABELS, MAX_CHARACTERS, SLIDERS, make_request, text
from tinygpt.web.service import Service
from tinygpt.web.visitor import Visitor

SETTINGS = (0.8, 0, 0.95, 0.0, 40, 7)  # in the order of LABELS


@pytest.fixture
def service(model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """A service with the small model, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return Service(ModelRegistry([model_folder]))


def only(service: Service) -> str:
    (name,) = service.models.find()
    return name


def written(service: Service, prompt: str, *settings: Any) -> Visitor:
    """A visitor after one answer."""
    visitor = Visitor()
    service.submit(visitor, prompt, only(service), *(settings or SETTINGS))
    for _ in service.generate(visitor):
        pass
    return visitor


def test_the_answer_is_that_of_the_command_line_and_the_same_again(service: Service) -> None:
    loaded = service.models.load(only(service))
    settings: Any = {"temperature": 0.8, "top_k": 0, "top_p": 0.95, "min_p": 0.0, "max_new_tokens": 40, "seed": 7}
    (expected,) = generate.generate(loaded.model, loaded.tokenizer, "ROMEO:", **settings)
    first, again = written(service, "ROMEO:"), written(service, "ROMEO:")
    assert first.turns[0].answer == again.turns[0].answer == expected.completion
    assert written(service, "ROMEO:", 0.8, 0, 0.95, 0.0, 40, 8).turns[0].answer != expected.completion
    assert first.message == "40 tokens, seed 7."


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [("ROMEO:\nO", SETTINGS), ("-", (0.8, 0, 0.95, 0.0, 200, 1337)), ("it's", (1, 5, 0.5, 0.125, 9, 0))],
)
def test_the_command_shown_prints_the_same_text(service: Service, prompt: str, settings: Any) -> None:
    visitor = written(service, prompt, *settings)
    if prompt == "-":  # which stands for standard input, in a shell
        assert visitor.command == ""
        return
    program, *words = shlex.split(visitor.command)
    assert program == "tinygpt"
    assert CliRunner().invoke(main.app, words).output == visitor.text + "\n"


def test_the_text_so_far_is_the_prompt_of_what_follows(service: Service) -> None:
    visitor = written(service, "ROMEO:")
    so_far = visitor.text
    service.submit(visitor, "\nJULIET:", only(service), *SETTINGS)
    assert visitor.request
    assert visitor.request.prompt == so_far + "\nJULIET:"


def test_stop_ends_an_answer_within_a_token_and_the_worker_is_free(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "UPDATE_SECONDS", -1.0)  # update after every token
    visitor = Visitor()
    service.submit(visitor, "ROMEO:", only(service), 0.8, 0, 0.95, 0.0, 1000, 7)
    steps = service.generate(visitor)
    for _ in range(5):
        next(steps)
    assert service.running == 1
    service.stop(visitor)
    assert list(steps) == []
    assert (service.running, visitor.request) == (0, None)
    assert visitor.message == "5 tokens, seed 7; stopped."
    assert len(visitor.turns[0].tokens) == 5


def test_a_queued_request_can_be_stopped(service: Service) -> None:
    visitor = Visitor()
    service.submit(visitor, "ROMEO:", only(service), *SETTINGS)
    service.stop(visitor)
    assert list(service.generate(visitor)) == []
    assert (visitor.text, visitor.request) == ("ROMEO:", None)


def test_a_stopped_request_that_never_started_does_not_block_the_next(service: Service) -> None:
    visitor = Visitor()
    service.submit(visitor, "ROMEO:", only(service), *SETTINGS)
    service.stop(visitor)  # and the queue was full or the connection broke: nobody calls `generate`
    assert service.undo(visitor) == "ROMEO:"
    service.submit(visitor, "JULIET:", only(service), *SETTINGS)
    list(service.generate(visitor))
    assert visitor.message == "40 tokens, seed 7."


def test_an_answer_is_decoded_with_the_tokenizer_that_it_was_written_with(service: Service, model_folder: Path) -> None:
    pytest.importorskip("gradio")
    from tinygpt.web.handlers import Handlers

    visitor = written(service, "ROMEO:")
    shown = Handlers(service).turns(visitor)
    service.models.load = lambda name: pytest.fail(f"{name} may have changed or be gone")  # type: ignore[method-assign]
    assert Handlers(service).turns(visitor) == shown
    assert visitor.turns[0].tokens


def test_a_visitor_who_leaves_frees_the_worker(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "UPDATE_SECONDS", -1.0)
    visitor = service.visitor("somebody")
    service.submit(visitor, "ROMEO:", only(service), *SETTINGS)
    steps = service.generate(visitor)
    next(steps)
    service.forget("somebody")
    assert list(steps) == []
    assert service.running == 0
    assert service.visitor("somebody").turns == []


def test_a_worker_is_free_when_its_generator_is_closed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "UPDATE_SECONDS", -1.0)
    visitor = Visitor()
    service.submit(visitor, "ROMEO:", only(service), *SETTINGS)
    with contextlib.closing(service.generate(visitor)) as steps:
        next(steps)
    assert (service.running, visitor.request) == (0, None)


def test_an_answer_ends_at_its_time_limit(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "MAX_SECONDS", -1.0)
    visitor = written(service, "ROMEO:")
    assert visitor.turns[0].answer == ""
    assert "stopped after" in visitor.message


def test_one_visitor_has_one_answer_written_at_a_time(service: Service) -> None:
    visitor = Visitor()
    service.submit(visitor, "ROMEO:", only(service), *SETTINGS)
    for again in (
        lambda: service.submit(visitor, "x", only(service), *SETTINGS),
        lambda: service.retry(visitor, only(service), *SETTINGS),
        lambda: service.undo(visitor),
        lambda: service.clear(visitor),
    ):
        with pytest.raises(ValueError, match="An answer is already being written"):
            again()


def test_retry_takes_the_next_seed_undo_returns_the_text_and_clear_removes_all(service: Service) -> None:
    visitor = written(service, "ROMEO:")
    first = visitor.text
    assert service.retry(visitor, only(service), *SETTINGS) == 8
    assert list(service.generate(visitor)) is not None
    assert visitor.text == written(service, "ROMEO:", 0.8, 0, 0.95, 0.0, 40, 8).text != first
    service.submit(visitor, "\nJULIET:", only(service), *SETTINGS)
    list(service.generate(visitor))
    assert service.undo(visitor) == "\nJULIET:"
    assert len(visitor.turns) == 1
    service.clear(visitor)
    assert visitor.text == ""
    assert service.undo(visitor) == ""
    with pytest.raises(ValueError, match="nothing to take back or to try again"):
        service.retry(visitor, only(service), *SETTINGS)


def test_an_answer_stays_until_another_replaces_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    visitor = written(service, "ROMEO:")
    first = visitor.text
    service.retry(visitor, only(service), *SETTINGS)
    service.stop(visitor)
    assert list(service.generate(visitor)) == []  # stopped before its first token
    assert visitor.text == first
    service.retry(visitor, only(service), *SETTINGS)
    service.stop(visitor)  # before it started
    assert service.undo(visitor) == "ROMEO:"
    visitor = written(service, "ROMEO:")
    service.retry(visitor, only(service), *SETTINGS)
    with monkeypatch.context() as patch:
        patch.setattr(service.models, "load", Mock(side_effect=ValueError("It is damaged.")))
        with pytest.raises(ValueError, match=r"^It is damaged\.$"):
            list(service.generate(visitor))
    assert visitor.text == first


def test_the_number_of_visitors_is_limited_and_dropped_ones_are_stopped(service: Service) -> None:
    first = service.visitor("first")
    service.submit(first, "ROMEO:", only(service), *SETTINGS)
    request = first.request
    for count in range(service_module.MAX_VISITORS + 50):
        service.visitor(f"visitor {count}")
    assert len(service._visitors) == service_module.MAX_VISITORS
    assert request
    assert request.stop.is_set()


@pytest.mark.parametrize("temperature", [0, 1])
def test_token_predictions_are_those_of_generation_also_beyond_the_context(
    service: Service, temperature: float
) -> None:
    model = service.models.load(only(service)).model
    tokens = written(service, "ROMEO:", temperature, 3, 1, 0, 60, 7).turns[0].tokens  # of a context of 16
    assert len(tokens) == 60
    for seen in tokens:
        assert seen.sampled
        assert seen.sampled > 0  # what was sampled had a probability
        assert seen.rank <= (1 if temperature == 0 else 3)
        assert sum(chance > 0 for _, _, chance in seen.alternatives) == (1 if temperature == 0 else 3)
    ids = [0, *(seen.token for seen in tokens)][: model.config.context_length]
    bits = activations.get_activations(model, ids).bits
    found = [-math.log2(seen.probability or 0) for seen in service_module.predict_tokens(model, ids, 1)]
    assert found == pytest.approx(bits.tolist(), rel=1e-4)


def test_a_long_text_is_scored_up_to_a_limit_and_the_rest_is_counted(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "MAX_SCORED", 50)
    _, seen, left_out = service.score(TEXT[:120], only(service))
    assert (len(seen), left_out) == (50, 70)


def test_attention_is_that_of_the_chosen_head(service: Service) -> None:
    loaded, ids, weights, more = service.attention(TEXT[:10], only(service), 2, 1)
    assert (len(ids), more) == (10, False)
    torch.testing.assert_close(weights, activations.get_activations(loaded.model, ids).attention[1, 0])
    assert service.attention(TEXT[:99], only(service), 1, 1)[3]
    for block, head, says in ((3, 1, "Block is 3"), (1, 0, "Head is 0"), ("1", 1, "Block is '1'")):
        with pytest.raises(ValueError, match=says):
            service.attention(TEXT[:10], only(service), block, head)


NUMBERS: list[Any] = [math.nan, math.inf, -math.inf, -1, 1e308, 10**400, "0.8", None, True, [1], {"a": 1}]


@pytest.mark.parametrize("value", NUMBERS, ids=[repr(value)[:12] for value in NUMBERS])
@pytest.mark.parametrize("name", LABELS)
def test_a_setting_that_config_does_not_allow_is_refused_in_a_sentence(name: str, value: Any) -> None:
    settings = dict(zip(LABELS, SETTINGS, strict=True)) | {name: value}
    if name in SLIDERS and SAMPLING[name].fits(value):  # a slider may end earlier
        assert getattr(make_request("x", "model", [*settings.values()], 1).sampling, name) == value
        return
    with pytest.raises(ValueError, match=rf"^{LABELS[name]} is .{{1,30}}; it must be a (whole )?number(,| from) .+\.$"):
        make_request("x", "model", [*settings.values()], 1)


@pytest.mark.parametrize(("name", "value"), [("top_k", 1.5), ("seed", 0.1), ("max_new_tokens", 2.000001)])
def test_counts_must_be_whole_numbers(name: str, value: float) -> None:
    settings = dict(zip(LABELS, SETTINGS, strict=True)) | {name: value}
    with pytest.raises(ValueError, match="must be a whole number"):
        make_request("x", "model", [*settings.values()], 1)


@pytest.mark.parametrize("name", SLIDERS)
def test_a_slider_spans_values_that_config_allows_and_the_default(name: str) -> None:
    lowest, highest, step = SLIDERS[name]
    assert all(SAMPLING[name].fits(value) for value in (lowest, highest, lowest + step))
    assert lowest <= DEFAULTS[name] == SAMPLING[name].default <= highest


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("x" * (MAX_CHARACTERS + 1), "has 20,001 characters"),
        ("a\ud800", "half a character"),
        (b"x", "not text"),
        (["x"], "not text"),
        (7, "not text"),
    ],
)
def test_an_invalid_text_is_refused_in_a_sentence(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        text(value)


def test_the_limit_counts_the_conversation_and_the_new_text() -> None:
    with pytest.raises(ValueError, match="The whole text would have 20,001 characters"):
        make_request("x", "data/model", SETTINGS, MAX_CHARACTERS + 1)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc", "", None, 3, ["data/model"], "data/model\0"])
def test_a_model_that_is_not_in_the_registry_is_refused(service: Service, name: Any) -> None:
    visitor = Visitor()
    for ask in (
        lambda: service.submit(visitor, "x", name, *SETTINGS),
        lambda: service.score("x", name),
        lambda: service.attention("x", name, 1, 1),
    ):
        with pytest.raises(ValueError, match="no such model"):
            ask()
    assert visitor.turns == []


def test_a_request_to_a_damaged_model_can_be_undone(
    model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model_folder, "mine")
    service, visitor = Service(ModelRegistry()), Visitor()
    service.submit(visitor, "ROMEO:", "mine", *SETTINGS)
    Path("mine/config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine is damaged: config\.json does not match .* Undo returns"):
        list(service.generate(visitor))
    assert (service.running, visitor.request) == (0, None)
    assert service.undo(visitor) == "ROMEO:"

"""The page over HTTP: every request gets a response or an error sentence, and memory does not grow."""

import json
import os
import random
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import psutil
import pytest
from typer.testing import CliRunner

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -c requirements.lock -e '.[web]'")

from tests.conftest import ROOT
from tests.visiting import Visitor, served, until
from tinygpt.cli import main
from tinygpt.web.handlers import CONVERSATION, Handlers
from tinygpt.web.requests import MAX_CHARACTERS
from tinygpt.web.service import Service

PLAIN = (0.8, 0, 0.95, 0.0, 20, 1337)  # in the order of requests.LABELS
GROWTH = 40 * 2**20  # bytes that the second half of all requests may add


@pytest.fixture(scope="module")
def page(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("web"))
    with served(model_folder) as both:
        yield both
    os.chdir(before)


@pytest.fixture
def model(page: tuple[str, Service]) -> str:
    (name,) = page[1].models.find()
    return name


@pytest.fixture
def visitor(page: tuple[str, Service]) -> Visitor:
    return Visitor(page[0])


def test_the_page_loads_nothing_from_other_addresses(visitor: Visitor) -> None:
    html = visitor.get("/").decode() + visitor.get("/theme.css").decode()
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)|url\(([^)]+)\)|@import\s+([^;]+)""", html)
    assert loaded
    assert not [found for found in map("".join, loaded) if "//" in found and not found.strip("\"'").startswith("data:")]
    config = json.loads(visitor.get("/config"))
    assert config["analytics_enabled"] is False
    assert config["stylesheets"] == []  # the page would load them
    assert all(event["api_visibility"] == "private" for event in config["dependencies"] if event["api_name"] != "js_fn")


def test_an_answer_equals_that_of_the_command_line(visitor: Visitor, model: str) -> None:
    status, queued = visitor.at_once("submit", None, "ROMEO:", model, *PLAIN)
    assert status == 200
    assert "Waiting in the queue" in queued
    status, streamed = visitor.queued("generate")
    assert status == 200
    assert '"msg":"process_completed"' in streamed
    words = ["generate", "ROMEO:", "--model", model, "--max-new-tokens", "20"]
    assert (
        CliRunner().invoke(main.app, words).output
        == json.loads(visitor.at_once("conversation_text", None)[1])["data"][0] + "\n"
    )


class Client:
    """Calls the handlers as Gradio does; `stored` is what the browser would store."""

    def __init__(self, service: Service, name: str) -> None:
        self.handlers, self.stored = Handlers(service), None
        self.request: Any = SimpleNamespace(session_hash=name)

    def __call__(self, event: str, *values: Any) -> dict[str, Any]:
        """The components of the conversation after an event."""
        answer = getattr(self.handlers, event)(self.request, *values)
        answer = answer if isinstance(answer, tuple) else list(answer)[-1]
        names = ("turns", "live", "status", "stored", "Write", "Stop", "Retry", "Undo", "Clear", "score", "map")
        shown = dict(zip(names, answer[-CONVERSATION:], strict=True))
        self.stored = shown["stored"]
        return shown


def enabled(shown: dict[str, Any]) -> set[str]:
    return {name for name, one in shown.items() if getattr(one, "interactive", False)}


def test_a_button_is_enabled_only_if_it_does_something(page: tuple[str, Service], model: str) -> None:
    one = Client(page[1], "buttons")
    assert enabled(one("open_page", None)) == {"Write"}
    assert enabled(one("submit", None, "ROMEO:", model, *PLAIN)) == {"Stop", "score", "map"}
    assert enabled(one("generate")) == {"Write", "Retry", "Undo", "Clear", "score", "map"}
    assert enabled(one("retry", None, model, *PLAIN)) == {"Stop", "score", "map"}
    assert enabled(one("stop")) == {"Write", "Retry", "Undo", "Clear", "score", "map"}
    assert enabled(one("undo", None, "")) == {"Write"}
    one("submit", None, "ROMEO:", model, *PLAIN)
    one("generate")
    assert enabled(one("clear", None)) == {"Write"}


def test_a_conversation_survives_a_reload_with_its_token_details(page: tuple[str, Service], model: str) -> None:
    one, reloaded_client = Client(page[1], "before"), Client(page[1], "after")
    one("open_page", None)
    for text in ("ROMEO:", "\nJULIET:"):
        one("submit", None, text, model, *PLAIN)
        shown = one("generate")
    assert shown["turns"].count("data-t=") == 40
    stored = json.loads(json.dumps(one.stored))
    one.handlers.close_page(one.request)
    reloaded = reloaded_client("open_page", stored)
    assert reloaded["turns"] == shown["turns"]
    assert enabled(reloaded) == enabled(shown)
    stored[1]["version"] = "another"  # the model was retrained: the text stays, without details
    assert Client(page[1], "later")("open_page", stored)["turns"].count("data-t=") == 20
    assert reloaded_client("clear", stored)["stored"] == []


def test_a_page_that_the_server_forgot_continues_its_conversation(page: tuple[str, Service], model: str) -> None:
    one = Client(page[1], "asleep")
    one("submit", None, "ROMEO:", model, *PLAIN)
    one("generate")
    stored, text = one.stored, page[1].visitor("asleep").text
    one.handlers.close_page(one.request)  # as a phone's browser does with a page in the background
    one("submit", stored, "\nJULIET:", model, *PLAIN)
    request = page[1].visitor("asleep").request
    assert request
    assert request.prompt == text + "\nJULIET:"


def test_a_damaged_conversation_is_refused_in_a_sentence_and_a_new_one_starts(
    page: tuple[str, Service], model: str
) -> None:
    one = Client(page[1], "damaged")
    assert "The conversation stored in this browser is damaged." in one("open_page", [{"written": "<b>"}])["status"]
    assert "Waiting" in one("submit", None, "ROMEO:", model, *PLAIN)["status"]
    one("stop")


def test_undo_puts_its_text_before_what_is_in_the_box(page: tuple[str, Service], model: str) -> None:
    one = Client(page[1], "undo")
    one("submit", None, "ROMEO:", model, *PLAIN)
    one("generate")
    assert one.handlers.undo(one.request, None, " unsent")[0] == "ROMEO: unsent"


def test_a_request_during_another_is_refused_and_changes_no_button(page: tuple[str, Service], model: str) -> None:
    one = Client(page[1], "twice")
    one("submit", None, "ROMEO:", model, *PLAIN)
    refused = one("submit", None, "JULIET:", model, *PLAIN)
    assert "An answer is already being written" in refused["status"]
    visitor = page[1].visitor("twice")
    visitor.generating = True
    assert enabled(one("generate")) == set()  # called after the refused request
    visitor.generating = False
    one("stop")


def test_stop_frees_the_worker(page: tuple[str, Service], visitor: Visitor, model: str) -> None:
    service = page[1]
    settings = (0.8, 0, 0.95, 0.0, 1000, 1337)
    with ThreadPoolExecutor() as threads:
        visitor.at_once("submit", None, "ROMEO:", model, *settings)
        held = threads.submit(visitor.queued, "generate")
        assert until(lambda: service.running == 1 or held.done())
        assert visitor.at_once("stop")[0] == 200
        assert until(lambda: service.running == 0, seconds=1)
        assert "process_completed" in held.result()[1]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (("x" * (MAX_CHARACTERS + 1), *PLAIN), "has 20,001 characters"),
        ((["x"], *PLAIN), "not text"),
        (("x", float("nan"), *PLAIN[1:]), "Temperature is nan"),
        (("x", "hot", *PLAIN[1:]), "Temperature is &#x27;hot&#x27;"),
        (("x", *PLAIN[:4], 10**9, 1), "Max new tokens is 1000000000"),
        (("x", *PLAIN[:5], {"a": 1}), "Seed is {"),
    ],
)
def test_an_invalid_value_gets_a_sentence_on_the_page(visitor: Visitor, model: str, values: Any, says: str) -> None:
    box, *settings = values
    status, answer = visitor.at_once("submit", None, box, model, *settings)
    assert status == 200
    assert f'role=\\"alert\\">{says}'.replace("&#x27;", "&#x27;") in answer or says in answer
    assert visitor.queued("generate")[0] == 200  # without a request, it does nothing


def test_the_command_refuses_unsafe_or_wrong_options(model_folder: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYGPT_PASSWORD", raising=False)
    for words, says in (
        (["--host", "0.0.0.0", "--model", str(model_folder)], "needs a password: set TINYGPT_PASSWORD"),
        (["--model", "nowhere"], "There is no model in nowhere"),
        ([], "There is no model below this folder"),
        (["--host", "no such host"], "--host 'no such host' is unknown. Write an address of this machine"),
        (["--host", "a..b"], "--host 'a..b' is unknown."),
        (["--password-file", "absent"], "Cannot read --password-file absent (No such file or directory)."),
        (["--password-file", "."], "Cannot read --password-file . (Is a directory)."),
        (["--password-file", "latin1"], "Cannot read --password-file latin1 (not UTF-8 text)."),
        (["--model", str(model_folder), "--host", "192.0.2.1", "--password-file", "word"], "Cannot listen at"),
    ):
        Path("word").write_text("correct horse\nnot this\n", encoding="utf-8")
        Path("latin1").write_bytes("très secret".encode("latin1"))
        result = CliRunner().invoke(main.app, ["web", "--port", "0", *words])
        assert isinstance(result.exception, ValueError | OSError), result.output
        assert says in str(result.exception)


def test_without_the_extra_the_command_says_how_to_install_it(model_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "tinygpt.web.app", raising=False)
    monkeypatch.delattr("tinygpt.web.app", raising=False)
    result = CliRunner().invoke(main.app, ["web", "--model", str(model_folder)])
    assert "pip install -c requirements.lock -e '.[web]'" in str(result.exception)


def test_the_page_starts_behind_any_proxy(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("all_proxy", "socks://127.0.0.1:9"), ("no_proxy", ""), ("NO_PROXY", "")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="Unknown scheme for proxy"):
        httpx.Client()  # Gradio creates one when it is imported
    monkeypatch.setattr("tinygpt.web.app.run", lambda *_: httpx.Client().close())
    result = CliRunner().invoke(main.app, ["web", "--model", str(model_folder)], catch_exceptions=False)
    assert result.exit_code == 0


NUMBERS = [float("nan"), float("inf"), -1, 10**30, "0.8", None, True, [], {"x": [1]}, 1e-320]
TEXTS: list[Any] = [
    "x" * 2**20, "\0\x1b[2J\x07\u202e", "a\ud800", None, 7, ["x"], "ROMEO:" * 4000, "漢👩🚀" * 999,
    "<script>alert(1)</script><img src=x onerror=alert(1)>", "**b** $x^2$ {{7*7}} ${7*7}",
    {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}},
]  # fmt: skip
KEPT: list[Any] = [None, None, None, "x", [{}], {"a": [1]}, [{"written": "x" * 2**17}]]
NAMES: list[Any] = ["../../../etc/passwd", "/etc", "data/model\0", "", None, 5, ["a"], "http://example.org/model"]
PATHS = [
    "/gradio_api/file=/etc/passwd", "/gradio_api/file=../../../etc/passwd", "/assets/..%2f..%2f..%2fetc/passwd",
    "/static/%2e%2e/x", "/gradio_api/upload", "/gradio_api/proxy=http://127.0.0.1:1/", "/gradio_api/call/begin",
    "/monitoring", "/gradio_api/info",
]  # fmt: skip


def visit(address: str, number: int, model: str, requests: int) -> Counter[str]:
    """Send one visitor's requests, some of them hostile, and count the responses by status."""
    visitor, rng, answers = Visitor(address), random.Random(number), Counter[str]()
    for _ in range(requests):
        match rng.randrange(8):
            case 0 | 1:
                answer = visitor.at_once("submit", None, "ROMEO:", model, *PLAIN)
                answers["written"] += "process_completed" in visitor.queued("generate")[1]
            case 2:
                answer = visitor.queued("score", "But, soft! what light", model)
            case 3:
                answer = visitor.queued("attention", "But, soft!", model, rng.choice(NUMBERS), rng.choice(NUMBERS))
            case 4:
                settings = [rng.choice([value, *NUMBERS]) for value in PLAIN]
                answer = visitor.at_once(
                    "submit", rng.choice(KEPT), rng.choice(TEXTS), rng.choice([model, *NAMES]), *settings
                )
                visitor.queued("generate")
            case 5:
                answer = visitor.queued("score", rng.choice(TEXTS), rng.choice([model, *NAMES]))
            case 6:
                answer = visitor.post(rng.choice(PATHS), b'{"data": []}')
            case _:
                answer = visitor.post("/gradio_api/queue/join", rng.choice([b"", b"{", b"[" * 9999, b"null", b"\xff"]))
        status, said = answer
        refused = {
            400: "not an event of this page",
            404: "Not found",
            413: "too large",
            503: "Queue is full",
        }
        if status != 200:
            assert refused.get(status, "?") in said, (status, said[:300])
        assert "Traceback" not in said
        answers[str(status)] += 1
        visitor.at_once(*rng.choice([("stop",), ("undo", rng.choice(KEPT), ""), ("clear", rng.choice(KEPT))]))
    return answers


@pytest.mark.slow
def test_fifty_visitors_at_once_some_hostile_all_get_responses_and_leave_no_memory_behind(
    model_folder: Path, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tinygpt", "web", "--port", "0", "--model", str(model_folder)]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    with (tmp_path / "errors").open("w+") as errors:
        server = subprocess.Popen(command, cwd=tmp_path, env=env, text=True, stdout=subprocess.PIPE, stderr=errors)
        try:
            assert server.stdout
            address = server.stdout.readline().split()[3]
            resident, answers = [], Counter[str]()
            for half in range(2):
                with ThreadPoolExecutor(50) as visitors:
                    numbers = range(50 * half, 50 * half + 50)
                    for found in visitors.map(lambda n: visit(address, n, str(model_folder), 10), numbers):
                        answers += found
                resident.append(psutil.Process(server.pid).memory_info().rss)
            assert sum(answers[status] for status in ("200", "400", "404", "413", "503")) == 1000
            assert answers["written"] > 100
            assert resident[1] - resident[0] < GROWTH
            last = Visitor(address)
            last.at_once("submit", None, "ROMEO:", str(model_folder), *PLAIN)
            assert "20 tokens, seed 1337." in last.queued("generate")[1]
        finally:
            server.kill()
            server.wait()
        errors.seek(0)
        assert "Traceback" not in errors.read()

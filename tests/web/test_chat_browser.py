"""The Chat tab in Chromium: bubbles, examples, buttons, switching of models, wide and narrow."""

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -c requirements.lock -e '.[web]'")
pytest.importorskip("playwright", reason="needs Playwright: pip install -c requirements.lock -e '.[test]'")

from tests.visiting import chromium, served, until
from tests.web.chat_model import save_chat_model
from tests.web.test_browser import DISPLAYS, Open, resume, visited, window
from tinygpt.web.service import Service

__all__ = ["resume", "window"]  # fixtures
pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a browser: apt-get install chromium")
HOSTILE = "<img src=x onerror=a()>**b**${1}"


@pytest.fixture(scope="module")
def site(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """A page with a chat model, which comes first, and a base model."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("site"))
    save_chat_model(Path("chat/data/model"))
    shutil.copytree(model_folder, "data/model")
    with served(Path("chat/data/model")) as both:
        yield both
    os.chdir(before)


class OpenChat(Open):
    """A page with its Chat tab."""

    def send(self, text: str, number: int) -> str:
        """Send a message; the text of its answer."""
        self.page.get_by_label("Your message").fill(text)
        self.button("Send").click()
        return self.answer(number)

    def choose(self, model: str) -> None:
        self.page.get_by_role("combobox", name="Model").click()
        self.page.get_by_role("option", name=model, exact=True).click()

    def open_tab(self) -> str:
        return str(self.page.locator("[role=tab][aria-selected=true]").text_content()).strip()

    def bubbles(self, role: str) -> list[str]:
        return list(self.page.locator(f"#chat .message.{role} .said").all_text_contents())

    def limit(self, tokens: int) -> None:
        """Set the longest answer: half of the context is kept for it, unless it is shorter."""
        self.page.get_by_label("number input for Max new tokens").fill(str(tokens))


@pytest.fixture
def opened(window: Any, site: tuple[str, Service], request: pytest.FixtureRequest) -> Iterator[OpenChat]:
    """The page. After the test, asserts that it had no error and sent no request elsewhere."""
    yield from visited(OpenChat(window, site[0], **getattr(request, "param", {})), site[0])


def test_an_example_asks_in_one_click_and_the_conversation_survives_a_reload(opened: OpenChat) -> None:
    assert opened.open_tab() == "Chat"
    opened.limit(20)
    opened.button("To JULIET: Who art thou?").click()
    first = opened.answer()
    assert opened.page.get_by_label("System message").input_value() == "You are JULIET."
    assert opened.bubbles("system") == ["You are JULIET."]
    assert opened.bubbles("user") == ["Who art thou?"]
    assert opened.page.locator("#chat .assistant .speaker").text_content() == "JULIET"
    assert not opened.button("What is 23 + 41?").is_visible()  # once there is a conversation
    opened.page.reload()
    assert opened.answer() == first
    assert opened.page.get_by_label("System message").input_value() == "You are JULIET."
    assert opened.bubbles("user") == ["Who art thou?"]
    opened.button("Clear").click()
    opened.button("What is 23 + 41?").wait_for()
    opened.page.reload()
    opened.button("What is 23 + 41?").wait_for()


def test_retry_undo_and_token_details_work_as_in_write(opened: OpenChat) -> None:
    first = opened.send("Hi", 1)
    opened.page.locator("#chat .t").first.click()
    opened.page.locator("#chat-card").get_by_text("after settings", exact=True).wait_for()
    opened.button("Retry").click()
    opened.page.locator("#chat-status .line").get_by_text("seed 1338").wait_for()
    assert opened.answer() != first
    opened.button("Undo").click()
    opened.button("What is 23 + 41?").wait_for()
    assert opened.page.get_by_label("Your message").input_value() == "Hi"
    assert [opened.button(name).is_enabled() for name in ("Send", "Stop", "Retry", "Undo", "Clear")] == [
        *(True, False, False, False, False),
    ]


def test_an_answer_streams_into_a_bubble_and_stop_ends_it(
    opened: OpenChat, site: tuple[str, Service], resume: threading.Event
) -> None:
    opened.page.get_by_label("Your message").fill("Hi")
    opened.page.get_by_label("Your message").press("Enter")
    opened.page.locator("#chat .assistant .caret").wait_for()
    assert opened.bubbles("user") == ["Hi"]
    assert until(lambda: site[1].running == 1)
    opened.button("Stop").click()
    assert until(lambda: site[1].running == 0, seconds=1)
    opened.page.get_by_text("; stopped.").wait_for()
    assert opened.answer()


def test_the_oldest_turns_are_dropped_and_the_page_says_so(opened: OpenChat) -> None:
    opened.limit(20)
    for number in range(1, 4):
        opened.send("Who art thou?", number)
    opened.page.locator("#chat-status").get_by_text("oldest messages no longer fit").wait_for()
    assert opened.page.locator("#chat .edge").count() == 1
    seen = opened.page.locator("#chat .edge ~ .message.user")
    assert 0 < seen.count() < 3


def test_a_message_is_copied_as_it_is(opened: OpenChat) -> None:
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"])
    said = f'two\nlines "quoted" & {HOSTILE[:12]}'
    opened.limit(5)
    opened.send(said, 1)
    button = opened.page.get_by_label("Copy message 1")
    button.click()
    assert until(lambda: button.text_content() == "Copied")
    assert opened.page.evaluate("navigator.clipboard.readText()") == said
    assert until(lambda: button.text_content() == "Copy")


def test_hostile_messages_are_shown_as_they_are(opened: OpenChat) -> None:
    opened.page.get_by_label("System message").fill("You are <b>B</b>.")
    opened.page.get_by_label("Your message").fill(HOSTILE)
    opened.limit(5)
    opened.button("Send").click()
    opened.page.locator("#chat .message.assistant").wait_for()
    assert opened.bubbles("user") == [HOSTILE]
    assert opened.bubbles("system") == ["You are <b>B</b>."]
    assert opened.page.locator("#chat .message :is(script, img, b)").count() == 0


@pytest.mark.slow
def test_the_page_switches_between_chat_and_write_with_the_model(window: Any, site: tuple[str, Service]) -> None:
    opened = OpenChat(window, site[0])
    opened.send("Hi", 1)
    opened.choose("data/model")
    assert until(lambda: opened.open_tab() == "Write")
    opened.tab("Chat")
    opened.page.get_by_text("Choose chat/data/model above").wait_for()
    assert opened.bubbles("user") == ["Hi"]
    assert [opened.button(name).is_enabled() for name in ("Send", "Retry", "Undo")] == [False, False, True]
    opened.page.reload()
    assert until(lambda: opened.open_tab() == "Write")  # the model chosen last
    opened.tab("Surprisal")
    opened.choose("chat/data/model")
    opened.page.get_by_text("context 64").wait_for()
    opened.page.locator("#scored-text .t").first.wait_for()
    assert opened.open_tab() == "Surprisal"  # its reader stays there
    opened.button("Use conversation").click()
    opened.page.locator("#scored-text .special").first.wait_for()
    opened.page.get_by_text("only what the assistant writes is scored").wait_for()
    opened.tab("Write")
    opened.choose("data/model")
    opened.page.get_by_text("context 16").wait_for()
    opened.choose("chat/data/model")
    assert until(lambda: opened.open_tab() == "Chat")
    assert opened.button("Send").is_enabled()
    opened.context.close()
    assert opened.errors == []


def test_a_page_of_base_models_says_how_to_get_one_that_answers(
    window: Any, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with served(model_folder) as (address, _):
        opened = OpenChat(window, address)
        assert opened.open_tab() == "Write"
        opened.tab("Chat")
        opened.page.get_by_text("dvc repro chat/dvc.yaml").wait_for()
        assert not opened.button("Send").is_enabled()
        assert not opened.button("What is 23 + 41?").is_visible()
        opened.context.close()


@pytest.mark.parametrize("opened", DISPLAYS, indirect=True, ids=["light", "dark", "phone", "dark phone"])
def test_nothing_overflows_and_axe_finds_no_serious_fault(opened: OpenChat) -> None:
    assert opened.faults() == []  # without a conversation
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    opened.limit(20)
    opened.button("To JULIET: Who art thou?").click()
    opened.answer()
    opened.send("w" * 20, 2)
    opened.page.locator("#chat .edge").wait_for()
    opened.page.get_by_label("Shade tokens").check()
    opened.page.locator("#chat .t").last.click()
    opened.page.locator("#chat-card table").wait_for()
    assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    text = opened.page.locator("#chat-text")
    assert text.evaluate("text => text.scrollWidth <= text.clientWidth")
    assert opened.faults() == []
    opened.tab("Surprisal")
    opened.button("Use conversation").click()
    opened.page.locator("#scored-text .special").first.wait_for()
    assert opened.faults() == []

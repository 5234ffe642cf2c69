"""The page in a real browser: by mouse, touch and keyboard, wide and narrow, with nothing that leaves the machine."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -c requirements.lock -e '.[web]'")
pytest.importorskip("playwright", reason="needs Playwright: pip install -c requirements.lock -e '.[test]'")

from tests.visiting import browser, chromium, served, until
from tinygpt.generation import generate_ids
from tinygpt.serving import Serving
from tinygpt.web import AT_ONCE

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a browser: apt-get install chromium")
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Serving]]:
    """A page with two models, the second with less to say."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("site"))
    shutil.copytree(model_folder, "data/model")
    shutil.copytree(model_folder, "finetune/data/model")
    with served() as both:
        yield both
    os.chdir(before)


class Open:
    """A page opened in a browser, every request of which is written down."""

    def __init__(self, window: Any, address: str, **how: Any) -> None:
        self.context = window.new_context(**({"viewport": {"width": 1280, "height": 860}} | how))
        self.page, self.asked, self.errors = self.context.new_page(), list[str](), list[str]()
        self.context.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        self.page.goto(address)
        self.page.get_by_text("parameters").wait_for()

    def write(self, text: str) -> None:
        self.page.get_by_label("Your text").fill(text)
        self.button("Write").click()

    def asks(self, box: str, text: str, button: str, answered: Callable[[], bool]) -> bool:
        """Fill a box and press a button, again where no answer comes: on a busy machine the click can come before the
        page has taken up what was filled in, which nobody who types is quick enough for.
        """

        def once() -> bool:
            self.page.locator(box).fill(text)
            self.button(button).click()
            return until(answered, 5)

        return until(once)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def answer(self) -> str:
        """The last answer, once it is whole."""
        tokens = self.page.locator("#sheet .tokens")
        tokens.wait_for()
        return str(tokens.text_content())

    def faults(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in SERIOUS]


@pytest.fixture
def opened(window: Any, site: tuple[str, Serving], request: pytest.FixtureRequest) -> Iterator[Open]:
    """The page, closed after the test; nothing may have gone wrong, or gone elsewhere, in it."""
    one = Open(window, site[0], **getattr(request, "param", {}))
    yield one
    one.context.close()
    assert one.errors == []
    assert [url for url in one.asked if not url.startswith((site[0], "data:", "blob:"))] == []


@pytest.fixture
def slowly(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Answers of which three tokens come, and the others once the event is set."""
    go = threading.Event()

    def generate(*what: Any) -> Iterator[Any]:
        for count, step in enumerate(generate_ids(*what)):
            while count >= 3 and not go.wait(0.02):
                yield step
            yield step

    monkeypatch.setattr("tinygpt.serving.generate_ids", generate)
    monkeypatch.setattr("tinygpt.serving.PACE", 0.0)
    yield go
    go.set()


def test_typed_text_is_continued_and_the_same_seed_writes_the_same(opened: Open) -> None:
    opened.write("ROMEO:")
    first = opened.answer()
    assert len(first) > 20
    opened.button("Clear").click()
    opened.page.get_by_text("Write how a text begins").wait_for()
    opened.write("ROMEO:")
    assert opened.answer() == first
    opened.button("Retry").click()
    opened.page.get_by_text("seed 1338.").wait_for()
    assert opened.answer() != first
    assert opened.page.get_by_label("seed", exact=True).input_value() == "1338"
    opened.button("Undo").click()
    opened.page.get_by_text("Write how a text begins").wait_for()
    assert opened.page.get_by_label("Your text").input_value() == "ROMEO:"


def test_text_streams_and_stop_frees_the_worker_at_once(
    opened: Open, site: tuple[str, Serving], slowly: threading.Event
) -> None:
    opened.write("ROMEO:")
    opened.page.locator("#sheet .caret").wait_for()  # there is text, and the answer is not over
    assert until(lambda: site[1].running == 1)
    assert opened.button("Write").is_disabled()
    opened.button("Stop").click()
    assert until(lambda: site[1].running == 0, seconds=1)
    opened.page.get_by_text("; stopped.").wait_for()
    assert opened.button("Stop").is_disabled()
    assert opened.answer()


def test_an_order_that_still_waits_for_its_turn_can_be_stopped(
    window: Any, opened: Open, site: tuple[str, Serving], slowly: threading.Event
) -> None:
    others = [Open(window, site[0]) for _ in range(AT_ONCE)]
    for other in others:
        other.write("ROMEO:")
    assert until(lambda: site[1].running == AT_ONCE)
    opened.write("JULIET:")
    opened.page.get_by_text("Waiting for its turn").wait_for()
    opened.button("Stop").click()
    opened.page.get_by_text("Stopped before it began.").wait_for()
    assert opened.button("Stop").is_disabled()
    assert opened.button("Write").is_enabled()
    for other in others:
        other.context.close()
    slowly.set()
    assert until(lambda: site[1].running == 0, seconds=20)
    opened.write("HAMLET:")
    opened.page.locator("#sheet").get_by_text("HAMLET:").wait_for()
    assert opened.answer()


def test_closing_the_page_frees_the_worker(window: Any, site: tuple[str, Serving], slowly: threading.Event) -> None:
    one = Open(window, site[0])
    one.write("ROMEO:")
    assert until(lambda: site[1].running == 1)
    one.context.close()
    assert until(lambda: site[1].running == 0, seconds=20)


def test_sliders_change_what_is_written(opened: Open) -> None:
    opened.page.get_by_label("number input for temperature").fill("0")
    opened.page.get_by_label("number input for length").fill("12")
    opened.write("ROMEO:")
    assert len(opened.answer()) == 12  # characters are tokens here
    opened.page.get_by_text("12 tokens, seed 1337.").wait_for()
    opened.page.locator("#sheet .t").nth(4).click()
    assert opened.page.locator(".card").get_by_text("after temperature and cuts 100%").is_visible()
    assert opened.page.locator(".card .cut").count() == 7


def test_a_token_opens_by_pointing_clicking_and_keys(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    tokens, card = opened.page.locator("#sheet .t"), opened.page.locator("#sheet .card")
    tokens.nth(6).hover()
    card.get_by_text("could have come").wait_for()
    assert card.locator("tbody tr").count() == 8
    tokens.nth(3).click()
    assert tokens.nth(3).get_attribute("aria-selected") == "true"
    opened.page.locator("#sheet .tokens").press("ArrowRight")
    assert tokens.nth(4).get_attribute("aria-selected") == "true"
    assert opened.page.locator("#sheet .tokens").get_attribute("aria-activedescendant") == "token"
    opened.page.locator("#sheet .tokens").press("End")
    assert tokens.last.get_attribute("aria-selected") == "true"


def test_a_pasted_text_is_shaded_and_an_attention_map_is_drawn(opened: Open) -> None:
    opened.tab("Read")
    told = opened.page.get_by_text("bits in 21 tokens and 21 bytes")
    assert opened.asks("#to-read textarea", "But, soft! what light", "Read", told.is_visible)
    shades = opened.page.locator("#reading .t[style]").evaluate_all(
        "all => all.map(t => t.style.getPropertyValue('--s'))"
    )
    assert len(set(shades)) > 5
    opened.tab("Attention")
    rectangles = opened.page.locator("#attention rect")
    assert opened.asks("#to-map textarea", "But, soft", "Show", lambda: rectangles.count() == 45)
    opened.page.locator("#attention").get_by_text("Block 1, head 1.").wait_for()
    first = opened.page.locator("#attention svg").inner_html()
    opened.page.locator("#head label").nth(1).click()
    opened.page.locator("#attention").get_by_text("Block 1, head 2.").wait_for()
    assert opened.page.locator("#attention svg").inner_html() != first
    assert opened.page.locator("#attention tbody tr").count() == 9


def test_another_model_can_be_chosen(opened: Open) -> None:
    opened.page.get_by_role("combobox", name="Model").click()
    opened.page.get_by_role("option", name="finetune/data/model").click()
    opened.write("ROMEO:")
    opened.answer()
    assert "--model finetune/data/model" in str(opened.page.locator(".command").text_content())


def test_all_of_it_can_be_done_with_the_keyboard_alone(opened: Open) -> None:
    opened.page.get_by_label("Your text").focus()
    opened.page.keyboard.type("ROMEO:")
    opened.page.keyboard.press("Shift+Enter")
    opened.answer()
    reached: list[str] = []
    for _ in range(40):
        opened.page.keyboard.press("Shift+Tab")
        reached.append(opened.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))
        if "token by token" in reached[-1]:
            break
    assert "token by token" in reached[-1]
    opened.page.keyboard.press("ArrowRight")
    opened.page.locator(".card").get_by_text("could have come").wait_for()
    opened.page.get_by_role("tab", name="Write").focus()
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    opened.page.locator("#to-read textarea").wait_for()


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "**b** $x^2$ ${alert(1)} {{1}}"]
)
def test_hostile_text_is_shown_as_it_is(opened: Open, text: str) -> None:
    opened.write(text)
    opened.answer()
    assert opened.page.locator("#sheet .you .says").text_content() == text
    opened.tab("Read")
    opened.page.locator("#to-read textarea").fill(text)
    opened.button("Read").click()
    opened.page.get_by_text(f"{len(text)} tokens").wait_for()
    assert opened.page.locator("#sheet script, #sheet img, #reading script, #reading img, #reading b").count() == 0


def test_a_mistake_is_told_on_the_page(opened: Open) -> None:
    opened.write("x" * 20_001)
    alert = opened.page.locator("#line [role=alert]")
    alert.wait_for()
    assert "20,001 characters" in str(alert.text_content())
    assert len(opened.page.get_by_label("Your text").input_value()) == 20_001  # to be mended, not typed again


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LOOKS = [{}, {"color_scheme": "dark"}, PHONE, PHONE | {"color_scheme": "dark"}]


@pytest.mark.parametrize("opened", LOOKS, indirect=True, ids=["light", "dark", "phone", "dark phone"])
def test_nothing_overflows_and_axe_finds_no_serious_fault(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    opened.page.locator("#sheet .t").nth(5).click()
    opened.page.get_by_label("Shade the answer").check()
    opened.page.get_by_text("seed 1337.").wait_for()
    for tab in ("Write", "Read", "Attention"):
        opened.tab(tab)
        shown = {"Write": "#sheet .card table", "Read": "#reading .t", "Attention": "#attention rect"}
        opened.page.locator(shown[tab]).first.wait_for()
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert opened.faults() == []

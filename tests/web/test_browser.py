"""The page in Chromium, by mouse, touch and keyboard, wide and narrow; no request leaves the machine."""

import io
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -c requirements.lock -e '.[web]'")
pytest.importorskip("playwright", reason="needs Playwright: pip install -c requirements.lock -e '.[test]'")

from PIL import Image

from tests.visiting import browser, chromium, served, until
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.generation.generate import generate_ids
from tinygpt.web.service import MAX_CONCURRENT, Service

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a browser: apt-get install chromium")
SERIOUS = {"serious", "critical"}
AnyOpen = TypeVar("AnyOpen", bound="Open")


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Service]]:
    """A page with two models; the second predicts with flatter probabilities."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("site"))
    shutil.copytree(model_folder, "data/model")
    model, tokenizer = load(model_folder)
    model.head.weight.data *= 0.9
    lineage = json.loads((model_folder / "lineage.json").read_text(encoding="utf-8"))
    save_model(Path("finetune/data/model"), model.config, model.state_dict(), tokenizer, lineage)
    with served() as both:
        yield both
    os.chdir(before)


class Open:
    """A page in the browser, with a list of all its requests."""

    def __init__(self, window: Any, address: str, **how: Any) -> None:
        self.context = window.new_context(**({"viewport": {"width": 1280, "height": 860}} | how))
        self.page, self.requests, self.errors = self.context.new_page(), list[str](), list[str]()
        self.context.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        self.page.goto(address)
        self.page.get_by_text("parameters").wait_for()

    def write(self, text: str) -> None:
        self.page.get_by_label("Your text").fill(text)
        self.button("Write").click()

    def fill_and_press(self, box: str, text: str, button: str, done: Callable[[], bool]) -> bool:
        """Fill a box and press a button until it works. On a busy machine the click can precede the page's update after
        the fill, which happens too fast for a person.
        """

        def once() -> bool:
            self.page.locator(box).fill(text)
            self.button(button).click()
            return until(done, 5)

        return until(once)

    def button(self, name: str) -> Any:
        return self.page.get_by_role("button", name=name, exact=True)

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def answer(self, number: int = 1) -> str:
        """The text of a finished answer."""
        tokens = self.page.get_by_label(f"Answer {number}, token by token")
        tokens.wait_for()
        return str(tokens.text_content())

    def edge(self) -> float:
        """The left edge of the content, in pixels."""
        return float(self.page.locator("h1").bounding_box()["x"])

    def is_at_its_end(self) -> bool:
        """Whether the conversation is scrolled to its end."""
        text = self.page.locator("#text")
        return bool(text.evaluate("text => text.scrollHeight - text.clientHeight - text.scrollTop < 2"))

    def faults(self) -> list[str]:
        from axe_playwright_python.sync_playwright import Axe

        found = Axe().run(self.page).response["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html'][:120]}" for one in found if one["impact"] in SERIOUS]


def visited(one: AnyOpen, address: str) -> Iterator[AnyOpen]:
    """A page for a test; after it, asserts that the page had no error and sent no request to another address."""
    yield one
    one.context.close()
    assert one.errors == []
    assert [url for url in one.requests if not url.startswith((address, "data:", "blob:"))] == []


@pytest.fixture
def opened(window: Any, site: tuple[str, Service], request: pytest.FixtureRequest) -> Iterator[Open]:
    """The page. After the test, asserts that it had no error and sent no request elsewhere."""
    yield from visited(Open(window, site[0], **getattr(request, "param", {})), site[0])


@pytest.fixture
def resume(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Pauses every answer after three tokens until the event is set."""
    go = threading.Event()

    def generate(*what: Any) -> Iterator[Any]:
        for count, step in enumerate(generate_ids(*what)):
            while count >= 3 and not go.wait(0.02):
                yield step
            yield step

    monkeypatch.setattr("tinygpt.web.service.generate_ids", generate)
    monkeypatch.setattr("tinygpt.web.service.UPDATE_SECONDS", 0.0)
    yield go
    go.set()


def test_typed_text_is_continued_and_the_same_seed_gives_the_same_text(opened: Open) -> None:
    opened.write("ROMEO:")
    first = opened.answer()
    assert len(first) > 20
    opened.button("Clear").click()
    opened.page.get_by_text("Write the beginning of a text").wait_for()
    opened.write("ROMEO:")
    assert opened.answer() == first
    opened.button("Retry").click()
    opened.page.get_by_text("seed 1338.").wait_for()
    assert opened.answer() != first
    assert opened.page.get_by_label("Seed", exact=True).input_value() == "1338"
    opened.button("Undo").click()
    opened.page.get_by_text("Write the beginning of a text").wait_for()
    assert opened.page.get_by_label("Your text").input_value() == "ROMEO:"
    assert [opened.button(name).is_enabled() for name in ("Retry", "Undo", "Clear")] == [False] * 3


def test_a_conversation_stays_scrolled_to_its_end_and_survives_a_reload_until_it_is_cleared(
    window: Any, site: tuple[str, Service]
) -> None:
    opened = Open(window, site[0], viewport={"width": 1280, "height": 560})  # too low to show all of it
    opened.write("ROMEO:")
    opened.answer()
    opened.write("\nJULIET:")
    assert len(opened.answer(2)) > 20
    assert until(opened.is_at_its_end)
    text, shown = opened.page.locator("#text"), opened.page.locator("#turns")
    assert text.evaluate("text => text.scrollHeight > 1.3 * text.clientHeight")
    for width in (390, 1280):  # the text wraps differently
        opened.page.set_viewport_size({"width": width, "height": 560})
        assert until(opened.is_at_its_end)
    for number in (2, 1):  # every answer has token details
        token = opened.page.get_by_label(f"Answer {number}, token by token").locator(".t").nth(5)
        token.click()
        assert token.get_attribute("aria-selected") == "true"
        assert opened.page.locator("#conversation [aria-selected=true]").count() == 1
    assert not opened.is_at_its_end()  # the page scrolled up to the first answer
    place = text.evaluate("text => text.scrollTop")
    opened.page.set_viewport_size({"width": 900, "height": 560})
    assert text.evaluate("text => text.scrollTop") == place
    opened.page.set_viewport_size({"width": 1280, "height": 560})
    before = shown.text_content()
    opened.page.reload()
    opened.answer(2)
    assert shown.text_content() == before
    assert until(opened.is_at_its_end)
    opened.button("Clear").click()
    opened.page.get_by_text("Write the beginning of a text").wait_for()
    opened.page.locator("#card .hint").wait_for()  # instead of details of a removed token
    opened.page.reload()
    opened.page.get_by_text("parameters").wait_for()
    opened.page.get_by_text("Write the beginning of a text").wait_for()
    opened.context.close()
    assert opened.errors == []


def test_text_streams_and_stop_frees_the_worker_at_once(
    opened: Open, site: tuple[str, Service], resume: threading.Event
) -> None:
    opened.write("ROMEO:")
    opened.page.locator("#conversation .caret").wait_for()  # in the middle of the answer
    assert until(lambda: site[1].running == 1)
    assert [opened.button(name).is_enabled() for name in ("Write", "Retry", "Undo", "Clear")] == [False] * 4
    opened.button("Stop").click()
    assert until(lambda: site[1].running == 0, seconds=1)
    opened.page.get_by_text("; stopped.").wait_for()
    assert opened.button("Stop").is_disabled()
    assert opened.answer()


@pytest.mark.slow
def test_a_queued_request_can_be_stopped(
    window: Any, opened: Open, site: tuple[str, Service], resume: threading.Event
) -> None:
    others = [Open(window, site[0]) for _ in range(MAX_CONCURRENT)]
    for other in others:
        other.write("ROMEO:")
    assert until(lambda: site[1].running == MAX_CONCURRENT)
    opened.write("JULIET:")
    opened.page.get_by_text("Waiting in the queue").wait_for()
    opened.button("Stop").click()
    opened.page.get_by_text("Stopped before the first token.").wait_for()
    assert opened.button("Stop").is_disabled()
    assert opened.button("Write").is_enabled()
    for other in others:
        other.context.close()
    resume.set()
    assert until(lambda: site[1].running == 0, seconds=20)
    opened.write("HAMLET:")
    assert opened.answer(2)


def test_closing_the_page_frees_the_worker(window: Any, site: tuple[str, Service], resume: threading.Event) -> None:
    one = Open(window, site[0])
    one.write("ROMEO:")
    assert until(lambda: site[1].running == 1)
    one.context.close()
    assert until(lambda: site[1].running == 0, seconds=20)


def test_sliders_change_what_is_written(opened: Open) -> None:
    opened.page.get_by_label("number input for Temperature").fill("0")
    opened.page.get_by_label("number input for Max new tokens").fill("12")
    opened.write("ROMEO:")
    assert len(opened.answer()) == 12  # characters are tokens here
    opened.page.get_by_text("12 tokens, seed 1337.").wait_for()
    opened.page.locator("#conversation .t").nth(4).click()
    assert opened.page.locator(".card").get_by_text("100% after sampling settings").is_visible()
    assert opened.page.locator(".card .removed").count() == 7


def test_token_details_open_by_pointing_clicking_and_keys(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    tokens, card = opened.page.locator("#conversation .t"), opened.page.locator("#conversation .card")
    tokens.nth(6).hover()
    card.get_by_text("after settings", exact=True).wait_for()
    assert card.locator("tbody tr").count() in (8, 9)
    rank = card.locator("tbody .target .rank").text_content()
    assert f"rank {rank} of" in str(card.text_content())  # also if it is not among the eight
    tokens.nth(3).click()
    assert tokens.nth(3).get_attribute("aria-selected") == "true"
    opened.page.locator("#conversation .tokens").press("ArrowRight")
    assert tokens.nth(4).get_attribute("aria-selected") == "true"
    assert opened.page.locator("#conversation .tokens").get_attribute("aria-activedescendant") == "conversation-token"
    opened.page.locator("#conversation .tokens").press("End")
    assert tokens.last.get_attribute("aria-selected") == "true"


def test_a_pasted_text_is_shaded_and_its_attention_map_is_drawn(opened: Open) -> None:
    opened.tab("Surprisal")
    scored = opened.page.locator("#scored-text")
    scored.locator(".t").first.wait_for()  # of the example text
    assert not opened.button("Use generated text").is_enabled()  # there is none yet
    summary = opened.page.get_by_text("over 21 tokens (21 bytes)")
    assert opened.fill_and_press("#to-score textarea", "But, soft! what light", "Score", summary.is_visible)
    shades = opened.page.locator("#scored-text .t[style]").evaluate_all(
        "all => all.map(t => t.style.getPropertyValue('--s'))"
    )
    assert len(set(shades)) > 5
    opened.page.locator("#to-score textarea").fill("But")
    assert until(lambda: scored.locator(".t").count() == 0)  # the shaded text no longer matches
    opened.tab("Attention")
    rectangles = opened.page.locator("#attention rect")
    assert opened.fill_and_press("#to-map textarea", "But, soft", "Show", lambda: rectangles.count() == 45)
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
    written = "ROMEO:" + opened.answer().replace("↵", "\n", 1)  # the mark of a line break at the beginning
    assert "--model finetune/data/model" in str(opened.page.locator(".command").text_content())
    opened.tab("Surprisal")
    opened.button("Use generated text").click()
    scored = opened.page.get_by_label("The text, token by token")
    assert until(lambda: scored.text_content() == written)
    before = scored.inner_html()
    opened.page.get_by_role("combobox", name="Model").click()
    opened.page.get_by_role("option", name="data/model", exact=True).click()
    assert until(lambda: scored.count() == 1 and scored.inner_html() != before)  # scored by the model chosen now
    assert scored.text_content() == written


def test_the_page_works_with_the_keyboard_alone(opened: Open) -> None:
    opened.page.get_by_label("Your text").focus()
    opened.page.keyboard.type("ROMEO:")
    opened.page.keyboard.press("Shift+Enter")
    opened.page.keyboard.type("O")
    keys = opened.context.new_cdp_session(opened.page)  # the Enter that ends a composition, as Safari sends it
    keys.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    keys.send("Input.dispatchKeyEvent", {"type": "char", "key": "Enter", "text": "\r"})
    assert until(
        lambda: opened.page.get_by_label("Your text").input_value() == "ROMEO:\nO\n"
    )  # and nothing is submitted
    opened.page.keyboard.type("!")
    opened.page.keyboard.press("Enter")
    opened.answer()
    assert opened.page.locator("#conversation .visitor .said").all_text_contents() == ["ROMEO:\nO\n!"]
    reached: list[str] = []
    for _ in range(40):
        opened.page.keyboard.press("Shift+Tab")
        reached.append(opened.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))
        if "token by token" in reached[-1]:
            break
    assert "token by token" in reached[-1]
    opened.page.keyboard.press("ArrowRight")
    opened.page.locator("#card").get_by_text("after settings", exact=True).wait_for()
    opened.page.get_by_role("tab", name="Write").focus()
    opened.page.keyboard.press("Tab")
    opened.page.keyboard.press("Enter")
    opened.page.locator("#to-score textarea").wait_for()


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "**b** $x^2$ ${alert(1)} {{1}}"]
)
def test_hostile_text_is_shown_as_it_is(opened: Open, text: str) -> None:
    opened.write(text)
    opened.answer()
    assert opened.page.locator("#conversation .visitor .said").text_content() == text
    opened.tab("Surprisal")
    opened.page.locator("#to-score textarea").fill(text)
    opened.button("Score").click()
    opened.page.get_by_text(f"{len(text)} tokens").wait_for()
    assert (
        opened.page.locator(
            "#conversation script, #conversation img, #scored-text script, #scored-text img, #scored-text b"
        ).count()
        == 0
    )


def test_an_error_is_shown_on_the_page(opened: Open) -> None:
    opened.write("x" * 20_001)
    alert = opened.page.locator("#status [role=alert]")
    alert.wait_for()
    assert "20,001 characters" in str(alert.text_content())
    assert len(opened.page.get_by_label("Your text").input_value()) == 20_001  # kept, to be edited


def contrast_of_knob(slider: Any) -> float:
    """The contrast ratio (WCAG 2.2) between the knob of a slider at its minimum and its surroundings."""
    box = slider.bounding_box()
    around = {"x": box["x"] - 4, "y": box["y"] - 4, "width": 12 + 4, "height": box["height"] + 8}
    picture = Image.open(io.BytesIO(slider.page.screenshot(clip=around))).convert("RGB")
    wide, high = picture.size
    inside, outside = (luminance(picture.getpixel(at)) for at in ((wide * 3 // 4, high // 2), (1, 1)))
    return (max(inside, outside) + 0.05) / (min(inside, outside) + 0.05)


def luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.slow
def test_the_content_does_not_shift_in_any_tab_or_state(opened: Open, resume: threading.Event) -> None:
    opened.page.get_by_label("number input for Max new tokens").fill("1000")
    edges: dict[int, set[float]] = {390: set(), 800: set(), 1280: set(), 1920: set()}

    def measure() -> None:
        for width, found in edges.items():
            opened.page.set_viewport_size({"width": width, "height": 860})
            found.add(opened.edge())

    measure()
    opened.write("ROMEO:")
    opened.page.locator("#conversation .caret").wait_for()
    measure()
    resume.set()
    opened.answer()
    opened.page.locator("#conversation .t").nth(5).click()
    measure()
    for tab, shown in {
        "Surprisal": "#scored-text .t",
        "Attention": "#attention rect",
        "Write": "#conversation .t",
    }.items():
        opened.tab(tab)
        measure()
        opened.page.locator(shown).first.wait_for()
        measure()
    assert {width: len(found) for width, found in edges.items()} == dict.fromkeys(edges, 1)


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DISPLAYS = [{}, {"color_scheme": "dark"}, PHONE, PHONE | {"color_scheme": "dark"}]


@pytest.mark.parametrize("opened", DISPLAYS, indirect=True, ids=["light", "dark", "phone", "dark phone"])
def test_nothing_overflows_and_axe_finds_no_serious_fault(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    opened.page.locator("#conversation .t").nth(5).click()
    opened.page.get_by_label("Shade tokens").check()
    opened.page.get_by_text("seed 1337.").wait_for()
    assert (
        contrast_of_knob(opened.page.locator("#settings input[type=range]").nth(3)) >= 3
    )  # min-p is at its minimum, 0
    for tab in ("Write", "Surprisal", "Attention"):
        opened.tab(tab)
        shown = {"Write": "#conversation .card table", "Surprisal": "#scored-text .t", "Attention": "#attention rect"}
        opened.page.locator(shown[tab]).first.wait_for()
        visible_text = str(opened.page.evaluate("document.body.innerText"))
        if opened.page.evaluate("matchMedia('(hover: none)').matches"):
            assert not re.search(r"Shift|[Pp]oint|[Cc]lick|[Kk]eyboard|← and →", visible_text)
            box = opened.page.locator("textarea:visible")
            box.fill("a")
            box.press("Enter")  # a touch keyboard has no Shift+Enter
            assert box.input_value() == "a\n"
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        background = "getComputedStyle(document.{}).backgroundColor"  # the page, and the scroll bar's gutter
        assert opened.page.evaluate(background.format("body")) == opened.page.evaluate(
            background.format("documentElement")
        )
        assert opened.faults() == []

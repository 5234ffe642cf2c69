"""The page in a real browser: by mouse, touch and keyboard, wide and narrow, with nothing that leaves the machine."""

import io
import json
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs Gradio: pip install -c requirements.lock -e '.[web]'")
pytest.importorskip("playwright", reason="needs Playwright: pip install -c requirements.lock -e '.[test]'")

from PIL import Image

from tests.visiting import browser, chromium, served, until
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.generation.generate import generate_ids
from tinygpt.web.app import AT_ONCE
from tinygpt.web.service import Serving

pytestmark = pytest.mark.skipif(chromium() is None, reason="needs a browser: apt-get install chromium")
SERIOUS = {"serious", "critical"}


@pytest.fixture(scope="module")
def window() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def site(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Serving]]:
    """A page with two models, the second of which is less sure of itself."""
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

    def answer(self, number: int = 1) -> str:
        """An answer, once it is whole, and no other is being written."""
        tokens = self.page.get_by_label(f"Answer {number}, token by token")
        tokens.wait_for()
        return str(tokens.text_content())

    def edge(self) -> float:
        """Where the page begins, in pixels from the left."""
        return float(self.page.locator("h1").bounding_box()["x"])

    def is_at_its_end(self) -> bool:
        """Whether the last line of the conversation is in view."""
        text = self.page.locator("#text")
        return bool(text.evaluate("text => text.scrollHeight - text.clientHeight - text.scrollTop < 2"))

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

    monkeypatch.setattr("tinygpt.web.service.generate_ids", generate)
    monkeypatch.setattr("tinygpt.web.service.PACE", 0.0)
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
    assert opened.page.get_by_label("Seed", exact=True).input_value() == "1338"
    opened.button("Undo").click()
    opened.page.get_by_text("Write how a text begins").wait_for()
    assert opened.page.get_by_label("Your text").input_value() == "ROMEO:"
    assert [opened.button(name).is_enabled() for name in ("Retry", "Undo", "Clear")] == [False] * 3


def test_a_conversation_stays_in_view_and_outlives_a_reload_until_it_is_cleared(
    window: Any, site: tuple[str, Serving]
) -> None:
    opened = Open(window, site[0], viewport={"width": 1280, "height": 560})  # too low for all of it
    opened.write("ROMEO:")
    opened.answer()
    opened.write("\nJULIET:")
    assert len(opened.answer(2)) > 20
    assert until(opened.is_at_its_end)
    text, shown = opened.page.locator("#text"), opened.page.locator("#past")
    assert text.evaluate("text => text.scrollHeight > 1.3 * text.clientHeight")
    for width in (390, 1280):  # the same text takes more lines, or fewer
        opened.page.set_viewport_size({"width": width, "height": 560})
        assert until(opened.is_at_its_end)
    for number in (2, 1):  # every answer's tokens open
        token = opened.page.get_by_label(f"Answer {number}, token by token").locator(".t").nth(5)
        token.click()
        assert token.get_attribute("aria-selected") == "true"
        assert opened.page.locator("#sheet [aria-selected=true]").count() == 1
    assert not opened.is_at_its_end()  # its reader scrolled up, to the first answer
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
    opened.page.get_by_text("Write how a text begins").wait_for()
    opened.page.locator("#card .hint").wait_for()  # and not the token of an answer that is gone
    opened.page.reload()
    opened.page.get_by_text("parameters").wait_for()
    opened.page.get_by_text("Write how a text begins").wait_for()
    opened.context.close()
    assert opened.errors == []


def test_text_streams_and_stop_frees_the_worker_at_once(
    opened: Open, site: tuple[str, Serving], slowly: threading.Event
) -> None:
    opened.write("ROMEO:")
    opened.page.locator("#sheet .caret").wait_for()  # there is text, and the answer is not over
    assert until(lambda: site[1].running == 1)
    assert [opened.button(name).is_enabled() for name in ("Write", "Retry", "Undo", "Clear")] == [False] * 4
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
    assert opened.answer(2)


def test_closing_the_page_frees_the_worker(window: Any, site: tuple[str, Serving], slowly: threading.Event) -> None:
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
    opened.page.locator("#sheet .t").nth(4).click()
    assert opened.page.locator(".card").get_by_text("100% after sampling settings").is_visible()
    assert opened.page.locator(".card .cut").count() == 7


def test_a_token_opens_by_pointing_clicking_and_keys(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    tokens, card = opened.page.locator("#sheet .t"), opened.page.locator("#sheet .card")
    tokens.nth(6).hover()
    card.get_by_text("after sampling", exact=True).wait_for()
    assert card.locator("tbody tr").count() in (8, 9)
    rank = card.locator("tbody .came .rank").text_content()
    assert f"rank {rank} of" in str(card.text_content())  # also where it is not among the eight
    tokens.nth(3).click()
    assert tokens.nth(3).get_attribute("aria-selected") == "true"
    opened.page.locator("#sheet .tokens").press("ArrowRight")
    assert tokens.nth(4).get_attribute("aria-selected") == "true"
    assert opened.page.locator("#sheet .tokens").get_attribute("aria-activedescendant") == "sheet-token"
    opened.page.locator("#sheet .tokens").press("End")
    assert tokens.last.get_attribute("aria-selected") == "true"


def test_a_pasted_text_is_shaded_and_an_attention_map_is_drawn(opened: Open) -> None:
    opened.tab("Surprisal")
    reading = opened.page.locator("#reading")
    reading.locator(".t").first.wait_for()  # of the model's own example
    assert not opened.button("Use generated text").is_enabled()  # there is none yet
    told = opened.page.get_by_text("over 21 tokens (21 bytes)")
    assert opened.asks("#to-score textarea", "But, soft! what light", "Score", told.is_visible)
    shades = opened.page.locator("#reading .t[style]").evaluate_all(
        "all => all.map(t => t.style.getPropertyValue('--s'))"
    )
    assert len(set(shades)) > 5
    opened.page.locator("#to-score textarea").fill("But")
    assert until(lambda: reading.locator(".t").count() == 0)  # what was shown is of another text
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
    written = "ROMEO:" + opened.answer().replace("↵", "\n", 1)  # its mark for a line break at the beginning
    assert "--model finetune/data/model" in str(opened.page.locator(".command").text_content())
    opened.tab("Surprisal")
    opened.button("Use generated text").click()
    read = opened.page.get_by_label("The text, token by token")
    assert until(lambda: read.text_content() == written)
    before = read.inner_html()
    opened.page.get_by_role("combobox", name="Model").click()
    opened.page.get_by_role("option", name="data/model", exact=True).click()
    assert until(lambda: read.count() == 1 and read.inner_html() != before)  # read by the model that is chosen now
    assert read.text_content() == written


def test_all_of_it_can_be_done_with_the_keyboard_alone(opened: Open) -> None:
    opened.page.get_by_label("Your text").focus()
    opened.page.keyboard.type("ROMEO:")
    opened.page.keyboard.press("Shift+Enter")
    opened.page.keyboard.type("O")
    keys = opened.context.new_cdp_session(opened.page)  # the Enter that ends a composition, as Safari sends it
    keys.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    keys.send("Input.dispatchKeyEvent", {"type": "char", "key": "Enter", "text": "\r"})
    assert until(lambda: opened.page.get_by_label("Your text").input_value() == "ROMEO:\nO\n")  # and nothing is written
    opened.page.keyboard.type("!")
    opened.page.keyboard.press("Enter")
    opened.answer()
    assert opened.page.locator("#sheet .you .says").all_text_contents() == ["ROMEO:\nO\n!"]
    reached: list[str] = []
    for _ in range(40):
        opened.page.keyboard.press("Shift+Tab")
        reached.append(opened.page.evaluate("document.activeElement.getAttribute('aria-label') ?? ''"))
        if "token by token" in reached[-1]:
            break
    assert "token by token" in reached[-1]
    opened.page.keyboard.press("ArrowRight")
    opened.page.locator("#card").get_by_text("after sampling", exact=True).wait_for()
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
    assert opened.page.locator("#sheet .you .says").text_content() == text
    opened.tab("Surprisal")
    opened.page.locator("#to-score textarea").fill(text)
    opened.button("Score").click()
    opened.page.get_by_text(f"{len(text)} tokens").wait_for()
    assert opened.page.locator("#sheet script, #sheet img, #reading script, #reading img, #reading b").count() == 0


def test_a_mistake_is_told_on_the_page(opened: Open) -> None:
    opened.write("x" * 20_001)
    alert = opened.page.locator("#line [role=alert]")
    alert.wait_for()
    assert "20,001 characters" in str(alert.text_content())
    assert len(opened.page.get_by_label("Your text").input_value()) == 20_001  # to be mended, not typed again


def contrast_of_knob(slider: Any) -> float:
    """Of a slider at its least, between the knob's middle and what surrounds it (WCAG 2.2)."""
    box = slider.bounding_box()
    around = {"x": box["x"] - 4, "y": box["y"] - 4, "width": 12 + 4, "height": box["height"] + 8}
    picture = Image.open(io.BytesIO(slider.page.screenshot(clip=around))).convert("RGB")
    wide, high = picture.size
    inside, outside = (luminance(picture.getpixel(at)) for at in ((wide * 3 // 4, high // 2), (1, 1)))
    return (max(inside, outside) + 0.05) / (min(inside, outside) + 0.05)


def luminance(colour: Any) -> float:
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (part / 255 for part in colour)]
    return sum(share * c for share, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.slow
def test_the_page_stays_where_it_is_in_every_tab_and_state(opened: Open, slowly: threading.Event) -> None:
    opened.page.get_by_label("number input for Max new tokens").fill("1000")
    edges: dict[int, set[float]] = {390: set(), 800: set(), 1280: set(), 1920: set()}

    def look() -> None:
        for width, found in edges.items():
            opened.page.set_viewport_size({"width": width, "height": 860})
            found.add(opened.edge())

    look()
    opened.write("ROMEO:")
    opened.page.locator("#sheet .caret").wait_for()
    look()
    slowly.set()
    opened.answer()
    opened.page.locator("#sheet .t").nth(5).click()
    look()
    for tab, shown in {"Surprisal": "#reading .t", "Attention": "#attention rect", "Write": "#sheet .t"}.items():
        opened.tab(tab)
        look()
        opened.page.locator(shown).first.wait_for()
        look()
    assert {width: len(found) for width, found in edges.items()} == dict.fromkeys(edges, 1)


PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
LOOKS = [{}, {"color_scheme": "dark"}, PHONE, PHONE | {"color_scheme": "dark"}]


@pytest.mark.parametrize("opened", LOOKS, indirect=True, ids=["light", "dark", "phone", "dark phone"])
def test_nothing_overflows_and_axe_finds_no_serious_fault(opened: Open) -> None:
    opened.write("ROMEO:")
    opened.answer()
    opened.page.locator("#sheet .t").nth(5).click()
    opened.page.get_by_label("Shade tokens").check()
    opened.page.get_by_text("seed 1337.").wait_for()
    assert (
        contrast_of_knob(opened.page.locator("#settings input[type=range]").nth(3)) >= 3
    )  # its least is 0, as it is set
    for tab in ("Write", "Surprisal", "Attention"):
        opened.tab(tab)
        shown = {"Write": "#sheet .card table", "Surprisal": "#reading .t", "Attention": "#attention rect"}
        opened.page.locator(shown[tab]).first.wait_for()
        told = str(opened.page.evaluate("document.body.innerText"))
        if opened.page.evaluate("matchMedia('(hover: none)').matches"):
            assert not re.search(r"Shift|[Pp]oint|[Cc]lick|[Kk]eyboard|← and →", told)
            box = opened.page.locator("textarea:visible")
            box.fill("a")
            box.press("Enter")  # of a keyboard without a Shift that could break the line
            assert box.input_value() == "a\n"
        assert opened.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = "getComputedStyle(document.{}).backgroundColor"  # of the page, and of the gutter of its scroll bar
        assert opened.page.evaluate(paper.format("body")) == opened.page.evaluate(paper.format("documentElement"))
        assert opened.faults() == []

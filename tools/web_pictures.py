"""Makes the pictures of docs/web.md: `python -m tools.web_pictures` serves data/model and takes screenshots.

`python -m tools.web_pictures chat` makes only that of the Chat tab. Needs `make`, `dvc repro chat/dvc.yaml`, the extras
web and test, and Debian's chromium.
"""

import io
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from tests.visiting import browser, served
from tinygpt.files.paths import Paths

FOLDER = Path(__file__).parents[1] / "docs/web"
WIDE: dict[str, Any] = {"viewport": {"width": 1240, "height": 840}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
DARK: dict[str, Any] = {"color_scheme": "dark"}


def main() -> None:
    with served(Paths(Path("chat")).model) as (address, _), browser() as window:
        take(window, address, "chat", WIDE, chat)
    if sys.argv[1:] == ["chat"]:
        return
    with served(Paths().model) as (address, _), browser() as window:
        take(window, address, "write", WIDE, write, 40)
        take(window, address, "dark", WIDE | DARK, write, 40)
        take(window, address, "phone", PHONE, write, 40)
        take(window, address, "surprisal", WIDE | {"viewport": {"width": 1240, "height": 900}}, surprisal)
        take(window, address, "attention", WIDE | {"viewport": {"width": 1240, "height": 1100}}, attention)
        take(window, address, "refused", WIDE, refused)


def take(window: Any, address: str, name: str, options: dict[str, Any], show: Any, *arguments: Any) -> None:
    """Take one picture of a new page. show: brings the page into the state to show."""
    context = window.new_context(**options)
    page = context.new_page()
    page.goto(address)
    page.get_by_text("parameters").wait_for()
    show(page, *arguments)
    page.wait_for_timeout(300)  # until animations have ended
    picture = Image.open(io.BytesIO(page.screenshot()))
    picture.quantize(128).save(FOLDER / f"{name}.png", optimize=True)  # a third of the bytes, no visible difference
    context.close()


def chat(page: Any) -> None:
    page.get_by_label("number input for Temperature").fill("0")
    texts = ("Who art thou?", "Sort these numbers: 41 7 23", "What is 58 + 37?")
    for number, text in enumerate(texts, 1):
        page.get_by_label("System message").fill("You are JULIET." if number == 1 else "")
        page.get_by_label("Your message").fill(text)
        page.get_by_role("button", name="Send", exact=True).click()
        page.get_by_label(f"Answer {number}, token by token").wait_for()
    page.get_by_label("Answer 3, token by token").locator(".t").first.click()


def write(page: Any, token: int) -> None:
    page.get_by_label("Shade tokens").check()
    for number, text in enumerate(("ROMEO:", "\n\nJULIET:"), 1):
        page.get_by_label("Your text").fill(text)
        page.get_by_role("button", name="Write", exact=True).click()
        page.get_by_label(f"Answer {number}, token by token").wait_for()
    page.get_by_label("Answer 2, token by token").locator(".t").nth(token).click()
    if page.viewport_size["width"] < 720:
        page.locator("#conversation").evaluate("area => area.scrollIntoView()")


def surprisal(page: Any) -> None:
    page.get_by_role("tab", name="Surprisal").click()
    page.locator("#scored-text .t").nth(12).click()


def attention(page: Any) -> None:
    page.get_by_role("tab", name="Attention").click()
    page.locator("#attention rect").first.wait_for()
    page.locator("#block label").nth(1).click()
    page.get_by_text("Block 2, head 1.").wait_for()
    page.locator("#head label").nth(2).click()
    page.get_by_text("Block 2, head 3.").wait_for()


def refused(page: Any) -> None:
    page.get_by_label("Your text").fill("ROMEO: " * 3000)
    page.get_by_role("button", name="Write", exact=True).click()
    page.locator("#status [role=alert]").wait_for()


if __name__ == "__main__":
    main()

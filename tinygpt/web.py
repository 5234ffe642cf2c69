"""The page in the browser: `tinygpt web`: write with a model, see every token's chances, look at attention.

`page(serving)` builds it with Gradio, `run(…)` serves it. All the work is done in serving.py, all HTML of texts made in
token_html.py, what events do stands in web_events.py, the looks and the keyboard in web_page/, and guarding.py before
it all.
Gradio's own checks of values are left out (preprocess=False): serving.py makes them, in sentences.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

# before Gradio is imported, which reads them: nothing is counted, kept for statistics, or told to anyone
os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OTEL_SDK_DISABLED": "true",  # FastAPI's
}

import fastapi
import gradio as gr
import uvicorn
from gradio.themes.utils.fonts import Font
from gradio.utils import LRUCache

from tinygpt import token_html
from tinygpt.asking import BOUNDS, DEFAULTS
from tinygpt.guarding import LOOPBACK, Guard, is_loopback
from tinygpt.serving import VISITORS, Serving
from tinygpt.web_events import Page

FOLDER = Path(__file__).parent / "web_page"
AT_ONCE = 2  # answers written, or texts read, at the same time
WAITING = 64  # that may wait for their turn; more are told to come again
CONNECTIONS = 400  # open at a time
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # what the visitor's own system has
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = (
    "<h1>TinyGPT</h1><p>A small language model to look into. It completes a text, token by token; "
    "it does not answer questions.</p>"
)
EXAMPLE = "ROMEO:\nBut, soft! what light through yonder window breaks?\nIt is the east, and Juliet is the sun."
INFO = {
    "temperature": "0 takes the likeliest",
    "top-k": "0 keeps all",
    "top-p": "1 keeps all",
    "min-p": "0 keeps all",
    "length": "tokens, at most",
}
STEPS = {"temperature": 0.05, "top-k": 1, "top-p": 0.01, "min-p": 0.01, "length": 1}
START = {name: DEFAULTS[name.replace("-", "_").replace("length", "max_new_tokens")] for name in BOUNDS}


def page(serving: Serving) -> gr.Blocks:
    """The page, its parts in the order in which they are read."""
    does, names = Page(serving), list(serving.shelf.find())
    with gr.Blocks(title="TinyGPT", analytics_enabled=False, fill_width=True) as blocks:
        with gr.Row(elem_id="top"):
            html(TITLE, "title")
            with gr.Column(elem_id="which", min_width=280):
                model = gr.Dropdown(names, value=names[0], label="Model", filterable=False)
                about = html(token_html.sentence(""), "about")
        with gr.Tabs():
            with gr.Tab("Write"):
                write_tab(does, model)
            with gr.Tab("Read") as tab:
                read_tab(does, model, tab)
            with gr.Tab("Attention") as tab:
                block, head = attention_tab(does, model, tab)
        on(blocks.load, does.refresh, [], [model, about, block, head], heavy=True)
        on(model.input, does.choose, [model], [about, block, head], heavy=True)
        blocks.unload(does.leave)
    blocks.queue(max_size=WAITING, api_open=False)
    blocks.state_session_capacity = VISITORS
    blocks._queue.pending_messages_per_session = LRUCache(VISITORS)  # answers that nobody fetched; Gradio keeps 2,000
    return blocks


def write_tab(does: Page, model: gr.Dropdown) -> None:
    """What was written, where to write on, and how the next token is chosen."""
    with gr.Row(elem_classes="wide"):
        with gr.Column(scale=7, min_width=320):
            sheet = html(token_html.transcript([]), "sheet")
            line = html(token_html.sentence(""), "line")
            box = gr.Textbox(
                label="Your text",
                info="Put right after what stands above. Empty: the model goes on. Shift+Enter writes.",
                placeholder="ROMEO:",
                lines=2,
                max_lines=8,
                elem_id="box",
            )
            with gr.Row(elem_classes="buttons"):
                write, stop = button("Write", variant="primary"), button("Stop", interactive=False)
                again, undo, clear = button("Retry"), button("Undo"), button("Clear")
        with gr.Column(scale=2, min_width=250, elem_id="settings"):
            html("<h2>How a token is chosen</h2>")
            sliders = [
                gr.Slider(*BOUNDS[name][:2], START[name], step=step, label=name, info=INFO[name], buttons=[])
                for name, step in STEPS.items()
            ]
            seed = gr.Number(START["seed"], label="seed", info="same seed, same text", precision=0)
            shades = gr.Checkbox(label="Shade the answer by surprise")
    settings, both = [*sliders, seed], [write, stop]
    for start in (write.click, box.submit):
        begun = on(start, does.begin, [box, model, *settings], [sheet, line, box, *both])
        on(begun.then, does.write, [], [sheet, line, *both], heavy=True)
    begun = on(again.click, does.again, [model, *settings], [sheet, line, seed, *both])
    on(begun.then, does.write, [], [sheet, line, *both], heavy=True)
    on(stop.click, does.stop, [], [line, *both])
    on(undo.click, does.undo, [], [sheet, line, box])
    on(clear.click, does.clear, [], [sheet, line])
    shades.input(None, [shades], js="on => { document.body.classList.toggle('shaded', on); return []; }")


def read_tab(does: Page, model: gr.Dropdown, tab: gr.Tab) -> None:
    """A text of the visitor's own, shaded by surprisal."""
    text = gr.Textbox(
        EXAMPLE, label="A text to be read", info="Of each token the shade says how many bits it told the model.",
        lines=4, max_lines=12, elem_id="to-read",
    )  # fmt: skip
    with gr.Row(elem_classes="buttons"):
        read, take = button("Read", variant="primary"), button("Take what was written", min_width=210)
    shown = html("", "reading")
    on(take.click, does.written, [], [text])
    for start in (read.click, text.submit, tab.select):
        on(start, does.read, [text, model], [shown], heavy=True)


def attention_tab(does: Page, model: gr.Dropdown, tab: gr.Tab) -> tuple[gr.Radio, gr.Radio]:
    """Where one head looks; returns the choices of block and head."""
    text = gr.Textbox(
        EXAMPLE,
        label="A text to be read",
        info="The map is of its first tokens.",
        lines=3,
        max_lines=8,
        elem_id="to-map",
    )
    with gr.Row(elem_classes="buttons"):
        show, take = button("Show", variant="primary"), button("Take what was written", min_width=210)
    with gr.Row(elem_classes="choices"):
        block, head = (gr.Radio([1], value=1, label=name, elem_id=name) for name in ("block", "head"))
    shown = html("", "attention")
    on(take.click, does.written, [], [text])
    for start in (show.click, text.submit, block.input, head.input, tab.select):
        on(start, does.attend, [text, model, block, head], [shown], heavy=True)
    return block, head


def html(value: str, name: str = "") -> gr.HTML:
    return gr.HTML(value, elem_id=name or None, js_on_load=None, apply_default_css=False)


def button(name: str, min_width: int = 84, **how: Any) -> gr.Button:
    return gr.Button(name, size="md", scale=0, min_width=min_width, **how)


def on(event: Any, does: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], heavy: bool = False) -> Any:
    """Bind an event. heavy: it asks a model, so it waits for one of the AT_ONCE places; others are answered at once."""
    places: Any = {"concurrency_limit": AT_ONCE, "concurrency_id": "model"} if heavy else {"queue": False}
    return event(
        does, list(inputs), list(outputs), preprocess=False, show_progress="hidden", api_visibility="private", **places
    )


def looks() -> gr.themes.Base:
    """Gradio's plainest theme, with no font that would have to be fetched; the rest is in page.css."""
    fonts, fixed = [Font(name) for name in SANS], [Font(name) for name in MONO]
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=fixed)


def app(serving: Serving, password: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK) -> Guard:
    """The page behind its guard, as an ASGI app."""
    blocks = page(serving)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    off: Any = dict.fromkeys(("run_history", "ssr_mode", "enable_monitoring", "mcp_server", "pwa"), False)
    inner = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None), blocks, "/", footer_links=[], max_file_size=1,
        theme=looks(), css_paths=FOLDER / "page.css", head=f"<script>{script}</script>", **off,
    )  # fmt: skip
    takes = {number: len(event.inputs) for number, event in blocks.fns.items() if event.fn}
    return Guard(inner, takes, password, hosts)


def run(serving: Serving, host: str, port: int, password: str | None, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C. ValueError, in a sentence, where the port is taken or the host is not ours."""
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        raise ValueError(
            f"Nothing can listen at {host}, port {port} ({problem.strerror}). Try another --port, or another --host."
        ) from None
    guarded = app(serving, password, (*LOOPBACK, host) if is_loopback(host) else None)
    config = uvicorn.Config(guarded, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1)
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listening.getsockname()[1]}")
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended well by then
        uvicorn.Server(config).run(sockets=[listening])

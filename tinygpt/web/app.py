"""The web page, `tinygpt web`: generate text, see each token's probabilities, view attention.

`page(serving)` builds it with Gradio, `run(…)` serves it. All the work is done in service.py, all HTML of texts made in
token_html.py, what events do stands in handlers.py, the looks and the keyboard in static/, and middleware.py before
it all.
Gradio's own checks of values are left out (preprocess=False): service.py makes them, in sentences.
"""

import contextlib
import hashlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
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

from tinygpt.web import token_html
from tinygpt.web.handlers import Page
from tinygpt.web.middleware import LOOPBACK, SecurityMiddleware, is_loopback
from tinygpt.web.requests import BOUNDS, DEFAULTS, titled
from tinygpt.web.service import VISITORS, Serving

FOLDER = Path(__file__).parent / "static"
AT_ONCE = 2  # answers written, or texts read, at the same time
WAITING = 64  # that may wait for their turn; more are told to come again
CONNECTIONS = 400  # open at a time
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # what the visitor's own system has
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = (
    "<h1>TinyGPT</h1><p>Look inside a small language model. It continues a text, token by token; "
    "it does not answer questions.</p>"
)
KEYS = (
    '<p class="hint">It is added right after the text above; left empty, the model just continues. '
    '<span class="pointed">Enter writes, Shift+Enter breaks the line.</span></p>'
)
INFO = {
    "temperature": "0: always the likeliest",
    "top-k": "0: off",
    "top-p": "1: off",
    "min-p": "0: off",
    "max new tokens": "of one answer",
}
STEPS = {"temperature": 0.05, "top-k": 1, "top-p": 0.01, "min-p": 0.01, "max new tokens": 1}
START = {name: DEFAULTS[name.replace("-", "_").replace(" ", "_")] for name in BOUNDS}


class Parts:
    """What several tabs share."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the models."""
        folder = hashlib.sha256(str(Path().resolve()).encode()).hexdigest()[:16]
        # a name and a key of its own for each project, so that another's page at the same address finds nothing
        self.kept = gr.BrowserState(None, storage_key=f"tinygpt-{folder}", secret=folder)
        self.model = gr.Dropdown(list(names), value=names[0], label="Model", filterable=False, render=False)
        self.box = textbox("Your text", 8, "box")
        self.to_score = textbox("Text to score", 12, "to-score")
        self.to_map = textbox("Text", 12, "to-map")
        self.sheet, self.live = html(token_html.transcript([]), "past", False), html("", "live", False)
        self.line = html(token_html.sentence(""), "line", False)
        self.write, self.stop = button("Write", variant="primary"), button("Stop", interactive=False)
        self.again, self.undo, self.clear = (button(name, interactive=False) for name in ("Retry", "Undo", "Clear"))
        self.uses = [button("Use generated text", min_width=180, interactive=False) for _ in range(2)]
        self.conversation = [  # in the order of Page.shown
            *(self.sheet, self.live, self.line, self.kept, self.write, self.stop),
            *(self.again, self.undo, self.clear, *self.uses),
        ]


def page(serving: Serving) -> gr.Blocks:
    """The page, its parts in the order in which they are read."""
    does, names = Page(serving), list(serving.models.find())
    with gr.Blocks(title="TinyGPT", analytics_enabled=False, fill_width=True) as blocks:
        parts = Parts(names)
        with gr.Row(elem_id="top"):
            html(TITLE, "title")
            with gr.Column(elem_id="which", min_width=280):
                put(parts.model)
                about = html(token_html.sentence(""), "about")
        with gr.Tabs():
            with gr.Tab("Write"):
                write_tab(does, parts)
            with gr.Tab("Surprisal") as tab:
                score = surprisal_tab(does, parts, tab)
            with gr.Tab("Attention") as tab:
                block, head, attend = attention_tab(does, parts, tab)
        suits = [about, block, head, parts.box, parts.to_score, parts.to_map]
        on(blocks.load, does.refresh, [parts.kept], [parts.model, *suits, *parts.conversation], heavy=True)
        inputs = [parts.kept, parts.model, parts.to_score, parts.to_map]
        instead(parts.model.input, about, token_html.sentence("Opening …"))
        chosen = on([parts.model.input], does.choose, inputs, [*suits, parts.sheet], heavy=True)
        for again in (score, attend):
            again(chosen.then)
        blocks.unload(does.leave)
    blocks.queue(max_size=WAITING, api_open=False)
    blocks.state_session_capacity = VISITORS
    blocks._queue.pending_messages_per_session = LRUCache(VISITORS)  # answers that nobody fetched; Gradio keeps 2,000
    return blocks


def write_tab(does: Page, parts: Parts) -> None:
    """What was written, where to write on, and how the next token is sampled."""
    with gr.Row(elem_classes="wide"):
        with gr.Column(scale=7, min_width=320):
            with gr.Row(elem_id="sheet", elem_classes="sheet"):
                with gr.Column(elem_id="text", elem_classes="text"):
                    put(parts.sheet, parts.live)
                html(token_html.card(), "card")
            put(parts.line, parts.box)
            html(KEYS, "keys")
            with gr.Row(elem_classes="buttons"):
                put(parts.write, parts.stop, parts.again, parts.undo, parts.clear)
        with gr.Column(scale=2, min_width=250, elem_id="settings"):
            html("<h2>Sampling</h2>")
            sliders = [
                gr.Slider(*BOUNDS[name][:2], START[name], step=step, label=titled(name), info=INFO[name], buttons=[])
                for name, step in STEPS.items()
            ]
            seed = gr.Number(START["seed"], label="Seed", info="same seed, same text", precision=0)
            shades = gr.Checkbox(label="Shade tokens by surprisal")
    bind_conversation(does, parts, [*sliders, seed])
    shades.input(None, [shades], js="on => { document.body.classList.toggle('shaded', on); return []; }")


def bind_conversation(does: Page, parts: Parts, settings: list[Any]) -> None:
    """What the buttons of the Write tab do, and the Enter key; settings: in the order of BOUNDS."""
    kept, shown = parts.kept, parts.conversation
    starts = [
        on(
            [parts.write.click, parts.box.submit],
            does.begin,
            [kept, parts.box, parts.model, *settings],
            [parts.box, *shown],
        ),
        on(parts.again.click, does.again, [kept, parts.model, *settings], [settings[-1], *shown]),
    ]
    for begun in starts:
        on(begun.then, does.write, [], shown, heavy=True)
    on(parts.stop.click, does.stop, [], shown)
    on(parts.undo.click, does.undo, [kept, parts.box], [parts.box, *shown])
    on(parts.clear.click, does.clear, [kept], shown)


def surprisal_tab(does: Page, parts: Parts, tab: gr.Tab) -> Callable[..., Any]:
    """A text of the visitor's own, shaded by surprisal; returns what binds an event to scoring it."""
    score, use = button("Score", variant="primary"), parts.uses[0]
    put(parts.to_score)
    with gr.Row(elem_classes="buttons"):
        put(score, use)
    shown = html("", "reading")

    def scores(event: Any) -> None:
        on(event, does.read, [parts.to_score, parts.model], [shown], heavy=True)

    scores([score.click, parts.to_score.submit, tab.select])
    scores(on(use.click, does.written, [parts.kept], [parts.to_score]).then)
    for event in (parts.to_score.change, parts.model.input):
        instead(event, shown)
    return scores


def attention_tab(does: Page, parts: Parts, tab: gr.Tab) -> tuple[gr.Radio, gr.Radio, Callable[..., Any]]:
    """Where one head attends to; returns the choices of block and head, and what binds an event to showing it."""
    show, use = button("Show", variant="primary"), parts.uses[1]
    put(parts.to_map)
    with gr.Row(elem_classes="buttons"):
        put(show, use)
    with gr.Row(elem_classes="choices"):
        block, head = (gr.Radio([1], value=1, label=titled(name), elem_id=name) for name in ("block", "head"))
    shown = html("", "attention")

    def shows(event: Any) -> None:
        on(event, does.attend, [parts.to_map, parts.model, block, head], [shown], heavy=True)

    shows([show.click, parts.to_map.submit, block.input, head.input, tab.select])
    shows(on(use.click, does.written, [parts.kept], [parts.to_map]).then)
    for event in (parts.to_map.change, parts.model.input):
        instead(event, shown)
    return block, head, shows


def instead(event: Any, shown: gr.HTML, value: str = "") -> None:
    """What is shown goes as soon as an event makes it stale; the browser does that by itself."""
    event(None, [], [shown], js=f"() => {json.dumps(value)}", show_progress="hidden")


def put(*parts: Any) -> None:
    """Components that were made before, in the place where they are shown."""
    for part in parts:
        part.render()


def textbox(label: str, most: int, name: str) -> gr.Textbox:
    """One that grows to `most` lines. Of one line to begin with, or Gradio's Enter would break the line."""
    return gr.Textbox("", label=label, lines=1, max_lines=most, elem_id=name, elem_classes="written", render=False)


def html(value: str, name: str = "", render: bool = True) -> gr.HTML:
    return gr.HTML(value, elem_id=name or None, js_on_load=None, apply_default_css=False, render=render)


def button(name: str, min_width: int = 84, **how: Any) -> gr.Button:
    return gr.Button(name, size="md", scale=0, min_width=min_width, render=False, **how)


def on(event: Any, does: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], heavy: bool = False) -> Any:
    """Bind an event, or several of which the last one counts. heavy: it asks a model, so it waits for one of the
    AT_ONCE places; others are answered at once.
    """
    places: Any = {"concurrency_limit": AT_ONCE, "concurrency_id": "model"} if heavy else {"queue": False}
    many: Any = {"trigger_mode": "always_last"} if heavy else {}
    bind = partial(gr.on, event, **many) if isinstance(event, list) else event
    return bind(
        does, list(inputs), list(outputs), preprocess=False, show_progress="hidden", api_visibility="private", **places
    )


def theme() -> gr.themes.Base:
    """Gradio's plainest theme, with no font that would have to be fetched; the rest is in page.css."""
    fonts, fixed = [Font(name) for name in SANS], [Font(name) for name in MONO]
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=fixed)


def app(serving: Serving, password: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK) -> SecurityMiddleware:
    """The page behind its guard, as an ASGI app."""
    blocks = page(serving)
    script = (FOLDER / "page.js").read_text(encoding="utf-8")
    off: Any = dict.fromkeys(("run_history", "ssr_mode", "enable_monitoring", "mcp_server", "pwa"), False)
    inner = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None), blocks, "/", footer_links=[], max_file_size=1,
        theme=theme(), css_paths=FOLDER / "page.css", head=f"<script>{script}</script>", **off,
    )  # fmt: skip
    takes = {number: len(event.inputs) for number, event in blocks.fns.items() if event.fn}
    return SecurityMiddleware(inner, takes, password, hosts)


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

"""The web page, `tinygpt web`: generate text, see each token's probabilities, view attention.

`page(service)` builds it with Gradio, and `run(…)` serves it. handlers.py handles its events, service.py does the work,
token_html.py makes the HTML of texts, static/ holds style and scripts, and middleware.py filters requests.
Gradio does not validate values here (preprocess=False): requests.py does, with sentences as errors.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

# Gradio reads these when it is imported: no statistics, no telemetry
os.environ |= {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "OTEL_SDK_DISABLED": "true",  # FastAPI's
}

import fastapi
import gradio as gr
from gradio.themes.utils.fonts import Font
from gradio.utils import LRUCache

from tinygpt.config import SAMPLING
from tinygpt.web import token_html
from tinygpt.web.handlers import Handlers
from tinygpt.web.middleware import LOOPBACK, SecurityMiddleware
from tinygpt.web.requests import DEFAULTS, LABELS, MAX_NEW_TOKENS, SLIDERS
from tinygpt.web.server import allowed_hosts, listen, serve
from tinygpt.web.service import MAX_CONCURRENT, MAX_QUEUED, MAX_VISITORS, Service

STATIC = Path(__file__).parent / "static"
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # installed fonts, so none is fetched
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = (
    "<h1>TinyGPT</h1><p>Look inside a small language model. It continues a text, token by token; "
    "it does not answer questions.</p>"
)
PROMPT_HINT = (
    '<p class="hint">Your text is appended directly to the text above. With an empty box, the model just continues. '
    '<span class="mouse-only">Enter submits, Shift+Enter starts a new line.</span></p>'
)


class Components:
    """Components that several tabs or handlers use."""

    def __init__(self, names: Sequence[str]) -> None:
        """names: of the models."""
        folder = hashlib.sha256(str(Path().resolve()).encode()).hexdigest()[:16]
        # one key for each project folder, so that pages of two projects at the same address do not mix
        self.stored = gr.BrowserState(None, storage_key=f"tinygpt-{folder}", secret=folder)
        self.model = gr.Dropdown(list(names), value=names[0], label="Model", filterable=False, render=False)
        self.prompt = textbox("Your text", 8, "prompt")
        self.to_score = textbox("Text to score", 12, "to-score")
        self.to_map = textbox("Text", 12, "to-map")
        self.turns = html(token_html.transcript([]), "turns", False)
        self.live_turn, self.status = html("", "live-turn", False), html(token_html.status(""), "status", False)
        self.write, self.stop = button("Write", variant="primary"), button("Stop", interactive=False)
        self.retry, self.undo, self.clear = (button(name, interactive=False) for name in ("Retry", "Undo", "Clear"))
        self.use_text = [button("Use generated text", min_width=180, interactive=False) for _ in range(2)]
        self.conversation = [  # in the order of Handlers.conversation
            *(self.turns, self.live_turn, self.status, self.stored, self.write, self.stop),
            *(self.retry, self.undo, self.clear, *self.use_text),
        ]


def page(service: Service) -> gr.Blocks:
    """The page, its components in reading order."""
    handlers, names = Handlers(service), list(service.models.find())
    with gr.Blocks(title="TinyGPT", analytics_enabled=False, fill_width=True) as blocks:
        parts = Components(names)
        with gr.Row(elem_id="top"):
            html(TITLE, "title")
            with gr.Column(elem_id="model", min_width=280):
                render(parts.model)
                about = html(token_html.status(""), "about")
        with gr.Tabs():
            with gr.Tab("Write"):
                write_tab(handlers, parts)
            with gr.Tab("Surprisal") as tab:
                bind_score = surprisal_tab(handlers, parts, tab)
            with gr.Tab("Attention") as tab:
                block, head, bind_attention = attention_tab(handlers, parts, tab)
        adapted = [about, block, head, parts.prompt, parts.to_score, parts.to_map]  # when another model is chosen
        opened = [parts.model, *adapted, *parts.conversation]
        bind(blocks.load, handlers.open_page, [parts.stored], opened, needs_model=True)
        inputs = [parts.stored, parts.model, parts.to_score, parts.to_map]
        set_in_browser(parts.model.input, about, token_html.status("Loading …"))
        chosen = bind([parts.model.input], handlers.choose_model, inputs, [*adapted, parts.turns], needs_model=True)
        for bind_analysis in (bind_score, bind_attention):
            bind_analysis(chosen.then)
        blocks.unload(handlers.close_page)
    blocks.queue(max_size=MAX_QUEUED, api_open=False)
    blocks.state_session_capacity = MAX_VISITORS
    blocks._queue.pending_messages_per_session = LRUCache(MAX_VISITORS)  # for visitors who left; Gradio's is 2,000
    return blocks


def write_tab(handlers: Handlers, parts: Components) -> None:
    """The conversation, the prompt box and the sampling settings."""
    with gr.Row(elem_classes="wide"):
        with gr.Column(scale=7, min_width=320):
            with gr.Row(elem_id="conversation", elem_classes="with-card"):
                with gr.Column(elem_id="text", elem_classes="text"):
                    render(parts.turns, parts.live_turn)
                html(token_html.card(), "card")
            render(parts.status, parts.prompt)
            html(PROMPT_HINT, "prompt-hint")
            with gr.Row(elem_classes="buttons"):
                render(parts.write, parts.stop, parts.retry, parts.undo, parts.clear)
        with gr.Column(scale=2, min_width=250, elem_id="settings"):
            html("<h2>Sampling</h2>")
            sliders = [slider(name, *ends, SAMPLING[name].help) for name, ends in SLIDERS.items()]
            sliders.append(slider("max_new_tokens", 1, MAX_NEW_TOKENS, 1, "The limit for one answer."))
            seed = gr.Number(
                DEFAULTS["seed"], label=LABELS["seed"], info="The same seed gives the same text.", precision=0
            )
            shade = gr.Checkbox(label="Shade tokens by surprisal")
    bind_conversation(handlers, parts, [*sliders, seed])
    shade.input(None, [shade], js="on => { document.body.classList.toggle('shaded', on); return []; }")


def bind_conversation(handlers: Handlers, parts: Components, settings: list[Any]) -> None:
    """Bind the buttons of the Write tab and the Enter key; settings in the order of requests.LABELS."""
    stored, shown = parts.stored, parts.conversation
    inputs = [stored, parts.prompt, parts.model, *settings]
    requests = [
        bind([parts.write.click, parts.prompt.submit], handlers.submit, inputs, [parts.prompt, *shown]),
        bind(parts.retry.click, handlers.retry, [stored, parts.model, *settings], [settings[-1], *shown]),
    ]
    for request in requests:
        bind(request.then, handlers.generate, [], shown, needs_model=True)
    bind(parts.stop.click, handlers.stop, [], shown)
    bind(parts.undo.click, handlers.undo, [stored, parts.prompt], [parts.prompt, *shown])
    bind(parts.clear.click, handlers.clear, [stored], shown)


def surprisal_tab(handlers: Handlers, parts: Components, tab: gr.Tab) -> Callable[..., Any]:
    """Any text, shaded by surprisal. Returns a function that makes an event score the text."""
    score, use_text = button("Score", variant="primary"), parts.use_text[0]
    render(parts.to_score)
    with gr.Row(elem_classes="buttons"):
        render(score, use_text)
    shown = html("", "scored-text")

    def bind_score(event: Any) -> None:
        bind(event, handlers.score, [parts.to_score, parts.model], [shown], needs_model=True)

    bind_score([score.click, parts.to_score.submit, tab.select])
    bind_score(bind(use_text.click, handlers.conversation_text, [parts.stored], [parts.to_score]).then)
    for event in (parts.to_score.change, parts.model.input):
        set_in_browser(event, shown)
    return bind_score


def attention_tab(handlers: Handlers, parts: Components, tab: gr.Tab) -> tuple[gr.Radio, gr.Radio, Callable[..., Any]]:
    """The attention weights of one head. Returns the block and head choices, and a function that makes an event show
    the weights.
    """
    show, use_text = button("Show", variant="primary"), parts.use_text[1]
    render(parts.to_map)
    with gr.Row(elem_classes="buttons"):
        render(show, use_text)
    with gr.Row(elem_classes="choices"):
        block, head = (gr.Radio([1], value=1, label=name, elem_id=name.lower()) for name in ("Block", "Head"))
    shown = html("", "attention")

    def bind_attention(event: Any) -> None:
        bind(event, handlers.attention, [parts.to_map, parts.model, block, head], [shown], needs_model=True)

    bind_attention([show.click, parts.to_map.submit, block.input, head.input, tab.select])
    bind_attention(bind(use_text.click, handlers.conversation_text, [parts.stored], [parts.to_map]).then)
    for event in (parts.to_map.change, parts.model.input):
        set_in_browser(event, shown)
    return block, head, bind_attention


def set_in_browser(event: Any, target: gr.HTML, value: str = "") -> None:
    """Set a component as soon as an event makes its content stale, without waiting for the server."""
    event(None, [], [target], js=f"() => {json.dumps(value)}", show_progress="hidden")


def render(*components: Any) -> None:
    """Place components that were created with render=False."""
    for component in components:
        component.render()


def slider(name: str, lowest: float, highest: float, step: float, info: str) -> gr.Slider:
    return gr.Slider(lowest, highest, DEFAULTS[name], step=step, label=LABELS[name], info=info, buttons=[])


def textbox(label: str, max_lines: int, name: str) -> gr.Textbox:
    """A box that starts with one line, because in a taller one Gradio's Enter key does not submit."""
    return gr.Textbox(
        "", label=label, lines=1, max_lines=max_lines, elem_id=name, elem_classes="text-box", render=False
    )


def html(value: str, name: str = "", render: bool = True) -> gr.HTML:
    return gr.HTML(value, elem_id=name or None, js_on_load=None, apply_default_css=False, render=render)


def button(name: str, min_width: int = 84, **options: Any) -> gr.Button:
    return gr.Button(name, size="md", scale=0, min_width=min_width, render=False, **options)


def bind(
    event: Any, handler: Callable[..., Any], inputs: Sequence[Any], outputs: Sequence[Any], needs_model: bool = False
) -> Any:
    """Bind a handler to an event, or to a list of events of which only the latest is handled.

    needs_model: wait for one of the MAX_CONCURRENT places; other events are handled at once.
    """
    queue: Any = {"concurrency_limit": MAX_CONCURRENT, "concurrency_id": "model"} if needs_model else {"queue": False}
    latest: Any = {"trigger_mode": "always_last"} if needs_model else {}
    add = partial(gr.on, event, **latest) if isinstance(event, list) else event
    return add(
        handler,
        list(inputs),
        list(outputs),
        preprocess=False,
        show_progress="hidden",
        api_visibility="private",
        **queue,
    )


def theme() -> gr.themes.Base:
    """Gradio's plainest theme with installed fonts; page.css sets the colours."""
    fonts, mono = [Font(name) for name in SANS], [Font(name) for name in MONO]
    return gr.themes.Base(primary_hue="blue", neutral_hue="slate", font=fonts, font_mono=mono)


def app(service: Service, password: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK) -> SecurityMiddleware:
    """The page behind SecurityMiddleware, as an ASGI app."""
    blocks = page(service)
    script = (STATIC / "page.js").read_text(encoding="utf-8")
    off: Any = dict.fromkeys(("run_history", "ssr_mode", "enable_monitoring", "mcp_server", "pwa"), False)
    inner = gr.mount_gradio_app(
        fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None), blocks, "/", footer_links=[], max_file_size=1,
        theme=theme(), css_paths=STATIC / "page.css", head=f"<script>{script}</script>", **off,
    )  # fmt: skip
    input_counts = {number: len(event.inputs) for number, event in blocks.fns.items() if event.fn}
    return SecurityMiddleware(inner, input_counts, password, hosts)


def run(service: Service, host: str, port: int, password: str | None, announce: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C. announce: called with its address. ValueError as `listen`."""
    listener = listen(host, port)
    serve(app(service, password, allowed_hosts(host)), listener, host, announce)

"""The web page, `tinygpt web`: chat, generate text, see each token's probabilities, view attention.

`page(service)` builds it with Gradio, and `run(…)` serves it. handlers.py handles its events, service.py does the work,
token_html.py makes the HTML of texts, static/ holds style and scripts, and middleware.py filters requests. The Chat tab
has modules of its own: chat_tab.py, chat_handlers.py, bubbles.py.
"""

import contextlib
import hashlib
import os
from collections.abc import Callable, Sequence
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

from tinygpt.tokenizer import folder as tokenizer_folder
from tinygpt.web import token_html
from tinygpt.web.chat_handlers import ChatHandlers
from tinygpt.web.chat_tab import ChatComponents, bind_model, chat_tab
from tinygpt.web.components import bind, button, html, render, sampling_settings, set_in_browser, textbox
from tinygpt.web.handlers import Handlers
from tinygpt.web.middleware import LOOPBACK, SecurityMiddleware
from tinygpt.web.models import ModelEntry
from tinygpt.web.server import allowed_hosts, listen, serve
from tinygpt.web.service import MAX_QUEUED, MAX_VISITORS, Service

STATIC = Path(__file__).parent / "static"
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]  # installed fonts, so none is fetched
MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]
TITLE = (
    "<h1>TinyGPT</h1><p>Look inside a small language model. It continues a text, token by token; "
    "fine-tuned on conversations, it answers messages.</p>"
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
        self.chosen = gr.BrowserState("", storage_key=f"tinygpt-{folder}-model", secret=folder)
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
        self.chat = ChatComponents(folder)


def page(service: Service) -> gr.Blocks:
    """The page, its components in reading order."""
    handlers, chat_handlers, names = Handlers(service), ChatHandlers(service), list(service.models.find())
    with gr.Blocks(title="TinyGPT", analytics_enabled=False, fill_width=True) as blocks:
        parts = Components(names)
        with gr.Row(elem_id="top"):
            html(TITLE, "title")
            with gr.Column(elem_id="model", min_width=280):
                render(parts.model)
                about = html(token_html.status(""), "about")
        first = (
            "chat" if has_roles(service.models.find()[names[0]]) else "write"
        )  # the open tab, until a model is known
        with gr.Tabs(selected=first) as tabs:
            with gr.Tab("Chat", id="chat"):
                chat_tab(chat_handlers, parts.chat, parts.model)
            with gr.Tab("Write", id="write"):
                write_tab(handlers, parts)
            with gr.Tab("Surprisal", id="surprisal") as tab:
                bind_score = surprisal_tab(handlers, chat_handlers, parts, tab)
            with gr.Tab("Attention", id="attention") as tab:
                block, head, bind_attention = attention_tab(handlers, chat_handlers, parts, tab)
        adapted = [about, block, head, parts.prompt, parts.to_score, parts.to_map]  # when another model is chosen
        opened = [parts.model, *adapted, *parts.conversation]
        loaded = bind(blocks.load, handlers.open_page, [parts.stored, parts.chosen], opened, needs_model=True)
        inputs = [parts.stored, parts.model, parts.to_score, parts.to_map]
        set_in_browser(parts.model.input, about, token_html.status("Loading …"))
        chosen = bind([parts.model.input], handlers.choose_model, inputs, [*adapted, parts.turns], needs_model=True)
        parts.model.input(None, [parts.model], [parts.chosen], js="name => name", show_progress="hidden")
        bind_model(chat_handlers, parts.chat, parts.model, tabs, loaded, chosen)
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
        settings = sampling_settings("write")
    bind_conversation(handlers, parts, settings)


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


def surprisal_tab(handlers: Handlers, chat: ChatHandlers, parts: Components, tab: gr.Tab) -> Callable[..., Any]:
    """Any text, shaded by surprisal. Returns a function that makes an event score the text."""
    score, use_text, use_chat = button("Score", variant="primary"), parts.use_text[0], parts.chat.use_text[0]
    render(parts.to_score)
    with gr.Row(elem_classes="buttons"):
        render(score, use_text, use_chat)
    shown = html("", "scored-text")

    def bind_score(event: Any) -> None:
        bind(event, handlers.score, [parts.to_score, parts.model], [shown], needs_model=True)

    bind_score([score.click, parts.to_score.submit, tab.select])
    bind_score(bind(use_text.click, handlers.conversation_text, [parts.stored], [parts.to_score]).then)
    bind_score(bind_use_chat(chat, parts, use_chat, parts.to_score).then)
    for event in (parts.to_score.change, parts.model.input):
        set_in_browser(event, shown)
    return bind_score


def attention_tab(
    handlers: Handlers, chat: ChatHandlers, parts: Components, tab: gr.Tab
) -> tuple[gr.Radio, gr.Radio, Callable[..., Any]]:
    """The attention weights of one head. Returns the block and head choices, and a function that makes an event show
    the weights.
    """
    show, use_text, use_chat = button("Show", variant="primary"), parts.use_text[1], parts.chat.use_text[1]
    render(parts.to_map)
    with gr.Row(elem_classes="buttons"):
        render(show, use_text, use_chat)
    with gr.Row(elem_classes="choices"):
        block, head = (gr.Radio([1], value=1, label=name, elem_id=name.lower()) for name in ("Block", "Head"))
    shown = html("", "attention")

    def bind_attention(event: Any) -> None:
        bind(event, handlers.attention, [parts.to_map, parts.model, block, head], [shown], needs_model=True)

    bind_attention([show.click, parts.to_map.submit, block.input, head.input, tab.select])
    bind_attention(bind(use_text.click, handlers.conversation_text, [parts.stored], [parts.to_map]).then)
    bind_attention(bind_use_chat(chat, parts, use_chat, parts.to_map).then)
    for event in (parts.to_map.change, parts.model.input):
        set_in_browser(event, shown)
    return block, head, bind_attention


def bind_use_chat(chat: ChatHandlers, parts: Components, use_chat: gr.Button, box: gr.Textbox) -> Any:
    """Make a button fill a box with the conversation of the Chat tab."""
    return bind(use_chat.click, chat.conversation_text, [parts.chat.stored], [box], name="chat_text")


def has_roles(entry: ModelEntry) -> bool:
    """Whether a model has a chat template; False for one whose folder another program wrote, or is not copied yet."""
    with contextlib.suppress(ValueError, OSError):
        return tokenizer_folder.load(entry.folder).has_roles
    return False


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

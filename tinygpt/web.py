"""The page in the browser: `tinygpt web`: write with a model, see every token's chances, look at attention.

`page(serving)` builds it with Gradio, `run(…)` serves it. All the work is done in serving.py, all HTML of texts made in
token_html.py, the looks and the keyboard are in web_page/, and guarding.py stands before it all.
Gradio's own checks of values are left out (preprocess=False): serving.py makes them, in sentences.
"""

import contextlib
import os
import socket
import traceback
from collections.abc import Callable, Iterator, Sequence
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
from tinygpt.asking import BOUNDS, CHARACTERS, DEFAULTS
from tinygpt.files import explain
from tinygpt.guarding import LOOPBACK, Guard, is_loopback
from tinygpt.model import count_parameters
from tinygpt.reading import label
from tinygpt.serving import VISITORS, Serving, Visitor
from tinygpt.shelf import Opened

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


class Page:
    """What the page's events do; each takes what came from outside and gives back what is to be shown."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def refresh(self) -> tuple[Any, ...]:
        """The models that there are now, and what goes with the first of them."""
        names = list(self.serving.shelf.find())
        if not names:  # as while it is being trained anew
            sentence = token_html.sentence("There is no model at the moment; load the page again later.", wrong=True)
            return gr.skip(), sentence, gr.skip(), gr.skip()
        return gr.Dropdown(choices=names, value=names[0]), *self.choose(names[0])

    def choose(self, model: object) -> tuple[Any, ...]:
        """What a model is, and its blocks and heads."""
        try:
            opened = self.serving.shelf.load(model)
        except (ValueError, OSError) as problem:
            return token_html.sentence(str(problem), wrong=True), gr.skip(), gr.skip()
        config = opened.model.config
        ranges = [gr.Radio(choices=list(range(1, n + 1)), value=1) for n in (config.n_layer, config.n_head)]
        return token_html.sentence(facts(opened)), *ranges

    def begin(self, request: gr.Request, box: object, model: object, *settings: object) -> tuple[Any, ...]:
        """Take an order: (sheet, line, box, Write, Stop)."""
        visitor = self.serving.visitor(request.session_hash)
        with refusing() as refused:
            self.serving.begin(visitor, box, model, *settings)
        if refused:
            return gr.skip(), refused[0], gr.skip(), gr.skip(), gr.skip()
        return self.sheet(visitor), token_html.sentence("Waiting for its turn …"), "", *buttons(writing=True)

    def again(self, request: gr.Request, model: object, *settings: object) -> tuple[Any, ...]:
        """Take an order for another answer: (sheet, line, seed, Write, Stop)."""
        visitor = self.serving.visitor(request.session_hash)
        with refusing() as refused:
            seed = self.serving.again(visitor, model, *settings)
        if refused:
            return gr.skip(), refused[0], gr.skip(), gr.skip(), gr.skip()
        return self.sheet(visitor), token_html.sentence("Waiting for its turn …"), seed, *buttons(writing=True)

    def write(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Carry the order out, showing what there is of it: (sheet, line, Write, Stop)."""
        visitor = self.serving.visitor(request.session_hash)
        with refusing() as refused, contextlib.closing(self.serving.write(visitor)) as steps:
            if visitor.order is None:  # it was refused, and that has been said
                yield (gr.skip(),) * 4
                return
            for _ in steps:
                yield self.sheet(visitor), token_html.sentence("Writing …"), gr.skip(), gr.skip()
        line = refused[0] if refused else token_html.sentence(visitor.note, command=visitor.command)
        yield self.sheet(visitor), line, *buttons(writing=False)

    def stop(self, request: gr.Request) -> None:
        self.serving.stop(self.serving.visitor(request.session_hash))

    def undo(self, request: gr.Request) -> tuple[Any, ...]:
        """Take the last turn back: (sheet, line, box)."""
        visitor = self.serving.visitor(request.session_hash)
        with refusing() as refused:
            written = self.serving.undo(visitor)
        if refused:
            return gr.skip(), refused[0], gr.skip()
        return self.sheet(visitor), token_html.sentence(""), written

    def clear(self, request: gr.Request) -> tuple[Any, ...]:
        """Begin anew: (sheet, line)."""
        visitor = self.serving.visitor(request.session_hash)
        with refusing() as refused:
            self.serving.clear(visitor)
        return (gr.skip(), refused[0]) if refused else (self.sheet(visitor), token_html.sentence(""))

    def read(self, text: object, model: object) -> str:
        with refusing() as refused:
            opened, seen, left_out = self.serving.read(text, model)
        return refused[0] if refused else token_html.reading(seen, opened.tokenizer, left_out)

    def attend(self, text: object, model: object, block: object, head: object) -> str:
        with refusing() as refused:
            opened, ids, shares, left_out = self.serving.attend(text, model, block, head)
        if refused:
            return refused[0]
        labels = [label(opened.tokenizer, token) for token in ids]
        return token_html.attention(labels, shares, f"Block {block}, head {head}.", left_out)

    def written(self, request: gr.Request) -> str:
        """The text so far, to be looked at elsewhere."""
        return self.serving.visitor(request.session_hash).text[-CHARACTERS:]

    def leave(self, request: gr.Request) -> None:
        self.serving.forget(request.session_hash)

    def sheet(self, visitor: Visitor) -> str:
        tokenizer = None
        if visitor.turns and visitor.turns[-1].tokens:
            tokenizer = self.serving.shelf.load(visitor.turns[-1].model).tokenizer
        return token_html.transcript(visitor.turns, tokenizer, writing=visitor.order is not None)


@contextlib.contextmanager
def refusing() -> Iterator[list[str]]:
    """Turn what a visitor can mend into a sentence, which is then in the list handed out."""
    refused: list[str] = []
    try:
        yield refused
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        told = explain(problem)
        if told is None:
            traceback.print_exc()
        told = told or "Something went wrong here; the terminal in which the page runs tells more."
        refused.append(token_html.sentence(told, wrong=True))


def buttons(writing: bool) -> tuple[Any, Any]:
    """Write and Stop, of which one can be pressed."""
    return gr.Button(interactive=not writing), gr.Button(interactive=writing)


def facts(opened: Opened) -> str:
    config, count = opened.model.config, count_parameters(opened.model)
    return (
        f"{count / 1e6:.2f}M parameters · {config.n_layer} blocks × {config.n_head} heads · context "
        f"{config.context_length:,} · vocabulary {config.vocab_size:,}"
    )


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
    on(stop.click, does.stop, [], [])
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
            f"Nothing can listen at {host}, port {port} ({problem.strerror}). Try another --port."
        ) from None
    guarded = app(serving, password, (*LOOPBACK, host) if is_loopback(host) else None)
    config = uvicorn.Config(guarded, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=1)
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listening.getsockname()[1]}")
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn has ended well by then
        uvicorn.Server(config).run(sockets=[listening])

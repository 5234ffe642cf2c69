"""The Chat tab: `ChatComponents()`, and `chat_tab(handlers, parts, model)`, which lays them out and binds their events.

bubbles.py makes the HTML of the messages, chat_handlers.py handles the events.
"""

import json
from typing import Any

import gradio as gr

from tinygpt.web import bubbles, token_html
from tinygpt.web.chat_handlers import ChatHandlers
from tinygpt.web.components import bind, button, html, render, sampling_settings, textbox

EXAMPLES = [  # message and system message; of the kinds that chat/params.yaml trains on
    ("What is 23 + 41?", ""),
    ("Sort these numbers: 41 7 23", ""),
    ("Who art thou?", "You are JULIET."),
]
HINT = (
    '<p class="hint mouse-only">Enter sends the message, Shift+Enter starts a new line.</p>'
    '<p class="hint touch-only">Enter starts a new line.</p>'
)
# Handlers get the title of the open tab in place of their last value, an unused one.
OPEN_TAB = (
    "(...values) => [...values.slice(0, -1), "
    "document.querySelector('[role=tab][aria-selected=true]')?.textContent.trim() ?? '']"
)


class ChatComponents:
    """The components of the tab."""

    def __init__(self, folder: str) -> None:
        """folder: a key for the project's folder, as in app.Components."""
        self.stored = gr.BrowserState(None, storage_key=f"tinygpt-{folder}-chat", secret=folder)
        self.system = gr.Textbox(
            "", label="System message", placeholder="You are JULIET.", lines=1, max_lines=4, elem_id="system",
            render=False,
        )  # fmt: skip
        self.message = textbox("Your message", 8, "message")
        self.turns, self.live_turn = html(bubbles.HINT, "chat-turns", False), html("", "chat-live", False)
        self.status = html(token_html.status(""), "chat-status", False)
        self.send, self.stop = button("Send", variant="primary"), button("Stop", interactive=False)
        self.retry, self.undo, self.clear = (button(name, interactive=False) for name in ("Retry", "Undo", "Clear"))
        self.use_text = [button("Use conversation", min_width=160, interactive=False) for _ in range(2)]
        self.open_tab = gr.Textbox("", visible=False)
        self.conversation = [  # in the order of Handlers.conversation
            *(self.turns, self.live_turn, self.status, self.stored, self.send, self.stop),
            *(self.retry, self.undo, self.clear, *self.use_text),
        ]


def chat_tab(handlers: ChatHandlers, parts: ChatComponents, model: gr.Dropdown) -> None:
    """The system message, the bubbles, the message box and the sampling settings."""
    with gr.Row(elem_classes="wide"):
        with gr.Column(scale=7, min_width=320):
            render(parts.system)
            with gr.Row(elem_id="chat", elem_classes="with-card"):
                with gr.Column(elem_id="chat-text", elem_classes="text"):
                    render(parts.turns, parts.live_turn)
                    with gr.Row(elem_id="examples"):
                        examples = [button(example_name(*one)) for one in EXAMPLES]
                        render(*examples)
                html(token_html.card(), "chat-card")
            render(parts.status, parts.message)
            html(HINT, "message-hint")
            with gr.Row(elem_classes="buttons"):
                render(parts.send, parts.stop, parts.retry, parts.undo, parts.clear)
        settings = sampling_settings("chat")
    bind_chat(handlers, parts, model, settings)
    for clicked, example in zip(examples, EXAMPLES, strict=True):
        filled = clicked.click(
            None, [], [parts.message, parts.system], js=f"() => {json.dumps(example)}", show_progress="hidden"
        )
        bind_send(handlers, parts, model, settings, filled.then)


def example_name(said: str, system: str) -> str:
    """The label of an example's button."""
    name = bubbles.NAMED.fullmatch(system)
    return f"To {name[1]}: {said}" if name else said


def bind_chat(handlers: ChatHandlers, parts: ChatComponents, model: gr.Dropdown, settings: list[Any]) -> None:
    """Bind the buttons and the Enter key; settings in the order of requests.LABELS."""
    stored, shown = parts.stored, parts.conversation
    bind_send(handlers, parts, model, settings, [parts.send.click, parts.message.submit])
    inputs = [stored, parts.system, model, *settings]
    again = bind(parts.retry.click, handlers.send_again, inputs, [settings[-1], *shown])
    bind(again.then, handlers.generate, [], shown, needs_model=True, name="chat_generate")
    bind(parts.stop.click, handlers.stop, [], shown, name="chat_stop")
    bind(parts.undo.click, handlers.undo, [stored, parts.message], [parts.message, *shown], name="chat_undo")
    bind(parts.clear.click, handlers.clear, [stored], shown, name="chat_clear")


def bind_send(
    handlers: ChatHandlers, parts: ChatComponents, model: gr.Dropdown, settings: list[Any], event: Any
) -> None:
    """Make an event send the message."""
    inputs = [parts.stored, parts.message, parts.system, model, *settings]
    sent = bind(event, handlers.send, inputs, [parts.message, *parts.conversation])
    bind(sent.then, handlers.generate, [], parts.conversation, needs_model=True, name="chat_generate")


def bind_model(handlers: ChatHandlers, parts: ChatComponents, model: gr.Dropdown, tabs: gr.Tabs, *events: Any) -> None:
    """Adapt the tab when the page opens and when a model is chosen, as soon as the two events have been handled."""
    inputs = [parts.stored, model, parts.open_tab]
    opened, chosen = events
    outputs = [tabs, *parts.conversation]
    bind(opened.then, handlers.open_chat, inputs, [parts.system, *outputs], needs_model=True, js=OPEN_TAB)
    name = "chat_choose_model"
    bind(chosen.then, handlers.choose_model, inputs, outputs, needs_model=True, js=OPEN_TAB, name=name)

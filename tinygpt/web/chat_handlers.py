"""Event handlers of the Chat tab: `ChatHandlers(service)` has one method for each event (chat_tab.py binds them).

They are those of the Write tab (handlers.py), for the conversation `Visitor.chat`: a message instead of a text, a
system message, and nothing but a sentence for a model without a chat template.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from tinygpt.files.paths import Paths
from tinygpt.web import bubbles, token_html
from tinygpt.web.browser_state import chat_from_json, chat_to_json
from tinygpt.web.handlers import Handlers, caught_errors
from tinygpt.web.visitor import WebChat, WebConversation, WebTurn

TABS = {True: "Chat", False: "Write"}  # whether a model has a chat template → the tab to use it in


class ChatHandlers(Handlers):
    """One method for each event; "conversation" as in `Handlers`."""

    between = "\n"
    to_json, from_json = staticmethod(chat_to_json), staticmethod(chat_from_json)

    def open_chat(self, request: gr.Request, stored: object, model: object, tab: object) -> tuple[Any, ...]:
        """Fill a new page: (system message, tabs, conversation)."""
        chat = self.restored(request, stored)
        self.service.restore_predictions(chat)
        system = chat.turns[-1].system if chat.turns else gr.skip()
        problem = token_html.status(chat.message, error=True) if chat.message else ""
        return system, *self.choose_model(request, stored, model, tab, problem)

    def choose_model(self, request: gr.Request, stored: object, model: object, *values: object) -> tuple[Any, ...]:
        """Adapt the page to a model: (tabs, conversation).

        values: the title of the open tab, and a status line that replaces the usual one. Only from Chat and Write does
        the page switch to the other; a reader of another tab stays there.
        """
        tab, line, chat = values[0], "".join(map(str, values[1:])), self.restored(request, stored)
        with caught_errors() as errors:
            self.chat(chat).can_answer = self.service.models.load(model).tokenizer.has_roles
        if errors:
            return gr.skip(), *self.only_status(errors[0])
        fitting = TABS[self.may_ask(chat)]
        switched = tab in TABS.values() and tab != fitting
        tabs = gr.Tabs(selected=fitting.lower()) if switched else gr.skip()
        if not line:
            silent = self.may_ask(chat) or not chat.turns  # without turns, the sentence is in their place
            line = token_html.status("" if silent else f"{bubbles.CONTINUES} {self.how_to_chat()}")
        return tabs, *self.conversation(chat, line)

    def send(
        self, request: gr.Request, stored: object, said: object, system: object, model: object, *settings: object
    ) -> tuple[Any, ...]:
        """`submit`, with its values in the order of the tab."""
        return self.submit(request, stored, said, model, *settings, system=system)

    def send_again(
        self, request: gr.Request, stored: object, system: object, model: object, *settings: object
    ) -> tuple[Any, ...]:
        """`retry`, with its values in the order of the tab."""
        return self.retry(request, stored, model, *settings, system=system)

    def current(self, request: gr.Request) -> WebConversation:
        return self.service.visitor(request.session_hash).chat

    def transcript(self, visitor: WebConversation, finished: Sequence[WebTurn]) -> str:
        if not finished and not self.may_ask(visitor):
            return bubbles.cannot_answer(self.how_to_chat())
        return bubbles.transcript(finished)

    def live_turn(self, visitor: WebConversation) -> str:
        return bubbles.live_turn(visitor.turns)

    def may_ask(self, visitor: WebConversation) -> bool:
        return self.chat(visitor).can_answer

    def how_to_chat(self) -> str:
        """How to get a model that answers, in a sentence."""
        made = str(Paths(Path("chat")).model)
        if made in self.service.models.find():
            return f"Choose {made} above, which answers messages."
        return "To get one that answers, run `dvc repro chat/dvc.yaml`, reload the page and choose chat/data/model."

    @staticmethod
    def chat(visitor: WebConversation) -> WebChat:
        """The conversation, as the chat that it is."""
        assert isinstance(visitor, WebChat)
        return visitor

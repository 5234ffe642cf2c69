"""Event handlers of the web page: `Handlers(service)` has one method for each event (app.py binds them).

Each takes values from outside, not yet validated, and returns updates of the page's components. service.py does the
work; errors become sentences on the page. Those of the Chat tab are a subclass (chat_handlers.py). app.py sets Gradio's
environment variables before this module is imported.
"""

import contextlib
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from tinygpt.errors import explain
from tinygpt.inspection.text import label
from tinygpt.model.gpt import count_parameters
from tinygpt.web import token_html
from tinygpt.web.browser_state import from_json, to_json
from tinygpt.web.example import example_prompt
from tinygpt.web.models import LoadedModel
from tinygpt.web.requests import MAX_CHARACTERS
from tinygpt.web.service import Service
from tinygpt.web.visitor import Visitor, WebConversation, WebTurn

WAITING = "Waiting in the queue …"
CONVERSATION = 11  # components that show a conversation: as many values as `Handlers.conversation` returns


class Handlers:
    """One method for each event. Where a docstring says "conversation", it means what `conversation` returns.

    stored: the conversation in the browser's storage. It is read when the service does not know the visitor: after a
    reload, a restart of the server, or a phone that suspended the page.
    """

    between = ""  # put between a text that Undo returns and the text in the box
    to_json, from_json = staticmethod(to_json), staticmethod(from_json)

    def __init__(self, service: Service) -> None:
        self.service = service

    def open_page(self, request: gr.Request, stored: object, chosen: object = "") -> tuple[Any, ...]:
        """Fill a new page: (models, about, block, head, prompt, texts to score and to map, conversation).

        chosen: the model that was chosen on the page last, from the browser's storage.
        """
        visitor = self.visitor(request, stored)
        self.service.restore_predictions(visitor)
        names = list(self.service.models.find())
        line = token_html.status(visitor.message, error=bool(visitor.message))
        if not names:  # for example while `dvc repro` replaces the model folder
            missing = token_html.status("There is no model at the moment. Reload the page later.", error=True)
            return gr.skip(), missing, *(gr.skip(),) * 5, *self.conversation(visitor, line)
        last = visitor.turns[-1].model if visitor.turns else ""
        name = next((name for name in (chosen, last) if name in names), names[0])
        *updates, _ = self.choose_model(request, stored, name, "", "")
        return gr.Dropdown(choices=names, value=name), *updates, *self.conversation(visitor, line)

    def choose_model(self, request: gr.Request, stored: object, model: object, *texts: object) -> tuple[Any, ...]:
        """Load a model and adapt the page: (about, block, head, prompt, texts to score and to map, turns).

        texts: those in the two boxes; an example text of the previous model is replaced.
        """
        visitor = self.visitor(request, stored)
        with caught_errors() as errors:
            loaded = self.service.models.load(model)
        if errors:
            return errors[0], *(gr.skip(),) * (4 + len(texts))
        config, previous, visitor.example = loaded.model.config, visitor.example, loaded.example
        choices = [gr.Radio(choices=list(range(1, n + 1)), value=1) for n in (config.n_layer, config.n_head)]
        examples = [loaded.example if text in ("", None, previous) else gr.skip() for text in texts]
        turns = gr.skip() if visitor.turns else self.turns(visitor)
        prompt = gr.Textbox(placeholder=example_prompt(loaded.example))
        return token_html.status(model_summary(loaded)), *choices, prompt, *examples, turns

    def submit(
        self, request: gr.Request, stored: object, said: object, model: object, *settings: object, system: object = ""
    ) -> tuple[Any, ...]:
        """Queue a request: (text box, conversation). system: of a chat, its system message."""
        visitor = self.restored(request, stored)
        with caught_errors() as errors:
            self.service.submit(visitor, said, model, *settings, system=system)
        if errors:
            return gr.skip(), *self.only_status(errors[0])
        return "", *self.conversation(visitor, token_html.status(WAITING))

    def retry(
        self, request: gr.Request, stored: object, model: object, *settings: object, system: object = ""
    ) -> tuple[Any, ...]:
        """Queue a request for another answer: (seed, conversation). system: as for `submit`."""
        visitor = self.restored(request, stored)
        with caught_errors() as errors:
            seed = self.service.retry(visitor, model, *settings, system=system)
        if errors:
            return gr.skip(), *self.only_status(errors[0])
        return seed, *self.conversation(visitor, token_html.status(WAITING))

    def generate(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Run the queued request and stream its text: conversation."""
        visitor = self.current(request)
        if visitor.request is None or visitor.generating:  # the request was refused, and the page says so already
            yield (gr.skip(),) * CONVERSATION
            return
        with caught_errors() as errors, contextlib.closing(self.service.generate(visitor)) as steps:
            for count, _ in enumerate(steps):
                line = gr.skip() if count else token_html.status("Writing …")
                live = self.live_turn(visitor)
                yield gr.skip(), live, line, self.to_json(visitor.turns), *(gr.skip(),) * (CONVERSATION - 4)
        line = errors[0] if errors else token_html.status(visitor.message, command=visitor.command)
        yield self.conversation(visitor, line)

    def stop(self, request: gr.Request) -> tuple[Any, ...]:
        """Stop a running or queued request: conversation."""
        visitor = self.current(request)
        queued = visitor.request is not None and not visitor.generating
        self.service.stop(visitor)
        if not queued:
            return (gr.skip(),) * CONVERSATION  # `generate` updates the page within a token
        return self.conversation(visitor, token_html.status("Stopped before the first token."))

    def undo(self, request: gr.Request, stored: object, prompt: object) -> tuple[Any, ...]:
        """Remove the last turn and put its text before the one in the box: (prompt, conversation)."""
        visitor = self.restored(request, stored)
        with caught_errors() as errors:
            written = self.service.undo(visitor)
        if errors:
            return gr.skip(), *self.only_status(errors[0])
        text = written + self.between + prompt if isinstance(prompt, str) and prompt else written
        return text, *self.conversation(visitor, token_html.status(""))

    def clear(self, request: gr.Request, stored: object) -> tuple[Any, ...]:
        """Remove all turns: conversation."""
        visitor = self.restored(request, stored)
        with caught_errors() as errors:
            self.service.clear(visitor)
        return self.only_status(errors[0]) if errors else self.conversation(visitor, token_html.status(""))

    def score(self, text: object, model: object) -> str:
        """A text shaded by surprisal, as HTML."""
        with caught_errors() as errors:
            loaded, predictions, left_out = self.service.score(text, model)
        return errors[0] if errors else token_html.scored_text(predictions, loaded.tokenizer, left_out)

    def attention(self, text: object, model: object, block: object, head: object) -> str:
        """The attention weights of one head, as HTML."""
        with caught_errors() as errors:
            loaded, ids, weights, left_out = self.service.attention(text, model, block, head)
        if errors:
            return errors[0]
        labels = [label(loaded.tokenizer, token) for token in ids]
        return token_html.attention_map(labels, weights, f"Block {block}, head {head}.", left_out)

    def conversation_text(self, request: gr.Request, stored: object) -> str:
        """The conversation as one text, of a long one the end."""
        return self.restored(request, stored).text[-MAX_CHARACTERS:]

    def close_page(self, request: gr.Request) -> None:
        """Forget the visitor."""
        self.service.forget(request.session_hash)

    def visitor(self, request: gr.Request, stored: object) -> Visitor:
        """The visitor of a session; a new one gets the stored conversation, or a message that it is damaged."""
        self.restored(request, stored)
        return self.service.visitor(request.session_hash)

    def current(self, request: gr.Request) -> WebConversation:
        """The conversation of a session."""
        return self.service.visitor(request.session_hash)

    def restored(self, request: gr.Request, stored: object) -> WebConversation:
        """The conversation of a session; a new one is filled from the browser's storage."""
        conversation = self.current(request)
        if not conversation.restored:
            conversation.restored = True
            try:
                conversation.turns = self.from_json(stored)
            except ValueError as problem:
                conversation.message = str(problem)
        return conversation

    def turns(self, visitor: WebConversation) -> str:
        """The finished turns, as HTML."""
        finished = visitor.turns[:-1] if visitor.request else visitor.turns
        if visitor.request and not finished:
            return ""
        return self.transcript(visitor, finished)

    def transcript(self, visitor: WebConversation, finished: Sequence[WebTurn]) -> str:
        """These turns as HTML; without any, instructions."""
        example = visitor.example if isinstance(visitor, Visitor) else ""
        return token_html.transcript(finished, example_prompt(example))

    def live_turn(self, visitor: WebConversation) -> str:
        """The turn that is being generated, as HTML."""
        return token_html.live_turn(visitor.turns[-1])

    def may_ask(self, visitor: WebConversation) -> bool:
        """Whether the chosen model can take a request."""
        return True

    def conversation(self, visitor: WebConversation, line: str) -> tuple[Any, ...]:
        """All of a conversation: (turns, live turn, status line, stored conversation, and whether each button is
        enabled: Write, Stop, Retry, Undo, Clear, and the two that take the text into other tabs).
        """
        busy, started = visitor.request is not None, bool(visitor.turns)
        idle, can_ask = started and not busy, self.may_ask(visitor)
        enabled = [can_ask and not busy, busy, can_ask and idle, idle, idle, *[bool(visitor.text)] * 2]
        live = self.live_turn(visitor) if busy else ""
        buttons = (gr.Button(interactive=on) for on in enabled)
        return self.turns(visitor), live, line, self.to_json(visitor.turns), *buttons

    def only_status(self, line: str) -> tuple[Any, ...]:
        """An unchanged conversation with another status line."""
        return gr.skip(), gr.skip(), line, *(gr.skip(),) * (CONVERSATION - 3)


@contextlib.contextmanager
def caught_errors() -> Iterator[list[str]]:
    """Catch an error and put its status line into the list; print the traceback of an unexpected one."""
    errors: list[str] = []
    try:
        yield errors
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        message = explain(problem)
        if message is None:
            traceback.print_exc()
            message = "An unexpected error occurred. The terminal that runs `tinygpt web` shows the details."
        errors.append(token_html.status(message, error=True))


def model_summary(loaded: LoadedModel) -> str:
    """Size and shape of a model, in one line."""
    config, count = loaded.model.config, count_parameters(loaded.model)
    return (
        f"{count / 1e6:.2f}M parameters · {config.n_layer} blocks × {config.n_head} heads · context "
        f"{config.context_length:,} · vocabulary {config.vocab_size:,}"
    )

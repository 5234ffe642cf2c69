"""Event handlers of the web page: `Page(serving)` has one method for each event (app.py binds them).

Each takes what came from outside, as it came, and gives back what is to be shown; service.py does the work, and what a
visitor can mend is told on the page in a sentence. app.py tells Gradio to be quiet before this is imported.
"""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr

from tinygpt.errors import explain
from tinygpt.inspection.text import label
from tinygpt.model.gpt import count_parameters
from tinygpt.web import token_html
from tinygpt.web.browser_state import restored, stored
from tinygpt.web.example import opening
from tinygpt.web.models import LoadedModel
from tinygpt.web.requests import CHARACTERS
from tinygpt.web.service import Serving, Visitor

CONVERSATION = 11  # components that show where a conversation stands: what `Page.shown` gives back


class Page:
    """What the page's events do; each takes what came from outside and gives back what is to be shown.

    kept: the conversation as the browser stores it, for a visitor who is new here: the page was loaded again, the
    server was started again, or a phone had put the page to sleep.
    """

    def __init__(self, serving: Serving) -> None:
        self.serving = serving

    def refresh(self, request: gr.Request, kept: object) -> tuple[Any, ...]:
        """A page is opened: the models that there are now, what goes with the chosen one, and the conversation."""
        visitor = self.visitor(request, kept)
        self.serving.look_again(visitor)
        names = list(self.serving.models.find())
        line = token_html.sentence(visitor.note, wrong=bool(visitor.note))
        if not names:  # as while it is being trained anew
            sentence = token_html.sentence("There is no model at the moment; load the page again later.", wrong=True)
            return gr.skip(), sentence, *(gr.skip(),) * 5, *self.shown(visitor, line)
        last = visitor.turns[-1].model if visitor.turns else ""
        name = last if last in names else names[0]
        chosen = self.choose(request, kept, name, "", "")
        return gr.Dropdown(choices=names, value=name), *chosen[:-1], *self.shown(visitor, line)

    def choose(self, request: gr.Request, kept: object, model: object, *texts: object) -> tuple[Any, ...]:
        """What a model is, and what suits it: (about, block, head, box, texts to score and to map, sheet)."""
        visitor = self.visitor(request, kept)
        with refusing() as refused:
            opened = self.serving.models.load(model)
        if refused:
            return refused[0], *(gr.skip(),) * (4 + len(texts))
        config, before, visitor.example = opened.model.config, visitor.example, opened.example
        ranges = [gr.Radio(choices=list(range(1, n + 1)), value=1) for n in (config.n_layer, config.n_head)]
        offered = [opened.example if text in ("", None, before) else gr.skip() for text in texts]
        sheet = gr.skip() if visitor.turns else self.sheet(visitor)
        box = gr.Textbox(placeholder=opening(opened.example))
        return token_html.sentence(facts(opened)), *ranges, box, *offered, sheet

    def begin(self, request: gr.Request, kept: object, box: object, model: object, *settings: object) -> Any:
        """Take an order: (box, conversation)."""
        visitor = self.visitor(request, kept)
        with refusing() as refused:
            self.serving.begin(visitor, box, model, *settings)
        if refused:
            return gr.skip(), *self.refused(refused[0])
        return "", *self.shown(visitor, token_html.sentence("Waiting for its turn …"))

    def again(self, request: gr.Request, kept: object, model: object, *settings: object) -> Any:
        """Take an order for another answer: (seed, conversation)."""
        visitor = self.visitor(request, kept)
        with refusing() as refused:
            seed = self.serving.again(visitor, model, *settings)
        if refused:
            return gr.skip(), *self.refused(refused[0])
        return seed, *self.shown(visitor, token_html.sentence("Waiting for its turn …"))

    def write(self, request: gr.Request) -> Iterator[tuple[Any, ...]]:
        """Carry the order out, showing what there is of it: the conversation."""
        visitor = self.serving.visitor(request.session_hash)
        if visitor.order is None or visitor.writing:  # an order was refused, and that has been said
            yield (gr.skip(),) * CONVERSATION
            return
        with refusing() as refused, contextlib.closing(self.serving.write(visitor)) as steps:
            for count, _ in enumerate(steps):
                line = gr.skip() if count else token_html.sentence("Writing …")
                now = token_html.live(visitor.turns[-1]), line, stored(visitor.turns)
                yield gr.skip(), *now, *(gr.skip(),) * (CONVERSATION - 4)
        line = refused[0] if refused else token_html.sentence(visitor.note, command=visitor.command)
        yield self.shown(visitor, line)

    def stop(self, request: gr.Request) -> tuple[Any, ...]:
        """End an answer, or an order before its turn: the conversation."""
        visitor = self.serving.visitor(request.session_hash)
        waiting = visitor.order is not None and not visitor.writing
        self.serving.stop(visitor)
        if not waiting:
            return (gr.skip(),) * CONVERSATION  # the answer says so itself, within a token
        return self.shown(visitor, token_html.sentence("Stopped before it began."))

    def undo(self, request: gr.Request, kept: object, box: object) -> tuple[Any, ...]:
        """Take the last turn back, its text before what is in the box: (box, conversation)."""
        visitor = self.visitor(request, kept)
        with refusing() as refused:
            written = self.serving.undo(visitor)
        if refused:
            return gr.skip(), *self.refused(refused[0])
        return written + box if isinstance(box, str) else written, *self.shown(visitor, token_html.sentence(""))

    def clear(self, request: gr.Request, kept: object) -> tuple[Any, ...]:
        """Begin anew: the conversation."""
        visitor = self.visitor(request, kept)
        with refusing() as refused:
            self.serving.clear(visitor)
        return self.refused(refused[0]) if refused else self.shown(visitor, token_html.sentence(""))

    def read(self, text: object, model: object) -> str:
        with refusing() as refused:
            opened, seen, left_out = self.serving.read(text, model)
        return refused[0] if refused else token_html.reading(seen, opened.tokenizer, left_out)

    def attend(self, text: object, model: object, block: object, head: object) -> str:
        with refusing() as refused:
            opened, ids, weights, left_out = self.serving.attend(text, model, block, head)
        if refused:
            return refused[0]
        labels = [label(opened.tokenizer, token) for token in ids]
        return token_html.attention(labels, weights, f"Block {block}, head {head}.", left_out)

    def written(self, request: gr.Request, kept: object) -> str:
        """The text so far, to be looked at elsewhere."""
        return self.visitor(request, kept).text[-CHARACTERS:]

    def leave(self, request: gr.Request) -> None:
        self.serving.forget(request.session_hash)

    def visitor(self, request: gr.Request, kept: object) -> Visitor:
        """Who asks; with the conversation that their browser stored, or a note that it is damaged."""
        visitor = self.serving.visitor(request.session_hash)
        if not visitor.restored:
            visitor.restored = True
            try:
                visitor.turns = restored(kept)
            except ValueError as problem:
                visitor.note = str(problem)
        return visitor

    def sheet(self, visitor: Visitor) -> str:
        """The turns that are finished."""
        finished = visitor.turns[:-1] if visitor.order else visitor.turns
        if visitor.order and not finished:
            return ""
        return token_html.transcript(finished, opening(visitor.example))

    def shown(self, visitor: Visitor, line: str) -> tuple[Any, ...]:
        """Where a conversation stands: (sheet, live, line, kept, Write, Stop, and what needs a text that is there:
        Retry, Undo, Clear and twice "Use generated text").
        """
        writing, some = visitor.order is not None, bool(visitor.turns)
        buttons = [not writing, writing, *[some and not writing] * 3, *[bool(visitor.text)] * 2]
        now = self.sheet(visitor), token_html.live(visitor.turns[-1] if writing else None), line
        return *now, stored(visitor.turns), *(gr.Button(interactive=on) for on in buttons)

    def refused(self, line: str) -> tuple[Any, ...]:
        """The same where nothing has changed: only the line says why."""
        return gr.skip(), gr.skip(), line, *(gr.skip(),) * (CONVERSATION - 3)


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


def facts(opened: LoadedModel) -> str:
    config, count = opened.model.config, count_parameters(opened.model)
    return (
        f"{count / 1e6:.2f}M parameters · {config.n_layer} blocks × {config.n_head} heads · context "
        f"{config.context_length:,} · vocabulary {config.vocab_size:,}"
    )

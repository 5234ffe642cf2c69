"""What the events of the page in the browser do (web.py binds them): `Page(serving)`, a method an event.

Each takes what came from outside, as it came, and gives back what is to be shown; serving.py does the work, and what a
visitor can mend is told on the page in a sentence. web.py tells Gradio to be quiet before this is imported.
"""

import contextlib
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr

from tinygpt import token_html
from tinygpt.asking import CHARACTERS
from tinygpt.files import explain
from tinygpt.model import count_parameters
from tinygpt.reading import label
from tinygpt.serving import Serving, Visitor
from tinygpt.shelf import Opened


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
        with refusing() as refused:
            opened = self.serving.shelf.load(model)
        if refused:
            return refused[0], gr.skip(), gr.skip()
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

    def stop(self, request: gr.Request) -> tuple[Any, ...]:
        """End an answer, or an order before its turn: (line, Write, Stop)."""
        visitor = self.serving.visitor(request.session_hash)
        waiting = visitor.order is not None and not visitor.writing
        self.serving.stop(visitor)
        if not waiting:
            return gr.skip(), gr.skip(), gr.skip()  # the answer says so itself, within a token
        return token_html.sentence("Stopped before it began."), *buttons(writing=False)

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
        tokenizer = visitor.turns[-1].tokenizer if visitor.turns else None
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

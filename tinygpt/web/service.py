"""The service behind the page: each visitor's conversation, interruptible generation, surprisal and attention.

`serving = Serving(shelf)`; `serving.begin(visitor, …)` checks an order and `serving.write(visitor)` carries it out, a
little at a time; `serving.stop(visitor)` ends it within a token. `read` and `attend` look at any text. What comes from
outside is checked in requests.py. No Gradio in this file: the page is in app.py.
"""

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import cast

from torch import Tensor

from tinygpt.chat.conversation import Conversation, Turn
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling, probabilities
from tinygpt.generation.windows import window_logits
from tinygpt.inspection import activations
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer
from tinygpt.web.models import LoadedModel, ModelRegistry
from tinygpt.web.requests import BOUNDS, GenerationRequest, command, make_request, number, something, text

READ_TOKENS = 1500  # of a text whose tokens are shown; of a longer one, the first
MAP_TOKENS = 32  # of an attention map, likewise
ALTERNATIVES = 8  # shown of each token
SECONDS = 120.0  # after which an answer ends by itself
VISITORS = 200  # remembered at a time
PACE = 0.05  # seconds between two looks at an answer that is being written
AS_IT_IS = Sampling(temperature=1.0, top_p=1.0)


@dataclass(frozen=True)
class Seen:
    """A token as the model saw it come."""

    token: int
    probability: float | None = None  # as the model is, at temperature 1; None where nothing came before it
    rank: int = 0  # its place among all that could have come, 1 the likeliest
    alternatives: tuple[tuple[int, float, float], ...] = ()  # the likeliest: token, probability, and as it was sampled
    sampled: float | None = None  # its own probability after temperature and filters; None where nothing was sampled


@dataclass
class WebTurn(Turn):
    """A turn, and what is shown of it."""

    model: str = ""  # who wrote it, and how
    version: str = ""
    sampling: Sampling = AS_IT_IS
    ids: list[int] = field(default_factory=list)  # of the answer, once it is finished
    tokens: list[Seen] = field(default_factory=list)  # the same, as the model saw them come
    tokenizer: Tokenizer | None = None  # theirs: the model may be another by the time that they are shown again


class Visitor(Conversation[WebTurn]):
    """Somebody with the page open, and their conversation."""

    def __init__(self) -> None:
        super().__init__()
        self.order: GenerationRequest | None = None  # waiting or being carried out
        self.note = ""  # how the last one ended
        self.command = ""  # what prints the same in a terminal
        self.writing = False  # whether it is being carried out
        self.restored = False  # whether what the browser stored has been looked at
        self.example = ""  # the passage that was last offered

    def must_be_idle(self) -> None:
        if self.order:
            raise ValueError("An answer is being written already. Wait for it, or press Stop.")

    def settle(self) -> None:
        """The order is over."""
        super().settle()
        self.order, self.writing = None, False

    def leave(self) -> None:
        if self.order:
            self.order.stop.set()


class Serving:
    """One for all visitors; safe to use from several threads."""

    def __init__(self, shelf: ModelRegistry) -> None:
        self.models = shelf
        self.running = 0  # answers being written at this moment
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def visitor(self, name: str | None) -> Visitor:
        """The visitor of this name, a new one where there is none; those not seen for longest are forgotten."""
        with self._lock:
            found = self._visitors.setdefault(name, Visitor()) if name else Visitor()
            if name:
                self._visitors.move_to_end(name)
            while len(self._visitors) > VISITORS:
                self._visitors.popitem(last=False)[1].leave()
            return found

    def forget(self, name: str | None) -> None:
        """The page was closed: stop what is written for it, and keep nothing."""
        with self._lock:
            gone = self._visitors.pop(name or "", None)
        if gone:
            gone.leave()

    def begin(self, visitor: Visitor, written: object, model: object, *settings: object) -> None:
        """Put an order for what continues the text so far and `written`; settings in the order of BOUNDS."""
        visitor.must_be_idle()
        order = make_request(visitor.text + text(written), model, settings)
        self.models.book(model)
        visitor.add(WebTurn(text(written), model=order.model, sampling=order.sampling))
        visitor.order = order

    def again(self, visitor: Visitor, model: object, *settings: object) -> int:
        """Put an order for another answer in place of the last one, with the next seed; returns that seed."""
        visitor.must_be_idle()
        last = visitor.last
        order = make_request(visitor.prompt, model, settings)
        order = replace(order, seed=min(order.seed + 1, int(BOUNDS["seed"][1])))
        self.models.book(model)
        visitor.replace_last(WebTurn(last.said, model=order.model, sampling=order.sampling))
        visitor.order = order
        return order.seed

    def write(self, visitor: Visitor) -> Generator[None]:
        """Carry the visitor's order out; comes back now and then, when there is more to be seen of the last turn."""
        with self._lock:
            order = None if visitor.writing else visitor.order
            visitor.writing = visitor.writing or order is not None
        if order is None:
            return
        try:
            with self._counted():
                yield from self._continue(visitor.turns[-1], order, visitor)
        except ValueError as problem:  # a damaged model, or a character that it does not know
            again = "" if visitor.replacing else " Undo gives your text back."
            raise ValueError(f"{problem}{again}") from problem
        finally:
            visitor.settle()

    def _continue(self, turn: WebTurn, order: GenerationRequest, visitor: Visitor) -> Iterator[None]:
        """The answer, token by token, until its length, its end, the visitor's Stop, or the last of its seconds."""
        opened = self.models.load(order.model)
        prompt = opened.tokenizer.encode(order.prompt)
        ids: list[int] = []
        decoder, shown = StreamingDecoder(opened.tokenizer), time.monotonic()
        ends = shown + SECONDS
        end_of_text = opened.tokenizer.end_of_text
        made = generate_ids(opened.model, [prompt], [order.sampling], [order.seed], order.length, end_of_text)
        with contextlib.closing(cast(Generator[list[int | None]], made)):
            for (token,) in made:
                if token is None or order.stop.is_set() or time.monotonic() > ends:
                    break
                ids.append(token)
                turn.answer += decoder.decode(token)
                if time.monotonic() - shown > PACE:
                    yield
                    shown = time.monotonic()
        turn.answer, turn.ids, turn.version = opened.tokenizer.decode(ids), ids, opened.version
        predict_turn(turn, prompt, opened)
        visitor.command = command(order, opened.book.folder)
        visitor.note = ending(len(ids), order, late=time.monotonic() > ends)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1

    def stop(self, visitor: Visitor) -> None:
        """End what is being written for a visitor, or waits to be, within a token."""
        with self._lock:
            visitor.leave()
            if not visitor.writing:  # its turn may never come: the queue was full, or the connection broke
                visitor.settle()

    def look_again(self, visitor: Visitor) -> None:
        """Work out the tokens of turns that were restored, where the model that wrote them is still what it was."""
        before = ""
        for turn in visitor.turns:
            before += turn.said
            if turn.ids and not turn.tokens:
                with contextlib.suppress(ValueError, OSError, MemoryError, RuntimeError):
                    opened = self.models.load(turn.model)
                    known = opened.version == turn.version and max(turn.ids) < opened.tokenizer.vocab_size
                    if known and opened.tokenizer.decode(turn.ids) == turn.answer:
                        predict_turn(turn, opened.tokenizer.encode(before), opened)
            before += turn.answer

    def undo(self, visitor: Visitor) -> str:
        """Take back the last turn; returns what the visitor wrote in it."""
        visitor.must_be_idle()
        return visitor.undo().said if visitor.turns else ""

    def clear(self, visitor: Visitor) -> None:
        visitor.must_be_idle()
        visitor.clear()

    def read(self, written: object, model: object) -> tuple[LoadedModel, list[Seen], int]:
        """The tokens of a text as the model sees them come, and how many more there are than are shown."""
        opened = self.models.load(model)
        ids = opened.tokenizer.encode(something(written))
        shown = [opened.tokenizer.end_of_text, *ids[:READ_TOKENS]]  # a document starts with <|endoftext|>
        return opened, list(predictions(opened.model, shown, 1)), max(0, len(ids) - READ_TOKENS)

    def attend(
        self, written: object, model: object, block: object, head: object
    ) -> tuple[LoadedModel, list[int], Tensor, bool]:
        """Attention of one head, counted from 1, over the first tokens of a text: the model, T ids, weights (T, T), and
        whether there are more.
        """
        opened = self.models.load(model)
        config = opened.model.config
        chosen = [number("block", block, 1, config.n_layer, True), number("head", head, 1, config.n_head, True)]
        whole = opened.tokenizer.encode(something(written))
        ids = whole[: min(MAP_TOKENS, config.context_length)]
        weights = activations.get_activations(opened.model, ids).attention[int(chosen[0]) - 1, int(chosen[1]) - 1]
        return opened, ids, weights, len(whole) > len(ids)


def predict_turn(turn: WebTurn, prompt: list[int], opened: LoadedModel) -> None:
    """Put into a turn how the model saw its tokens come after a prompt."""
    prompt = prompt or [opened.tokenizer.end_of_text]
    turn.tokens = list(predictions(opened.model, prompt + turn.ids, len(prompt), turn.sampling))
    turn.tokenizer = opened.tokenizer


def predictions(model: GPT, ids: Sequence[int], first: int, sampling: Sampling | None = None) -> Iterator[Seen]:
    """How the model saw ids[first:] come, each from the window that generation gives it; first ≥ 1.

    sampling: how they were chosen, for the probabilities after temperature and filters.
    """
    for logits, targets in window_logits(model, ids, first):
        yield from _seen(logits, targets, sampling)


def _seen(logits: Tensor, targets: Tensor, sampling: Sampling | None) -> Iterator[Seen]:
    """Logits (N, V) and the target tokens (N,) → what is to be told of each."""
    plain = probabilities(logits, AS_IT_IS)
    chosen = plain if sampling is None else probabilities(logits, sampling)
    ranks = 1 + (logits > logits.gather(-1, targets[:, None])).sum(-1)
    best = plain.topk(min(ALTERNATIVES, plain.shape[-1]), dim=-1)
    for row, token in enumerate(targets.tolist()):
        order = best.indices[row].tolist()
        others = zip(order, best.values[row].tolist(), chosen[row, order].tolist(), strict=True)
        sampled = None if sampling is None else float(chosen[row, token])
        yield Seen(token, float(plain[row, token]), int(ranks[row]), tuple(others), sampled)


def ending(count: int, order: GenerationRequest, late: bool) -> str:
    """How an answer ended, in a sentence."""
    why = "stopped" if order.stop.is_set() else f"stopped after {SECONDS:.0f} seconds" if late else ""
    why = why or ("" if count == order.length else "end of text")
    return f"{count} token{'' if count == 1 else 's'}, seed {order.seed}" + (f"; {why}." if why else ".")

"""The service behind the page: conversations, generation that can be stopped, surprisal and attention.

`service = Service(registry)`; `service.submit(visitor, …)` validates a request, `service.generate(visitor)` runs it,
and `service.stop(visitor)` ends it within a token. `score` and `attention` analyze any text. requests.py validates
values from outside. This module does not use Gradio; app.py builds the page.
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
from tinygpt.generation.generate import generate_ids, prompt_ids
from tinygpt.generation.sampling import Sampling, probabilities
from tinygpt.generation.windows import window_logits
from tinygpt.inspection import activations
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer
from tinygpt.web.models import LoadedModel, ModelRegistry
from tinygpt.web.requests import (
    MAX_SEED,
    GenerationRequest,
    command,
    make_request,
    nonempty_text,
    text,
    whole_number,
)

MAX_SCORED = 1500  # tokens; only the first ones of a longer text are scored
MAX_MAPPED = 32  # tokens of an attention map, likewise
ALTERNATIVES = 8  # likeliest tokens that are shown for each token
MAX_CONCURRENT = 2  # answers and scorings that run at once
MAX_QUEUED = 64  # that wait; more are asked to try again
MAX_SECONDS = 120.0  # of one answer
MAX_VISITORS = 200  # remembered
UPDATE_SECONDS = 0.05  # between two updates of the page during generation
UNCHANGED = Sampling(temperature=1.0, top_p=1.0)  # the model's own distribution


@dataclass(frozen=True)
class TokenPrediction:
    """A token of a text, and what the model predicted in its place."""

    token: int
    probability: float  # of the token, at temperature 1
    rank: int  # of the token in the vocabulary; 1: the likeliest
    alternatives: tuple[tuple[int, float, float], ...] = ()  # the likeliest: id, probability, and after the settings
    sampled: float | None = None  # the token's probability after the sampling settings; None for a scored text


@dataclass
class WebTurn(Turn):
    """A turn, and what its token details need."""

    model: str = ""  # its name in the registry
    version: str = ""  # of the model (LoadedModel.version)
    sampling: Sampling = UNCHANGED
    ids: list[int] = field(default_factory=list)  # of the finished answer
    tokens: list[TokenPrediction] = field(default_factory=list)  # one for each id
    tokenizer: Tokenizer | None = None  # kept, because the model of this name may change before the turn is shown again


class Visitor(Conversation[WebTurn]):
    """The conversation of one open page."""

    def __init__(self) -> None:
        super().__init__()
        self.request: GenerationRequest | None = None  # queued or running
        self.generating = False  # whether the request is running
        self.message = ""  # how the last request ended, or why the stored conversation was refused
        self.command = ""  # prints the same text in a terminal
        self.restored = False  # whether the conversation in the browser's storage has been read
        self.example = ""  # the example text shown last

    def require_idle(self) -> None:
        """ValueError, in a sentence, during a request."""
        if self.request:
            raise ValueError("An answer is already being written. Wait for it, or press Stop.")

    def settle(self) -> None:
        """End the request; see Conversation.settle."""
        super().settle()
        self.request, self.generating = None, False

    def cancel(self) -> None:
        """End generation at its next token."""
        if self.request:
            self.request.stop.set()


class Service:
    """Serves all visitors. Thread-safe."""

    def __init__(self, registry: ModelRegistry) -> None:
        self.models = registry
        self.running = 0  # answers that are being generated
        self._visitors: OrderedDict[str, Visitor] = OrderedDict()
        self._lock = threading.Lock()

    def visitor(self, name: str | None) -> Visitor:
        """The visitor of a session, created if it is new. Beyond MAX_VISITORS, the least recently seen is dropped."""
        with self._lock:
            found = self._visitors.setdefault(name, Visitor()) if name else Visitor()
            if name:
                self._visitors.move_to_end(name)
            while len(self._visitors) > MAX_VISITORS:
                self._visitors.popitem(last=False)[1].cancel()
            return found

    def forget(self, name: str | None) -> None:
        """Drop the visitor of a closed page, and stop its answer."""
        with self._lock:
            visitor = self._visitors.pop(name or "", None)
        if visitor:
            visitor.cancel()

    def submit(self, visitor: Visitor, written: object, model: object, *settings: object) -> None:
        """Request a continuation of the conversation followed by `written`; settings in the order of LABELS."""
        visitor.require_idle()
        request = make_request(visitor.text + text(written), model, settings)
        self.models.entry(model)
        visitor.add(WebTurn(text(written), model=request.model, sampling=request.sampling))
        visitor.request = request

    def retry(self, visitor: Visitor, model: object, *settings: object) -> int:
        """Request another answer in place of the last one, with the next seed. Returns that seed."""
        visitor.require_idle()
        last = visitor.last
        request = make_request(visitor.prompt, model, settings)
        request = replace(request, seed=min(request.seed + 1, MAX_SEED))
        self.models.entry(model)
        visitor.replace_last(WebTurn(last.said, model=request.model, sampling=request.sampling))
        visitor.request = request
        return request.seed

    def generate(self, visitor: Visitor) -> Generator[None]:
        """Run the visitor's request. Yields whenever the last turn has more text to show."""
        with self._lock:
            request = None if visitor.generating else visitor.request
            visitor.generating = visitor.generating or request is not None
        if request is None:
            return
        try:
            with self._counted():
                yield from self._generate(visitor.turns[-1], request, visitor)
        except ValueError as problem:  # a damaged model, or a character outside its vocabulary
            hint = "" if visitor.replacing else " Undo returns your text."
            raise ValueError(f"{problem}{hint}") from problem
        finally:
            visitor.settle()

    def _generate(self, turn: WebTurn, request: GenerationRequest, visitor: Visitor) -> Iterator[None]:
        """Append tokens to the turn until the length, end of text, Stop, or the time limit."""
        loaded = self.models.load(request.model)
        prompt = prompt_ids(loaded.tokenizer, request.prompt)
        ids: list[int] = []
        decoder, updated = StreamingDecoder(loaded.tokenizer), time.monotonic()
        deadline = updated + MAX_SECONDS
        ends, length = loaded.tokenizer.ends, request.max_new_tokens
        steps = generate_ids(loaded.model, [prompt], [request.sampling], [request.seed], length, ends)
        with contextlib.closing(cast(Generator[list[int | None]], steps)):
            for (token,) in steps:
                if token is None or request.stop.is_set() or time.monotonic() > deadline:
                    break
                ids.append(token)
                turn.answer += decoder.decode(token)
                if time.monotonic() - updated > UPDATE_SECONDS:
                    yield
                    updated = time.monotonic()
        turn.answer, turn.ids, turn.version = loaded.tokenizer.decode(ids), ids, loaded.version
        add_predictions(turn, prompt, loaded)
        visitor.command = command(request, loaded.entry.folder)
        visitor.message = ending(len(ids), request, late=time.monotonic() > deadline)

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
        """End the visitor's request, within a token if it is running."""
        with self._lock:
            visitor.cancel()
            if not visitor.generating:  # it may never start: the queue was full, or the connection broke
                visitor.settle()

    def restore_predictions(self, visitor: Visitor) -> None:
        """Recompute the token predictions of restored turns whose model has not changed."""
        before = ""
        for turn in visitor.turns:
            before += turn.said
            if turn.ids and not turn.tokens:
                with contextlib.suppress(ValueError, OSError, MemoryError, RuntimeError):
                    loaded = self.models.load(turn.model)
                    same = loaded.version == turn.version and max(turn.ids) < loaded.tokenizer.vocab_size
                    if same and loaded.tokenizer.decode(turn.ids) == turn.answer:
                        add_predictions(turn, loaded.tokenizer.encode(before), loaded)
            before += turn.answer

    def undo(self, visitor: Visitor) -> str:
        """Remove the last turn. Returns the text that the visitor wrote in it."""
        visitor.require_idle()
        return visitor.undo().said if visitor.turns else ""

    def clear(self, visitor: Visitor) -> None:
        """Remove all turns."""
        visitor.require_idle()
        visitor.clear()

    def score(self, written: object, model: object) -> tuple[LoadedModel, list[TokenPrediction], int]:
        """Predict the first MAX_SCORED tokens of a text: the model, predictions, and how many tokens are left out."""
        loaded = self.models.load(model)
        ids = loaded.tokenizer.encode(nonempty_text(written))
        scored = [loaded.tokenizer.end_of_text, *ids[:MAX_SCORED]]  # a document starts with <|endoftext|>
        return loaded, list(predict_tokens(loaded.model, scored, 1)), max(0, len(ids) - MAX_SCORED)

    def attention(
        self, written: object, model: object, block: object, head: object
    ) -> tuple[LoadedModel, list[int], Tensor, bool]:
        """Attention weights of one head (block and head count from 1) over a text's first tokens: the model, T ids,
        weights (T, T), and whether tokens are left out.
        """
        loaded = self.models.load(model)
        config = loaded.model.config
        block_number = whole_number("Block", block, 1, config.n_layer)
        head_number = whole_number("Head", head, 1, config.n_head)
        all_ids = loaded.tokenizer.encode(nonempty_text(written))
        ids = all_ids[: min(MAX_MAPPED, config.context_length)]
        weights = activations.get_activations(loaded.model, ids).attention[block_number - 1, head_number - 1]
        return loaded, ids, weights, len(all_ids) > len(ids)


def add_predictions(turn: WebTurn, prompt: list[int], loaded: LoadedModel) -> None:
    """Compute the token predictions of a finished turn, whose answer continued the prompt."""
    turn.tokens = list(predict_tokens(loaded.model, prompt + turn.ids, len(prompt), turn.sampling))
    turn.tokenizer = loaded.tokenizer


def predict_tokens(
    model: GPT, ids: Sequence[int], first: int, sampling: Sampling | None = None
) -> Iterator[TokenPrediction]:
    """Predictions for ids[first:], each from the window that generation would use; first ≥ 1.

    sampling: the settings the tokens were sampled with, if they were.
    """
    for logits, targets in window_logits(model, ids, first):
        yield from _predictions(logits, targets, sampling)


def _predictions(logits: Tensor, targets: Tensor, sampling: Sampling | None) -> Iterator[TokenPrediction]:
    """Logits (N, V), target ids (N,) → N predictions."""
    plain = probabilities(logits, UNCHANGED)
    sampled = plain if sampling is None else probabilities(logits, sampling)
    ranks = 1 + (logits > logits.gather(-1, targets[:, None])).sum(-1)
    best = plain.topk(min(ALTERNATIVES, plain.shape[-1]), dim=-1)
    for row, token in enumerate(targets.tolist()):
        likeliest = best.indices[row].tolist()
        alternatives = zip(likeliest, best.values[row].tolist(), sampled[row, likeliest].tolist(), strict=True)
        probability = None if sampling is None else float(sampled[row, token])
        yield TokenPrediction(token, float(plain[row, token]), int(ranks[row]), tuple(alternatives), probability)


def ending(count: int, request: GenerationRequest, late: bool) -> str:
    """How an answer ended, in a sentence."""
    why = "stopped" if request.stop.is_set() else f"stopped after {MAX_SECONDS:.0f} seconds" if late else ""
    why = why or ("" if count == request.max_new_tokens else "end of text")
    return f"{count} token{'' if count == 1 else 's'}, seed {request.seed}" + (f"; {why}." if why else ".")

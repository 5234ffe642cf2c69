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
from dataclasses import replace
from typing import cast

from torch import Tensor

from tinygpt.chat.context import fitting
from tinygpt.generation.generate import Prompt, generate_ids, most_new_tokens, prompt_ids
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
    conversation,
    make_request,
    nonempty_text,
    text,
    whole_number,
)
from tinygpt.web.visitor import UNCHANGED, TokenPrediction, Visitor, WebConversation, WebTurn

MAX_SCORED = 1500  # tokens; only the first ones of a longer text are scored
MAX_MAPPED = 32  # tokens of an attention map, likewise
ALTERNATIVES = 8  # likeliest tokens that are shown for each token
MAX_CONCURRENT = 2  # answers and scorings that run at once
MAX_QUEUED = 64  # that wait; more are asked to try again
MAX_SECONDS = 120.0  # of one answer
MAX_VISITORS = 200  # remembered
UPDATE_SECONDS = 0.05  # between two updates of the page during generation


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
                cancel_all(self._visitors.popitem(last=False)[1])
            return found

    def forget(self, name: str | None) -> None:
        """Drop the visitor of a closed page, and stop its answer."""
        with self._lock:
            visitor = self._visitors.pop(name or "", None)
        if visitor:
            cancel_all(visitor)

    def submit(
        self, visitor: WebConversation, written: object, model: object, *settings: object, system: object = ""
    ) -> None:
        """Request an answer to the conversation followed by `written`; settings in the order of LABELS.

        system: of a chat, its system message.
        """
        visitor.require_idle()
        turn = WebTurn(visitor.validated(written), system=text(system).strip())
        visitor.request = self._request(visitor, turn, visitor.turns, model, settings)
        visitor.add(turn)

    def retry(self, visitor: WebConversation, model: object, *settings: object, system: object = "") -> int:
        """Request another answer in place of the last one, with the next seed. Returns that seed."""
        visitor.require_idle()
        turn = WebTurn(visitor.last.said, system=text(system).strip())
        request = self._request(visitor, turn, visitor.turns[:-1], model, settings)
        visitor.replace_last(turn)
        visitor.request = replace(request, seed=min(request.seed + 1, MAX_SEED))
        return visitor.request.seed

    def _request(
        self,
        visitor: WebConversation,
        turn: WebTurn,
        before: Sequence[WebTurn],
        model: object,
        settings: Sequence[object],
    ) -> GenerationRequest:
        """The request for a turn that follows others; the turn notes its model and sampling settings."""
        size = len(turn.system) + sum(len(each.said) + len(each.answer) for each in [*before, turn])
        request = make_request(visitor.prompt_of(turn, before), model, settings, size)
        turn.model, turn.sampling = self.models.entry(model).name, request.sampling
        return request

    def generate(self, visitor: WebConversation) -> Generator[None]:
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

    def _generate(self, turn: WebTurn, request: GenerationRequest, visitor: WebConversation) -> Iterator[None]:
        """Append tokens to the turn until the length, end of text, Stop, or the time limit."""
        loaded = self.models.load(request.model)
        fitted = fitted_prompt(turn, request, loaded)
        prompt = prompt_ids(loaded.tokenizer, fitted)
        ids: list[int] = []
        decoder, updated = StreamingDecoder(loaded.tokenizer), time.monotonic()
        deadline = updated + MAX_SECONDS
        stop_tokens = loaded.tokenizer.stop_tokens
        length = most_new_tokens(loaded.model, fitted, prompt, request.max_new_tokens)
        steps = generate_ids(loaded.model, [prompt], [request.sampling], [request.seed], length, stop_tokens)
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
        visitor.message = ending(len(ids), length, request, late=time.monotonic() > deadline)
        if turn.left_out:
            visitor.message += f" {left_out_note(turn.left_out, loaded.model.config.context_length)}"

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        with self._lock:
            self.running += 1
        try:
            yield
        finally:
            with self._lock:
                self.running -= 1

    def stop(self, visitor: WebConversation) -> None:
        """End the visitor's request, within a token if it is running."""
        with self._lock:
            visitor.cancel()
            if not visitor.generating:  # it may never start: the queue was full, or the connection broke
                visitor.settle()

    def restore_predictions(self, visitor: WebConversation) -> None:
        """Recompute the token predictions of restored turns whose model has not changed."""
        for number, turn in enumerate(visitor.turns):
            if turn.ids and not turn.tokens:
                with contextlib.suppress(ValueError, OSError, MemoryError, RuntimeError):
                    loaded = self.models.load(turn.model)
                    same = loaded.version == turn.version and max(turn.ids) < loaded.tokenizer.vocab_size
                    if same and loaded.tokenizer.decode(turn.ids) == turn.answer:
                        prompt = visitor.prompt_of(turn, visitor.turns[:number])
                        add_predictions(turn, prompt_ids(loaded.tokenizer, prompt), loaded)

    def undo(self, visitor: WebConversation) -> str:
        """Remove the last turn. Returns the text that the visitor wrote in it."""
        visitor.require_idle()
        return visitor.undo().said if visitor.turns else ""

    def clear(self, visitor: WebConversation) -> None:
        """Remove all turns."""
        visitor.require_idle()
        visitor.clear()

    def score(self, written: object, model: object) -> tuple[LoadedModel, list[TokenPrediction], int]:
        """Predict the first MAX_SCORED tokens of a text: the model, predictions, and how many tokens are left out.

        Of a conversation (text_ids), only what the assistant writes is counted.
        """
        loaded = self.models.load(model)
        ids, counted = text_ids(loaded.tokenizer, nonempty_text(written))
        if ids[0] != loaded.tokenizer.end_of_text:  # with which a document starts
            ids, counted = [loaded.tokenizer.end_of_text, *ids], [0, *counted]
        predictions = predict_tokens(loaded.model, ids[: MAX_SCORED + 1], 1)
        marked = [replace(one, counted=bool(mark)) for one, mark in zip(predictions, counted[1:], strict=False)]
        return loaded, marked, max(0, len(ids) - 1 - MAX_SCORED)

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
        all_ids, _ = text_ids(loaded.tokenizer, nonempty_text(written))
        ids = all_ids[: min(MAX_MAPPED, config.context_length)]
        weights = activations.get_activations(loaded.model, ids).attention[block_number - 1, head_number - 1]
        return loaded, ids, weights, len(all_ids) > len(ids)


def cancel_all(visitor: Visitor) -> None:
    """End the generation of all answers of a visitor."""
    visitor.cancel()
    visitor.chat.cancel()


def fitted_prompt(turn: WebTurn, request: GenerationRequest, loaded: LoadedModel) -> Prompt:
    """The prompt; of messages, those that fit into the context with an answer (the turn notes how many do not).

    ValueError, in a sentence, if not even the last message fits, or if the model has no chat template.
    """
    if isinstance(request.prompt, str):
        return request.prompt
    context = loaded.model.config.context_length
    messages, turn.left_out = fitting(loaded.tokenizer, request.prompt, context, request.max_new_tokens)
    return messages


def text_ids(tokenizer: Tokenizer, written: str) -> tuple[list[int], list[int]]:
    """The ids of a text to analyze, and which of them count, equally long.

    If the text spells a conversation (requests.conversation) and the tokenizer has role tokens, the ids are those that
    the model sees, from <|endoftext|> on, and what the assistant writes counts. Of any other text, every token counts.
    """
    messages = conversation(written) if tokenizer.has_roles else None
    if messages:
        return tokenizer.encode_messages(messages)
    ids = tokenizer.encode(written)
    return ids, [1] * len(ids)


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


def ending(count: int, length: int, request: GenerationRequest, late: bool) -> str:
    """How an answer of `count` tokens ended, in a sentence. length: the most it could have had.

    A text normally ends at the limit and an answer to messages by itself; only the other case is mentioned.
    """
    messages, limit = not isinstance(request.prompt, str), count == length
    why = "stopped" if request.stop.is_set() else f"stopped after {MAX_SECONDS:.0f} seconds" if late else ""
    if not why and messages and limit:
        why = "cut off at the limit" if length == request.max_new_tokens else "cut off where the context is full"
    why = why or ("" if limit or messages else "end of text")
    return f"{count} token{'' if count == 1 else 's'}, seed {request.seed}" + (f"; {why}." if why else ".")


def left_out_note(count: int, context: int) -> str:
    """That the oldest messages were left out, in a sentence."""
    return f"The {count} oldest messages no longer fit into the context of {context:,} tokens and were left out."

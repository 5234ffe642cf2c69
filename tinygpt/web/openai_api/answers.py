"""Answers, generated in threads: a few at a time, others wait, and a client that leaves ends its own.

`answers = Answers(registry)`; `job = answers.submit(body)`, then `await job.start()` and `async for piece in job`. The
limits are those of the web page. A job owns its place until it ends, so a handler that is cancelled cannot keep one.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, cast

from tinygpt.chat.context import fitting
from tinygpt.errors import explain, out_of_memory
from tinygpt.generation.generate import Prompt, generate_ids, most_new_tokens, prompt_ids
from tinygpt.generation.stream import StoppingDecoder
from tinygpt.web.models import LoadedModel, ModelRegistry
from tinygpt.web.openai_api.errors import ApiError
from tinygpt.web.openai_api.requests import Body, ChatBody
from tinygpt.web.requests import shortened
from tinygpt.web.service import MAX_CONCURRENT, MAX_QUEUED, MAX_SECONDS

CLOSING = "The server is closing. Try again later."  # the client that has left does not see it


@dataclass(frozen=True)
class Start:
    """What is known before the first token."""

    model: str  # its name in the registry
    version: str  # of the model (LoadedModel.version)
    prompt_tokens: int
    left_out: int  # messages that did not fit into the context


@dataclass(frozen=True)
class Piece:
    """A part of an answer; the last one of each choice says how it ended and how many tokens it had."""

    choice: int
    text: str
    finish: str | None = None  # stop or length
    tokens: int = 0


class Job:
    """A request for answers, waiting or running."""

    def __init__(self, body: Body) -> None:
        self.body = body
        self.stop = threading.Event()  # set to end generation at its next token
        self.future: Future[None] = Future()
        self.watcher: asyncio.Task[None] | None = None  # kept here: the event loop alone would not keep it
        self._items: asyncio.Queue[Start | Piece | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def send(self, item: Start | Piece | Exception | None) -> None:
        """Hand an item to the event loop, from any thread; None ends the job."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
            self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def cancel(self) -> None:
        """End the job: at once while it waits, within a token while it runs."""
        self.stop.set()
        self.future.cancel()

    async def start(self) -> Start:
        """Wait for the first token's turn. ApiError if the request is refused, or the job was cancelled."""
        item = await self._next()
        if not isinstance(item, Start):
            raise ApiError(503, CLOSING)
        return item

    async def __aiter__(self) -> AsyncIterator[Piece]:
        """The pieces. ApiError if the job is cancelled."""
        while isinstance(item := await self._next(), Piece):
            yield item
        if self.stop.is_set():
            raise ApiError(503, CLOSING)

    async def _next(self) -> Start | Piece | None:
        item = await self._items.get()
        if isinstance(item, Exception):
            raise item
        return item


class Answers:
    """Runs at most MAX_CONCURRENT jobs; MAX_QUEUED more wait."""

    def __init__(self, models: ModelRegistry) -> None:
        self.models = models
        self.jobs: set[Job] = set()  # waiting or running
        self._threads = ThreadPoolExecutor(MAX_CONCURRENT, "answer")

    def submit(self, body: Body) -> Job:
        """Queue a request. ApiError 429 if too many wait. Called in the event loop."""
        if len(self.jobs) >= MAX_CONCURRENT + MAX_QUEUED:
            raise ApiError(429, f"{MAX_QUEUED} requests are waiting already. Try again later.")
        job, loop = Job(body), asyncio.get_running_loop()

        def ended(_: object) -> None:
            job.send(None)
            with contextlib.suppress(RuntimeError):  # as in Job.send
                loop.call_soon_threadsafe(self.jobs.discard, job)

        self.jobs.add(job)
        job.future = self._threads.submit(self._run, job)
        job.future.add_done_callback(ended)
        return job

    def cancel(self) -> None:
        """End all jobs, before the server closes: uvicorn waits for responses first."""
        for job in list(self.jobs):
            job.cancel()

    def close(self) -> None:
        """End all jobs, and the threads."""
        self.cancel()
        self._threads.shutdown()

    def _run(self, job: Job) -> None:
        try:
            loaded = self._load(job.body.model)
            for item in generated(job.body, loaded, job.stop):
                job.send(item)
        except Exception as problem:
            job.send(as_api_error(problem))

    def _load(self, name: str) -> LoadedModel:
        """The model of this name, of no name the first. ApiError 404 for an unknown one, 503 for a damaged one."""
        name = name or next(iter(self.models.find()), "")
        try:
            self.models.entry(name)
        except ValueError:
            if name not in self.models.find():  # it may be new
                message = f"There is no model {shortened(name)}. GET /v1/models lists them."
                raise ApiError(404, message, "model", "model_not_found") from None
        try:
            return self.models.load(name)
        except (ValueError, OSError) as problem:
            raise ApiError(503, f"The model cannot be loaded: {explain(problem) or problem}", "model") from problem


def as_api_error(problem: Exception) -> Exception:
    """A refusal for an expected error; an unexpected one as it is."""
    if out_of_memory(problem):
        return ApiError(503, "There is not enough memory for this answer. Ask for fewer or shorter ones.")
    return ApiError(400, str(problem)) if isinstance(problem, ValueError) else problem


def generated(body: Body, loaded: LoadedModel, stop: threading.Event) -> Iterator[Start | Piece]:
    """Start, then the pieces of all choices. ValueError for messages that do not fit, or that cannot be encoded."""
    prompts, left_out = fitting_prompts(body, loaded)
    ids = [prompt_ids(loaded.tokenizer, prompt) for prompt in prompts]
    yield Start(loaded.entry.name, loaded.version, sum(map(len, ids)), left_out)
    rows = [row for row in range(len(prompts)) for _ in range(body.n)]
    limits = [most_new_tokens(loaded.model, prompts[row], ids[row], body.max_new_tokens) for row in rows]
    yield from choices(body, loaded, [ids[row] for row in rows], limits, stop)


def fitting_prompts(body: Body, loaded: LoadedModel) -> tuple[Sequence[Prompt], int]:
    """The prompts, of messages the last turns that fit, and how many messages are left out.

    ApiError for messages to a model without a chat template.
    """
    if not isinstance(body, ChatBody):
        return body.prompts, 0
    if not loaded.tokenizer.has_roles:
        raise ApiError(
            400,
            f"The model {loaded.entry.name} completes text: it has no chat template. Send a prompt to "
            "/v1/completions, or fine-tune it on conversations (docs/chat.md).",
            "model",
        )
    context = loaded.model.config.context_length
    (messages,) = body.prompts
    kept, left_out = fitting(loaded.tokenizer, cast(Any, messages), context, body.max_new_tokens)
    return [kept], left_out


def choices(
    body: Body, loaded: LoadedModel, prompts: list[list[int]], limits: list[int], stop: threading.Event
) -> Iterator[Piece]:
    """Continue all prompts in one batch, each up to its limit; those of one text have the seeds seed, seed + 1, …"""
    rows = range(len(prompts))
    texts, counts = [StoppingDecoder(loaded.tokenizer, body.stop) for _ in rows], [0] * len(prompts)
    deadline, cut = time.monotonic() + MAX_SECONDS, False
    seeds, settings = [body.seed + row % body.n for row in rows], [body.sampling] * len(rows)

    def ended(row: int) -> bool:
        return texts[row].ended or counts[row] >= limits[row]

    stop_tokens = loaded.tokenizer.stop_tokens
    steps = generate_ids(loaded.model, prompts, settings, seeds, max(limits), stop_tokens, ended=ended)
    with contextlib.closing(cast(Generator[list[int | None]], steps)):
        for step in steps:
            if cut := stop.is_set() or time.monotonic() > deadline:
                break
            for row, token in enumerate(step):
                if token is not None:
                    counts[row] += 1
                    yield Piece(row, texts[row].add(token))
    for row in [] if stop.is_set() else rows:
        full = not texts[row].ended and (cut or counts[row] >= limits[row])
        yield Piece(row, texts[row].add(None), "length" if full else "stop", counts[row])

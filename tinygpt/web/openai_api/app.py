"""The API over HTTP: GET /v1/models, POST /v1/chat/completions, POST /v1/completions.

`app(Answers(registry), password)` is an ASGI app, and `run(…)` serves it. requests.py validates bodies, answers.py
generates, replies.py has the form of responses, middleware.py filters requests. Left out: embeddings, tools, log
probabilities, images.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tinygpt.web.middleware import LOOPBACK
from tinygpt.web.models import ModelEntry, ModelRegistry
from tinygpt.web.openai_api.answers import Answers, Job
from tinygpt.web.openai_api.errors import ApiError, error_json
from tinygpt.web.openai_api.middleware import PATHS, ApiMiddleware
from tinygpt.web.openai_api.replies import Reply
from tinygpt.web.openai_api.requests import Body, ChatBody, TextBody, parse
from tinygpt.web.server import allowed_hosts, listen, serve

UNEXPECTED = "An unexpected error occurred. The terminal that runs `tinygpt serve` shows the details."


class Endpoints:
    """One method for each address."""

    def __init__(self, answers: Answers) -> None:
        self.answers = answers

    async def models(self, _: Request) -> Response:
        """List the models."""
        found = await run_in_threadpool(self.answers.models.find)
        return JSONResponse({"object": "list", "data": [model_json(entry) for entry in found.values()]})

    async def chat_completions(self, request: Request) -> Response:
        """Answer messages."""
        return await self._answer(request, ChatBody)

    async def completions(self, request: Request) -> Response:
        """Continue texts."""
        return await self._answer(request, TextBody)

    async def _answer(self, request: Request, kind: type[Body]) -> Response:
        job = self.answers.submit(parse(kind, await request.body()))
        job.watcher = asyncio.create_task(cancel_when_gone(request, job))
        reply = Reply(job.body, await job.start())
        if job.body.stream:
            return StreamingResponse(events(reply, job), media_type="text/event-stream")
        return JSONResponse(reply.whole([piece async for piece in job]))


async def cancel_when_gone(request: Request, job: Job) -> None:
    """Cancel the job when the client has left; also when it has its response, which changes nothing."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    job.cancel()


async def events(reply: Reply, job: Job) -> AsyncIterator[str]:
    """The server-sent events of a stream. The status is sent already, so an error becomes an event."""
    tokens = 0
    try:
        for chunk in reply.opening():
            yield event(chunk)
        async for piece in job:
            tokens += piece.tokens
            if piece.text or piece.finish:
                yield event(reply.chunk(piece))
        for chunk in reply.closing(tokens):
            yield event(chunk)
        yield "data: [DONE]\n\n"
    except ApiError as problem:
        yield event(problem.json())
    except Exception:
        yield event(error_json(500, UNEXPECTED))
        raise
    finally:
        job.cancel()


def event(value: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def model_json(entry: ModelEntry) -> dict[str, Any]:
    """A model in the list; an experiment that was not used yet has no folder, and so no date."""
    try:
        created = int(entry.folder.stat().st_mtime)
    except OSError:  # also while DVC replaces it
        created = 0
    return {"id": entry.name, "object": "model", "created": created, "owned_by": "tinygpt"}


async def _refused(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, ApiError)
    headers = {"retry-after": "1"} if problem.status in (429, 503) else None
    return JSONResponse(problem.json(), problem.status, headers)


async def _wrong_method(_: Request, problem: Exception) -> Response:
    assert isinstance(problem, HTTPException)
    return JSONResponse(
        error_json(problem.status_code, f"{problem.detail}. GET /v1/models, and POST to the others."),
        problem.status_code,
        problem.headers,
    )


async def _failed(_: Request, problem: Exception) -> Response:
    return JSONResponse(error_json(500, UNEXPECTED), 500)  # Starlette raises it again, and uvicorn prints it


def app(answers: Answers, password: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK) -> ApiMiddleware:
    """The API behind ApiMiddleware, as an ASGI app."""
    endpoints = Endpoints(answers)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await run_in_threadpool(answers.close)

    handlers = (endpoints.models, endpoints.chat_completions, endpoints.completions)
    routes = [
        Route(path, handler, methods=["POST" if place else "GET"])
        for place, (path, handler) in enumerate(zip(PATHS, handlers, strict=True))
    ]
    refusals: Any = {ApiError: _refused, HTTPException: _wrong_method, Exception: _failed}
    return ApiMiddleware(Starlette(routes=routes, exception_handlers=refusals, lifespan=lifespan), password, hosts)


def run(models: ModelRegistry, host: str, port: int, password: str | None, announce: Callable[[str], None]) -> None:
    """Serve the API until Ctrl-C. announce: called with its address. ValueError as `listen`."""
    listener, answers = listen(host, port), Answers(models)
    serve(app(answers, password, allowed_hosts(host)), listener, host, announce, answers.cancel)

"""Serves the page for tests, and visits it over HTTP or in Chromium."""

import contextlib
import json
import os
import shutil
import socket
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn

from tinygpt.web import app
from tinygpt.web.middleware import App
from tinygpt.web.models import ModelRegistry
from tinygpt.web.service import Service

TIMEOUT = 60.0  # seconds


@contextlib.contextmanager
def served(*folders: Path) -> Iterator[tuple[str, Service]]:
    """Serve the page with these models in a thread of this process: (address, service)."""
    service = Service(ModelRegistry(folders))
    with running(app.app(service)) as address:
        yield address, service


@contextlib.contextmanager
def running(served_app: App) -> Iterator[str]:
    """Run an ASGI app in a thread of this process: its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(served_app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def until(condition: Callable[[], bool], seconds: float = TIMEOUT) -> bool:
    """Whether a condition becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


class Visitor:
    """An HTTP client of the page; events are named after their handlers."""

    def __init__(self, address: str) -> None:
        self.address, self.name = address, uuid.uuid4().hex[:10]
        config = json.loads(self.get("/config"))
        self.events = {event["api_name"]: event["id"] for event in config["dependencies"]}

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=TIMEOUT) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        """POST a body: (status, response)."""
        ask = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(ask, timeout=TIMEOUT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def at_once(self, event: str, *values: Any) -> tuple[int, str]:
        """An event that needs no model: (status, response)."""
        return self.post("/gradio_api/run/predict", self._body(event, values))

    def queued(self, event: str, *values: Any) -> tuple[int, str]:
        """A queued event: (status, all streamed messages)."""
        status, answer = self.post("/gradio_api/queue/join", self._body(event, values))
        if status == 200:
            answer = self.get(f"/gradio_api/queue/data?session_hash={self.name}").decode()
        return status, answer

    def _body(self, event: str, values: tuple[Any, ...]) -> bytes:
        event_data = {"data": list(values), "fn_index": self.events[event], "session_hash": self.name}
        return json.dumps(event_data).encode()  # NaN stays NaN


def chromium() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright, without network requests of its own."""
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        scrollbars = ["--hide-scrollbars"]  # a default of Playwright, which makes the page wider than for users
        window = driver.chromium.launch(
            executable_path=chromium(), args=[*quiet, *sandbox], ignore_default_args=scrollbars
        )
        yield window
        window.close()

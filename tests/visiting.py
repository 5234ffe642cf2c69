"""A page being served, and visitors that speak HTTP to it as a browser does, or as one would not."""

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
from tinygpt.web.models import ModelRegistry
from tinygpt.web.service import Serving

PATIENCE = 60.0  # seconds that a test waits before it takes something for lost


@contextlib.contextmanager
def served(*folders: Path) -> Iterator[tuple[str, Serving]]:
    """A page of these models in a thread of this process: its address, and what answers it."""
    serving = Serving(ModelRegistry(folders))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app.app(serving), log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", serving
        finally:
            server.should_exit = True
            thread.join()


def until(holds: Callable[[], bool], seconds: float = PATIENCE) -> bool:
    """Whether it comes to hold in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.01)
    return holds()


class Visitor:
    """One with a page open, whose events are named by what they do."""

    def __init__(self, address: str) -> None:
        self.address, self.name = address, uuid.uuid4().hex[:10]
        config = json.loads(self.get("/config"))
        self.events = {event["api_name"]: event["id"] for event in config["dependencies"]}

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.address + path, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def post(self, path: str, body: bytes) -> tuple[int, str]:
        """Send anything: (status, the answer)."""
        ask = urllib.request.Request(self.address + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(ask, timeout=PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()

    def at_once(self, event: str, *values: Any) -> tuple[int, str]:
        """An event that no model is asked for: (status, the answer)."""
        return self.post("/gradio_api/run/predict", self._body(event, values))

    def queued(self, event: str, *values: Any) -> tuple[int, str]:
        """An event that asks a model, waited for: (status, all that came, line by line)."""
        status, answer = self.post("/gradio_api/queue/join", self._body(event, values))
        if status == 200:
            answer = self.get(f"/gradio_api/queue/data?session_hash={self.name}").decode()
        return status, answer

    def _body(self, event: str, values: tuple[Any, ...]) -> bytes:
        asked = {"data": list(values), "fn_index": self.events[event], "session_hash": self.name}
        return json.dumps(asked).encode()  # NaN goes out as NaN


def chromium() -> str | None:
    """Where a browser is that Playwright can drive."""
    return next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)


@contextlib.contextmanager
def browser() -> Iterator[Any]:
    """Chromium, driven by Playwright, with nothing of its own that reaches for the network."""
    from playwright.sync_api import sync_playwright

    quiet = ["--disable-background-networking", "--disable-component-update", "--no-first-run"]
    sandbox = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as driver:
        shown = ["--hide-scrollbars"]  # which Playwright passes, and with which a page is wider than it is for people
        window = driver.chromium.launch(executable_path=chromium(), args=[*quiet, *sandbox], ignore_default_args=shown)
        yield window
        window.close()

"""Middleware between the network and the page: access control and rate limits.

`SecurityMiddleware(app, password, hosts)` wraps an ASGI app. It knows the few addresses that the page needs and refuses
all others, caps what a request may carry, asks for the password where there is one (HTTP Basic, on every address), and
tells the browser to load nothing from anywhere else. Left out: encryption. Put a proxy with TLS in front for that.
"""

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import socket
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

LARGEST = 2**18  # bytes of a request: the longest text, written as JSON in its longest way, and a stored conversation
DRAINED = 2**24  # bytes of a request that are read before it is refused
SHORTEST = 8  # characters of a password
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PAGES = {"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt"}
FOLDERS = ("/assets/", "/static/")
EVENTS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
CALLS = (
    *EVENTS,
    *(f"/gradio_api/{name}" for name in ("queue/data", "heartbeat/", "cancel", "reset", "startup-events")),
)
HEADERS = {
    # Gradio compiles its templates in the browser, which takes unsafe-eval; nothing comes from, or goes, elsewhere
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class SecurityMiddleware:
    """An ASGI app around another."""

    def __init__(
        self,
        app: App,
        takes: Mapping[int, int],
        password: str | None = None,
        hosts: tuple[str, ...] | None = LOOPBACK,
    ) -> None:
        """takes: how many values each event of the page takes, by its number. hosts: names by which the page may be
        asked for, since a stranger's page could have its own name point here; None: any.
        """
        self.app, self.takes, self.password, self.hosts = app, takes, password, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is None and not self._knows(headers.get("authorization", "")):
            await asyncio.sleep(1 if "authorization" in headers else 0)  # guessing takes time
            refusal = 401, "This page asks for a password; any name will do."
        body = await read_body(receive, headers.get("content-length", ""))  # before a refusal, too: it would not arrive
        if refusal is None and body is None:
            refusal = 413, f"That is more than this page takes at once ({LARGEST // 1024} KB)."
        if not refusal and body is not None and scope["path"].startswith(EVENTS) and not self._is_event(body):
            refusal = 400, "That is no event of this page."
        if refusal is not None:
            await refuse(send, *refusal)
            return

        first = True

        async def again() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in HEADERS]
                message["headers"] = [*kept, *((a.encode(), b.encode()) for a, b in HEADERS.items())]
            await send(message)

        await self.app(scope, again, guarded)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """Why a request is not answered, as a status and a sentence; None where it is."""
        host = headers.get("host", "")
        if self.hosts is not None and host.rpartition(":")[0] not in self.hosts and host not in self.hosts:
            return 421, "This page is not known by that name."
        if method not in ("GET", "HEAD", "POST"):
            return 405, "This page is read and written to with GET and POST only."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, "Another page may not write to this one."
        if not (path in PAGES or path.startswith((*FOLDERS, *CALLS))) or {"..", "."} & set(path.split("/")):
            return 404, "There is nothing here."
        return None

    def _is_event(self, body: bytes) -> bool:
        """Whether a request has the form of an event: what its values are is seen to elsewhere."""
        try:
            asked = json.loads(body)
            values, takes = asked["data"], self.takes.get(asked["fn_index"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        name = asked.get("session_hash")
        return isinstance(values, list) and len(values) == takes and isinstance(name, str) and 0 < len(name) <= 64

    def _knows(self, authorization: str) -> bool:
        """Whether the password was given, if there is one; compared in the same time whatever was given."""
        if self.password is None:
            return True
        try:
            given = base64.b64decode(authorization.removeprefix("Basic "), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return False
        return authorization.startswith("Basic ") and hmac.compare_digest(given, self.password.encode())


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a page that listens there."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def read_password(file: Path) -> str:
    """The first line of a file; ValueError, in a sentence, where there is no such line to read."""
    try:
        return file.read_text(encoding="utf-8").split("\n")[0]
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "it is no UTF-8 text"
        raise ValueError(
            f"The --password-file {file} cannot be read ({why}). Write the password into its first line, or set "
            "TINYGPT_PASSWORD."
        ) from None


def check_host(host: str) -> None:
    """ValueError, in a sentence, for a host that is not known here: neither an address nor a name of one."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise ValueError(
            f"There is no host {host!r} here. Write an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all "
            "that it has; or leave out --host."
        ) from None


def check_password(password: str | None, loopback: bool) -> None:
    """ValueError, in a sentence, for a password too short to be one, and for none where others can reach the page."""
    if password is None and not loopback:
        raise ValueError(
            "Others can reach a page that listens there, so it needs a password: set TINYGPT_PASSWORD, or name a "
            "--password-file. Or leave out --host."
        )
    if password is not None and len(password) < SHORTEST:
        raise ValueError(f"The password has {len(password)} characters; it must have {SHORTEST} or more.")


async def read_body(receive: Receive, announced: str) -> bytes | None:
    """What a request carries; None where that is more than LARGEST, whatever it announced.

    Too much is read to its end all the same, and forgotten, as long as it is not beyond all measure: whoever is cut
    off while sending does not see the answer.
    """
    if announced.isdecimal() and int(announced) > DRAINED:
        return None
    body, size, more = b"", 0, True
    while more and size <= DRAINED:
        message = await receive()
        part, more = message.get("body", b""), message.get("more_body", False)
        size += len(part)
        body = body + part if size <= LARGEST else b""
    return body if size <= LARGEST else None


async def refuse(send: Send, status: int, text: str) -> None:
    """Answer with a sentence."""
    size = str(len(text.encode())).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", size)]
    headers += [*((a.encode(), b.encode()) for a, b in HEADERS.items())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="TinyGPT", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})

"""Middleware between the network and the page: access control and size limits.

`SecurityMiddleware(app, input_counts, password, hosts)` wraps an ASGI app. It allows only the addresses that the page
uses, limits the size of a request, asks for the password if there is one (HTTP Basic, on every address), and forbids
the browser to load anything from other servers. It does not encrypt: put a TLS proxy in front for that. Its subclass
for `tinygpt serve` (openai_api/middleware.py) has other addresses, and takes the password as a Bearer token.
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

MAX_BODY = 2**18  # bytes of a request: the longest text in JSON's longest encoding, and a stored conversation
MAX_DRAINED = 2**24  # bytes of a request that are read before it is refused
MIN_PASSWORD = 8  # characters
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
PAGES = {"/", "/config", "/theme.css", "/manifest.json", "/favicon.ico", "/robots.txt"}
FOLDERS = ("/assets/", "/static/")
EVENTS = ("/gradio_api/queue/join", "/gradio_api/run/predict")
CALLS = (
    *EVENTS,
    *(f"/gradio_api/{name}" for name in ("queue/data", "heartbeat/", "cancel", "reset", "startup-events")),
)
HEADERS = {
    # Gradio compiles its templates in the browser, which needs unsafe-eval; no other server may be contacted
    "content-security-policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}


class SecurityMiddleware:
    """An ASGI app that filters the requests to another."""

    command = "tinygpt web"  # starts the server
    unauthorized = "A password is required. Any user name works."
    not_found = "Not found. The page is at /."

    def __init__(
        self,
        app: App,
        input_counts: Mapping[int, int],
        password: str | None = None,
        hosts: tuple[str, ...] | None = LOOPBACK,
    ) -> None:
        """input_counts: Gradio's number of an event → how many values it takes. hosts: the allowed Host headers, which
        prevents DNS rebinding; None allows any.
        """
        self.app, self.input_counts, self.password, self.hosts = app, input_counts, password, hosts

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._respond(scope, receive, send)

    async def _respond(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refusal = self._refusal(scope["method"], scope["path"], headers)
        if refusal is None and not self._is_authorized(headers.get("authorization", "")):
            await asyncio.sleep(1 if "authorization" in headers else 0)  # slows down guessing
            refusal = 401, self.unauthorized
        body = await read_body(receive, headers.get("content-length", ""))  # also before a refusal; see read_body
        if refusal is None and body is None:
            refusal = 413, f"The request is too large. At most {MAX_BODY // 1024} KB are accepted; send less text."
        if not refusal and body is not None and scope["path"].startswith(EVENTS) and not self._is_event(body):
            refusal = 400, "The request is not an event of this page. Reload the page."
        if refusal is not None:
            await self.refuse(send, *refusal)
            return

        first = True

        async def replay() -> Message:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                kept = [pair for pair in message["headers"] if pair[0].decode("latin-1").lower() not in HEADERS]
                message["headers"] = [*kept, *((a.encode(), b.encode()) for a, b in HEADERS.items())]
            await send(message)

        await self.app(scope, replay, send_with_headers)

    def _refusal(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str] | None:
        """The status and sentence that refuse a request; None if it is allowed."""
        host = headers.get("host", "")
        if self.hosts is not None and host.rpartition(":")[0] not in self.hosts and host not in self.hosts:
            return 421, f"This host name is not allowed. Use the address that `{self.command}` prints."
        if method not in ("GET", "HEAD", "POST"):
            return 405, "Only GET, HEAD and POST are allowed."
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return 403, f"Requests from other sites are not allowed. Use the address that `{self.command}` prints."
        if not self.is_served(path) or {"..", "."} & set(path.split("/")):
            return 404, self.not_found
        return None

    def is_served(self, path: str) -> bool:
        """Whether the app needs this address."""
        return path in PAGES or path.startswith((*FOLDERS, *CALLS))

    async def refuse(self, send: Send, status: int, text: str) -> None:
        """Send a refusal."""
        await send_text(send, status, text)

    def _is_event(self, body: bytes) -> bool:
        """Whether a body has the form of an event; its handler validates the values."""
        try:
            event = json.loads(body)
            values, count = event["data"], self.input_counts.get(event["fn_index"])
        except (ValueError, KeyError, TypeError, RecursionError):
            return False
        name = event.get("session_hash")
        return isinstance(values, list) and len(values) == count and isinstance(name, str) and 0 < len(name) <= 64

    def _is_authorized(self, authorization: str) -> bool:
        """Whether the header holds the password, if there is one; the comparison takes constant time."""
        if self.password is None:
            return True
        given = self.given_password(authorization)
        return given is not None and hmac.compare_digest(given, self.password.encode())

    def given_password(self, authorization: str) -> bytes | None:
        """The password in the header; None if the header is malformed."""
        try:
            given = base64.b64decode(authorization.removeprefix("Basic "), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return None
        return given if authorization.startswith("Basic ") else None


def is_loopback(host: str) -> bool:
    """Whether a page that listens on this host can be reached from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def read_password(file: Path) -> str:
    """The first line of a file. ValueError, in a sentence, if it cannot be read."""
    try:
        return file.read_text(encoding="utf-8").split("\n")[0]
    except (OSError, UnicodeDecodeError) as problem:
        why = problem.strerror if isinstance(problem, OSError) else "not UTF-8 text"
        raise ValueError(
            f"Cannot read --password-file {file} ({why}). Write the password into its first line, or set "
            "TINYGPT_PASSWORD."
        ) from None


def check_host(host: str) -> None:
    """ValueError, in a sentence, for a host name that cannot be resolved."""
    try:
        socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        raise ValueError(
            f"--host {host!r} is unknown. Write an address of this machine, such as 127.0.0.1, or 0.0.0.0 for all of "
            "them; or leave out --host."
        ) from None


def check_password(password: str | None, loopback: bool) -> None:
    """ValueError, in a sentence, for a short password, or for none if other machines can reach the page."""
    if password is None and not loopback:
        raise ValueError(
            "Other machines can reach the server at this --host, so it needs a password: set TINYGPT_PASSWORD, or pass "
            "--password-file. Or leave out --host."
        )
    if password is not None and len(password) < MIN_PASSWORD:
        raise ValueError(f"The password has {len(password)} characters; it must have {MIN_PASSWORD} or more.")


async def read_body(receive: Receive, content_length: str) -> bytes | None:
    """The body of a request; None if it is longer than MAX_BODY.

    A longer body is still read, up to MAX_DRAINED, and discarded: a client that is cut off while sending never sees the
    response. One announced as longer than MAX_DRAINED is not read.
    """
    if content_length.isdecimal() and int(content_length) > MAX_DRAINED:
        return None
    body, size, more = b"", 0, True
    while more and size <= MAX_DRAINED:
        message = await receive()
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        body = body + chunk if size <= MAX_BODY else b""
    return body if size <= MAX_BODY else None


async def send_text(send: Send, status: int, text: str) -> None:
    """Send a plain-text response."""
    size = str(len(text.encode())).encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", size)]
    headers += [*((a.encode(), b.encode()) for a, b in HEADERS.items())]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="TinyGPT", charset="UTF-8"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})

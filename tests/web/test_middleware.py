"""SecurityMiddleware allows the requests that the page needs, and no others."""

import asyncio
import base64
import json
from typing import Any

import pytest

from tinygpt.web.middleware import LOOPBACK, MAX_BODY, MAX_DRAINED, SecurityMiddleware, check_password, is_loopback

PASSWORD = "correct horse"


def respond(
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    password: str | None = None,
    hosts: tuple[str, ...] | None = LOOPBACK,
) -> tuple[int, dict[str, str], bytes]:
    """Send a request through the middleware to an app that echoes it: status, headers, body."""

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        message = await receive()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"referrer-policy", b"unsafe-url")]})
        await send({"type": "http.response.body", "body": b"inside " + message["body"]})

    sent: list[Any] = []

    async def go() -> None:
        chunks = [body[start : start + 60_000] for start in range(0, len(body), 60_000)] or [b""]

        async def receive() -> Any:
            return {"type": "http.request", "body": chunks.pop(0), "more_body": bool(chunks)}

        async def send(message: Any) -> None:
            sent.append(message)

        named = {"host": "127.0.0.1:7860"} | (headers or {})
        pairs = [(name.encode(), value.encode("latin-1")) for name, value in named.items()]
        scope: Any = {"type": "http", "method": method, "path": path, "headers": pairs}
        await SecurityMiddleware(inner, {3: 2, 4: 0}, password, hosts)(scope, receive, send)

    asyncio.run(go())
    start, end = sent
    return start["status"], {a.decode(): b.decode() for a, b in start["headers"]}, end["body"]


def test_the_page_is_served_and_may_load_nothing_from_elsewhere() -> None:
    status, headers, body = respond()
    assert (status, body) == (200, b"inside ")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]
    assert headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/proxy=http://example.org",
        "/gradio_api/info",
        "/gradio_api/call/begin",
        "/gradio_api/run/begin",
        "/gradio_api/component_server",
        "/gradio_api/openapi.json",
        "/assets/../../../etc/passwd",
        "/static/./../config.json",
        "/monitoring",
        "/docs",
        "//",
        "/nowhere",
    ],
)
def test_addresses_that_the_page_does_not_need_are_not_found(path: str) -> None:
    assert respond(path)[0] == 404
    assert respond(path, "POST")[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example:7860"}, 421),
        ({"host": ""}, 421),
        ({"host": "localhost:7860"}, 200),
        ({"host": "[::1]:7860"}, 200),
        ({"origin": "http://127.0.0.1:7860"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
    ],
)
def test_other_host_names_and_origins_are_refused(headers: dict[str, str], status: int) -> None:
    assert respond(headers=headers)[0] == status


def test_other_methods_are_refused() -> None:
    assert [respond(method=method)[0] for method in ("PUT", "DELETE", "OPTIONS", "TRACE")] == [405] * 4


def event(**changes: Any) -> bytes:
    return json.dumps({"fn_index": 3, "data": [1, 2], "session_hash": "x"} | changes).encode()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (event(), 200),
        (event(fn_index=4, data=[]), 200),
        (event(data=[1]), 400),
        (event(data=[1, 2, 3]), 400),
        (event(data={"0": 1}), 400),
        (event(fn_index=99), 400),
        (event(fn_index=[]), 400),
        (event(session_hash=None), 400),
        (event(session_hash="x" * 65), 400),
        (b"[]", 400),
        (b"null", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"", 400),
        (event(data=["x" * MAX_BODY, 1]), 413),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, bytes) else str(value),
)
@pytest.mark.parametrize("path", ["/gradio_api/queue/join", "/gradio_api/run/predict"])
def test_a_body_that_is_not_an_event_is_refused(path: str, body: bytes, status: int) -> None:
    found, _, answer = respond(path, "POST", body)
    assert found == status
    assert answer == b"inside " + body if status == 200 else answer.endswith(b".")


def test_a_body_announced_as_too_large_is_not_read() -> None:
    assert respond("/", "POST", b"x", {"content-length": str(MAX_DRAINED + 1)})[0] == 413


@pytest.mark.parametrize(
    ("given", "status"),
    [
        (None, 401),
        (f"any name:{PASSWORD}", 200),
        (f":{PASSWORD}", 200),
        ("admin:wrong", 401),
        (PASSWORD, 401),
        ("", 401),
    ],
)
@pytest.mark.parametrize("path", ["/", "/assets/index.js", "/gradio_api/heartbeat/x"])
def test_every_address_needs_the_password(
    path: str, given: str | None, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("asyncio.sleep", sleep)
    headers = {"host": "tiny.example"}
    if given is not None:
        headers["authorization"] = "Basic " + base64.b64encode(given.encode()).decode()
    found, answered, _ = respond(path, headers=headers, password=PASSWORD, hosts=None)
    assert found == status
    assert ("www-authenticate" in answered) == (status == 401)
    if status == 401:
        assert waited == [0 if given is None else 1]  # a wrong guess is delayed


@pytest.mark.parametrize("header", ["Basic", "Basic ???", "Bearer x", "Basic " + "é" * 5])
def test_a_malformed_authorization_header_is_refused(header: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sleep(seconds: float) -> None:
        pass

    monkeypatch.setattr("asyncio.sleep", sleep)
    assert respond(password=PASSWORD, headers={"authorization": header})[0] == 401


def test_a_page_that_others_can_reach_needs_a_password() -> None:
    with pytest.raises(ValueError, match="needs a password: set TINYGPT_PASSWORD"):
        check_password(None, loopback=False)
    with pytest.raises(ValueError, match="must have 8 or more"):
        check_password("short", loopback=True)
    check_password(None, loopback=True)
    check_password(PASSWORD, loopback=False)
    assert [
        is_loopback(host)
        for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost", "0.0.0.0", "::", "10.0.0.1", "127.example")
    ] == [
        True,
        True,
        True,
        True,
        False,
        False,
        False,
        False,
    ]

"""Run an ASGI app with uvicorn: `serve(app, listen(host, port), host, announce)`, for `tinygpt web` and `serve`."""

import contextlib
import socket
from collections.abc import Callable

import uvicorn

from tinygpt.web.middleware import LOOPBACK, App, is_loopback

MAX_CONNECTIONS = 400  # open at a time


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 picks a free one. ValueError, in a sentence, if the port is taken or the host is
    not an address of this machine.
    """
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as problem:
        raise ValueError(
            f"Cannot listen at {host}, port {port} ({problem.strerror}). Try another --port, or another --host."
        ) from None


def allowed_hosts(host: str) -> tuple[str, ...] | None:
    """The Host headers that a server on this host accepts (SecurityMiddleware); None for any."""
    return (*LOOPBACK, host) if is_loopback(host) else None


class Server(uvicorn.Server):
    """A server that ends what runs before it waits for the responses."""

    def __init__(self, config: uvicorn.Config, end: Callable[[], None]) -> None:
        super().__init__(config)
        self.end = end

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.end()
        await super().shutdown(sockets)


def serve(
    app: App,
    listener: socket.socket,
    host: str,
    announce: Callable[[str], None],
    end: Callable[[], None] = lambda: None,
) -> None:
    """Serve an app until Ctrl-C. announce: called with its address; end: called first at the end."""
    config = uvicorn.Config(app, log_level="warning", limit_concurrency=MAX_CONNECTIONS, timeout_graceful_shutdown=1)
    shown = f"[{host}]" if ":" in host else host
    announce(f"http://{shown}:{listener.getsockname()[1]}")
    with contextlib.suppress(KeyboardInterrupt):  # raised again after uvicorn's graceful shutdown
        Server(config, end).run(sockets=[listener])

"""SecurityMiddleware for `tinygpt serve`: its addresses, the key as a Bearer token, refusals in OpenAI's form."""

import json

from tinygpt.web.middleware import HEADERS, LOOPBACK, App, SecurityMiddleware, Send
from tinygpt.web.openai_api.errors import error_json

PATHS = ("/v1/models", "/v1/chat/completions", "/v1/completions")


class ApiMiddleware(SecurityMiddleware):
    """An ASGI app that filters the requests to the API."""

    command = "tinygpt serve"
    unauthorized = "The API key is missing or wrong. Send the server's password as `Authorization: Bearer PASSWORD`."
    not_found = f"Not found. There are {', '.join(PATHS)}."

    def __init__(self, app: App, password: str | None = None, hosts: tuple[str, ...] | None = LOOPBACK) -> None:
        """password: the API key, if there is one. hosts: as in SecurityMiddleware."""
        super().__init__(app, {}, password, hosts)

    def is_served(self, path: str) -> bool:
        """Whether there is an endpoint at this address."""
        return path in PATHS

    def given_password(self, authorization: str) -> bytes | None:
        """The key in the header; None if the header is malformed."""
        scheme, _, key = authorization.partition(" ")
        return key.strip().encode("latin-1") if scheme.lower() == "bearer" else None

    async def refuse(self, send: Send, status: int, text: str) -> None:
        """Send a refusal as JSON."""
        body = json.dumps(error_json(status, text)).encode()
        headers = HEADERS | {"content-type": "application/json", "content-length": str(len(body))}
        if status == 401:
            headers["www-authenticate"] = 'Bearer realm="TinyGPT"'
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": pairs})
        await send({"type": "http.response.body", "body": body})

"""Errors in OpenAI's form: `raise ApiError(404, "There is no model …")`, and `error_json(…)` for the body."""

from typing import Any

CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


class ApiError(Exception):
    """A request that is refused, with an HTTP status and a sentence for the client."""

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None) -> None:
        """param: the parameter at fault; code: as OpenAI names the problem."""
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def json(self) -> dict[str, Any]:
        """The body of the response."""
        return error_json(self.status, self.message, self.param, self.code)


def error_json(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of a response with this status."""
    kind = "server_error" if status >= 500 else "rate_limit_error" if status == 429 else "invalid_request_error"
    return {"error": {"message": message, "type": kind, "param": param, "code": code or CODES.get(status)}}

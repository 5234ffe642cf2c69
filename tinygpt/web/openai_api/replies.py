"""Answers in OpenAI's form: `Reply(body, start)`, then `whole(pieces)`, or `chunk(piece)` for each piece."""

import secrets
import time
from collections.abc import Iterable, Iterator
from typing import Any

from tinygpt.web.openai_api.answers import Piece, Start
from tinygpt.web.openai_api.requests import Body, ChatBody


class Reply:
    """The response to one request.

    Beyond OpenAI's fields it has `seed`, which `tinygpt generate --seed` takes, and for a chat `left_out`: how many
    messages did not fit into the context.
    """

    def __init__(self, body: Body, start: Start) -> None:
        self.body, self.start, self.chat = body, start, isinstance(body, ChatBody)
        prefix, kind = ("chatcmpl-", "chat.completion") if self.chat else ("cmpl-", "text_completion")
        self.head: dict[str, Any] = {
            "id": prefix + secrets.token_hex(12),
            "object": kind + (".chunk" if self.chat and body.stream else ""),
            "created": int(time.time()),
            "model": start.model,
            "system_fingerprint": start.version,
            "seed": body.seed,
        } | ({"left_out": start.left_out} if self.chat else {})

    def whole(self, pieces: Iterable[Piece]) -> dict[str, Any]:
        """The response with all choices."""
        texts: dict[int, str] = {}
        last: dict[int, Piece] = {}
        for piece in pieces:
            texts[piece.choice] = texts.get(piece.choice, "") + piece.text
            last[piece.choice] = piece
        choices = [self._choice(index, texts[index], last[index].finish) for index in sorted(texts)]
        return self.head | {"choices": choices, "usage": self.usage(sum(piece.tokens for piece in last.values()))}

    def opening(self) -> Iterator[dict[str, Any]]:
        """The chunks that begin a stream: of a chat, whose turn it is."""
        for index in range(self.body.n if self.chat else 0):
            yield self._chunk([_with_end({"index": index, "delta": {"role": "assistant", "content": ""}}, None)])

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """One chunk of a stream."""
        said: dict[str, Any] = {"content": piece.text} if piece.text else {}
        return self._chunk(
            [
                _with_end(
                    {"index": piece.choice} | ({"delta": said} if self.chat else {"text": piece.text}), piece.finish
                )
            ]
        )

    def closing(self, tokens: int) -> Iterator[dict[str, Any]]:
        """The chunk with the usage, if it was asked for."""
        if self.body.stream_options.include_usage:
            yield self._chunk([]) | {"usage": self.usage(tokens)}

    def usage(self, tokens: int) -> dict[str, int]:
        """Token counts; tokens: of all choices together."""
        read = self.start.prompt_tokens
        return {"prompt_tokens": read, "completion_tokens": tokens, "total_tokens": read + tokens}

    def _choice(self, index: int, text: str, finish: str | None) -> dict[str, Any]:
        message = {"role": "assistant", "content": text, "refusal": None}
        return _with_end({"index": index} | ({"message": message} if self.chat else {"text": text}), finish)

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.body.stream_options.include_usage else {}
        return self.head | {"choices": choices} | usage


def _with_end(choice: dict[str, Any], finish: str | None) -> dict[str, Any]:
    return choice | {"logprobs": None, "finish_reason": finish}

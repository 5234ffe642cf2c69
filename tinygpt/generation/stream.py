"""Stream the text of a row token by token, up to the first occurrence of a `stop` text.

`text = StoppingDecoder(tokenizer, ["\\n\\n"])`, then `text.add(token)` returns the text that is certain after each
token, until `text.ended`; `text.add(None)` returns the rest. Held back until decided: bytes of an incomplete character,
and text that may be the beginning of a stop text.
"""

from collections.abc import Sequence

import regex

from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer


class StoppingDecoder:
    """Decodes the completion of one prompt, and ends it at a stop text."""

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str] | None = None) -> None:
        """stop: a string, several, or None. ValueError for anything else, and for an empty string."""
        texts = [stop] if isinstance(stop, str) else [] if stop is None else stop
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"stop is {stop!r}; it must be a text that is not empty, or a list of such texts.")
        self.decoder, self.stop = StreamingDecoder(tokenizer), "|".join(map(regex.escape, texts))
        self.pending, self.ended = "", False

    def add(self, token: int | None) -> str:
        """The new text that is certain after this token; all that is left for None, the end of the sequence."""
        if self.ended:
            return ""
        certain, self.pending, self.ended = split_at_stop(self.pending + self.decoder.decode(token), self.stop)
        return certain + self.pending if token is None and not self.ended else certain


def split_at_stop(text: str, stop: str) -> tuple[str, str, bool]:
    """Split a text at `stop`: the text before it, a full or partial match at its end, and whether the match is full.

    stop: a regular expression; empty: never stop.
    """
    match = regex.search(stop, text, partial=True) if stop else None
    start = match.start() if match else len(text)
    return text[:start], text[start:], match is not None and not match.partial

"""Stream the text of a row token by token, up to the first occurrence of a `stop` text.

`text = StoppingDecoder(tokenizer, ["\\n\\n"])`, then `text.add(token)` is the text that is certain after each token,
until `text.ended`; `text.add(None)` hands out what waited. Half a character waits for its other half, half a stop for
its rest.
"""

from collections.abc import Sequence

import regex

from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer


class StoppingDecoder:
    """What is written after one prompt."""

    def __init__(self, tokenizer: Tokenizer, stop: str | Sequence[str] | None = None) -> None:
        """stop: a text, several, or none. ValueError for anything else, and for an empty text."""
        texts = [stop] if isinstance(stop, str) else [] if stop is None else stop
        if not isinstance(texts, Sequence) or not all(isinstance(text, str) and text for text in texts):
            raise ValueError(f"stop is {stop!r}; it must be a text that is not empty, or a list of such texts.")
        self.decoder, self.stop = StreamingDecoder(tokenizer), "|".join(map(regex.escape, texts))
        self.waiting, self.ended = "", False

    def add(self, token: int | None) -> str:
        """The text that is certain once this token has come; None: once no more will."""
        if self.ended:
            return ""
        certain, self.waiting, self.ended = split_at_stop(self.waiting + self.decoder.decode(token), self.stop)
        return certain + self.waiting if token is None and not self.ended else certain


def split_at_stop(text: str, stop: str) -> tuple[str, str, bool]:
    """Split a text at `stop`: what is before it, the match or a possible beginning of one, whether it matched in full.

    stop: a regular expression; empty: none.
    """
    found = regex.search(stop, text, partial=True) if stop else None
    place = found.start() if found else len(text)
    return text[:place], text[place:], found is not None and not found.partial

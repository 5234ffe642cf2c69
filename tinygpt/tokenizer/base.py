"""The tokenizer interface: `encode` text → integers, `decode` back; `save` writes what transformers reads.

The id of <|endoftext|> is the last; it stands for no text, so that a literal "<|endoftext|>" in a text is plain text
like any other (in transformers it becomes the special token). The kinds: one token a character (char.py), byte
pairs (bpe.py), and what the `tokenizers` library runs (sentencepiece.py). Left out: normalisation, and any other
special token.
"""

import codecs
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tinygpt.files.text import write_json

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(ABC):
    """A vocabulary of byte strings, <|endoftext|> last."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = [*tokens, b""]

    @property
    def vocab_size(self) -> int:
        """All entries, <|endoftext|> included."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of <|endoftext|>."""
        return self.vocab_size - 1

    @property
    def unknown(self) -> int | None:
        """The id that stands for characters outside the vocabulary; None where there is no such id."""
        return None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text; never <|endoftext|>."""

    @abstractmethod
    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        """The same as an array, (number of tokens,) int32 or uint32: sooner, in a tenth of a list's memory.

        Threads work side by side at it. UnicodeEncodeError for half of a character (U+D800 to U+DFFF) in a bpe.
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of some ids; bytes that are not UTF-8 become U+FFFD. ValueError for an id outside the vocabulary."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """What one token stands for, in UTF-8: perhaps a part of a character; nothing for <|endoftext|>.

        ValueError for an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(
                f"Token {token} is not in this vocabulary of {self.vocab_size} (0 to {self.end_of_text}). "
                "Use the tokenizer that was saved with the model."
            )
        return self._tokens[token]

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """The bytes that each id stands for: (vocab_size,) int64; 0 for <|endoftext|>."""
        return np.array([len(token) for token in self._tokens], dtype=np.int64)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json, as transformers reads them, into `folder`."""
        ends = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "clean_up_tokenization_spaces": False}
        # Without a class, AutoTokenizer would take another model's, and differ without a word.
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **ends}
        write_json(Path(folder) / "tokenizer.json", self.to_json())
        write_json(Path(folder) / "tokenizer_config.json", settings)

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        end = {"id": self.end_of_text, "content": END_OF_TEXT, "special": True}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        unchanged = {"normalizer": None, "post_processor": None}
        return {"version": "1.0", "added_tokens": [end | plain], **unchanged, **self._parts()}

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """What differs from kind to kind in tokenizer.json: its pre_tokenizer, model and decoder."""


class StreamingDecoder:
    """Ids → text, an id at a time: half of a character waits for its other half."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def inside(self) -> bool:
        """Whether a character has begun that the next token goes on with."""
        return bool(self._decoder.getstate()[0])

    def decode(self, token: int | None, last: bool = False) -> str:
        """The text that is certain once this token has come; None stands for the end, as `last` does after a token."""
        bytes_ = b"" if token is None else self._tokenizer.token_bytes(token)
        return self._decoder.decode(bytes_, final=last or token is None)

"""The tokenizer interface: `encode` text → integers, `decode` back; `save` writes what transformers reads.

<|endoftext|> has the last id and stands for no text: a literal "<|endoftext|>" in a text is encoded as plain text
(transformers makes it the special token). The kinds: one token per character (char.py), byte pairs (bpe.py), and
tokenizers run by the `tokenizers` library (sentencepiece.py). Left out: normalisation and other special tokens.
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
        """The number of entries, including <|endoftext|>."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of <|endoftext|>."""
        return self.vocab_size - 1

    @property
    def unknown(self) -> int | None:
        """The id for characters outside the vocabulary, or None."""
        return None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text; never <|endoftext|>."""

    @abstractmethod
    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        """The ids as an array, (number of tokens,) int32 or uint32: faster, in a tenth of a list's memory.

        Releases the GIL, so threads can encode in parallel. BPE raises UnicodeEncodeError for a lone surrogate (U+D800
        to U+DFFF).
        """

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; invalid UTF-8 becomes U+FFFD. Raises ValueError for an id outside the vocabulary."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one token, possibly part of a character; empty for <|endoftext|>.

        Raises ValueError for an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(
                f"Token {token} is not in this vocabulary of {self.vocab_size} (0 to {self.end_of_text}). "
                "Use the tokenizer that was saved with the model."
            )
        return self._tokens[token]

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """The number of bytes of each token: (vocab_size,) int64; 0 for <|endoftext|>."""
        return np.array([len(token) for token in self._tokens], dtype=np.int64)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json into `folder`, as transformers reads them."""
        ends = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "clean_up_tokenization_spaces": False}
        # Without a class, AutoTokenizer would silently use another model's tokenizer.
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
        """The parts of tokenizer.json that depend on the kind: pre_tokenizer, model and decoder."""


class StreamingDecoder:
    """Ids → text, one id at a time; an incomplete character is held back until it is complete."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    @property
    def inside(self) -> bool:
        """Whether the text so far ends inside a character."""
        return bool(self._decoder.getstate()[0])

    def decode(self, token: int | None, last: bool = False) -> str:
        """The text completed by this token; None, or `last` with the last token, flushes an incomplete character."""
        bytes_ = b"" if token is None else self._tokenizer.token_bytes(token)
        return self._decoder.decode(bytes_, final=last or token is None)

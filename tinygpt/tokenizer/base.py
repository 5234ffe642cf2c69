"""The tokenizer interface: `encode` text → integers, `decode` back; `save` writes what transformers reads.

<|endoftext|> has the last id and stands for no text: a literal "<|endoftext|>" in a text is encoded as plain text
(transformers makes it the special token). For conversations, four role tokens follow (chat_template.py); they are
special in the same way. The kinds: one token per character (char.py), byte pairs (bpe.py), and tokenizers run by the
`tokenizers` library (sentencepiece.py). Left out: normalisation and other special tokens.
"""

import codecs
import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tinygpt.files.text import write_json
from tinygpt.tokenizer.chat_template import ASSISTANT, END, ROLE_TOKENS, ROLES, TEMPLATE, Messages

END_OF_TEXT = "<|endoftext|>"


class Tokenizer(ABC):
    """A vocabulary of byte strings, then <|endoftext|>; for conversations, the ROLE_TOKENS after it."""

    def __init__(self, tokens: list[bytes]) -> None:
        self._tokens = [*tokens, b""]
        self._end = len(tokens)
        self._roles: dict[str, int] = {}

    @property
    def vocab_size(self) -> int:
        """The number of entries, including <|endoftext|> and role tokens."""
        return len(self._tokens)

    @property
    def end_of_text(self) -> int:
        """The id of <|endoftext|>."""
        return self._end

    @property
    def has_roles(self) -> bool:
        """Whether it has the role tokens of conversations."""
        return bool(self._roles)

    @property
    def special_tokens(self) -> dict[int, str]:
        """The names of the special tokens by id: <|endoftext|>, and the role tokens if it has them."""
        return {self.end_of_text: END_OF_TEXT} | {token: name for name, token in self._roles.items()}

    @property
    def stop_tokens(self) -> frozenset[int]:
        """The special tokens, each of which ends a generated text."""
        return frozenset(self.special_tokens)

    def role_token(self, name: str) -> int:
        """The id of one of ROLE_TOKENS. ValueError if the tokenizer has none."""
        if not self._roles:
            raise ValueError(
                "This model completes text: it has no chat template, and cannot take messages. Write a text instead, "
                "or fine-tune it on conversations (docs/chat.md)."
            )
        return self._roles[name]

    def with_roles(self) -> Self:
        """The same tokenizer with ROLE_TOKENS; itself if it has them. The other ids stay as they are.

        ValueError if its vocabulary spells a role token, which a text could then contain.
        """
        if self._roles:
            return self
        for name in ROLE_TOKENS:
            if name.encode() in self._tokens:
                raise ValueError(f"The tokenizer's vocabulary has {name}, a role token's name. Use another tokenizer.")
        changed = copy.copy(self)
        changed._roles = {name: len(self._tokens) + i for i, name in enumerate(ROLE_TOKENS)}
        changed._tokens = [*self._tokens, *[b""] * len(ROLE_TOKENS)]
        return changed

    @property
    def unknown(self) -> int | None:
        """The id for characters outside the vocabulary, or None."""
        return None

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text; never those of special tokens."""

    @abstractmethod
    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        """The ids as an array, (number of tokens,) int32 or uint32: faster, in a tenth of a list's memory.

        Releases the GIL, so threads can encode in parallel. BPE raises UnicodeEncodeError for a lone surrogate (U+D800
        to U+DFFF).
        """

    def encode_messages(self, messages: Messages, add_generation_prompt: bool = False) -> tuple[list[int], list[int]]:
        """The ids of a conversation, and the mask, equally long: 1 where the assistant writes.

        messages: as chat_template.check_conversation returns them.
        add_generation_prompt: <|assistant|> follows, so that the model answers. ValueError without role tokens.
        """
        ids, mask = [self.end_of_text], [0]
        for message in messages:
            content = [*self.encode_content(message["content"]), self.role_token(END)]
            ids += [self.role_token(ROLES[message["role"]]), *content]
            mask += [0, *[int(message["role"] == "assistant")] * len(content)]
        if add_generation_prompt:
            ids.append(self.role_token(ASSISTANT))
            mask.append(0)
        return ids, mask

    def encode_content(self, text: str) -> list[int]:
        """The ids of a message's content: those of `encode`, unless they depend on whether a text begins a document."""
        return self.encode(text)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids; invalid UTF-8 becomes U+FFFD. Raises ValueError for an id outside the vocabulary."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes of one token, possibly part of a character; empty for a special token.

        Raises ValueError for an id outside the vocabulary.
        """
        if not 0 <= token < self.vocab_size:
            raise ValueError(
                f"Token {token} is not in this vocabulary of {self.vocab_size} (0 to {self.vocab_size - 1}). "
                "Use the tokenizer that was saved with the model."
            )
        return self._tokens[token]

    def byte_lengths(self) -> npt.NDArray[np.int64]:
        """The number of bytes of each token: (vocab_size,) int64; 0 for special tokens."""
        return np.array([len(token) for token in self._tokens], dtype=np.int64)

    def save(self, folder: Path | str) -> None:
        """Write tokenizer.json and tokenizer_config.json into `folder`, as transformers reads them."""
        ends = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "clean_up_tokenization_spaces": False}
        # Without a class, AutoTokenizer would silently use another model's tokenizer.
        settings = {"tokenizer_class": "PreTrainedTokenizerFast", **ends}
        if self.has_roles:
            settings["chat_template"] = TEMPLATE
        write_json(Path(folder) / "tokenizer.json", self.to_json())
        write_json(Path(folder) / "tokenizer_config.json", settings)

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        special = [added_token(name, token) for token, name in self.special_tokens.items()]
        unchanged = {"normalizer": None, "post_processor": None}
        return {"version": "1.0", "added_tokens": special, **unchanged, **self._parts()}

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """The parts of tokenizer.json that depend on the kind: pre_tokenizer, model and decoder."""


def added_token(name: str, token: int) -> dict[str, Any]:
    """A special token's entry in tokenizer.json."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": token, "content": name, "special": True} | plain


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

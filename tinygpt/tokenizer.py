"""Text ↔ integers: `tokenizer = load("data/tokenizer")`, then `tokenizer.encode(text)` and `tokenizer.decode(ids)`.

`build` makes one of three kinds from the training text: `char` (one token a character), `bpe` (byte pairs, learned
here) and `gpt2` (byte pairs that OpenAI learned, hosted by tiktoken). The id of <|endoftext|> is the last; it
stands for no text, so that a literal "<|endoftext|>" in a text is plain text like any other. `save` writes JSON
that transformers opens with the same ids (there, a literal "<|endoftext|>" becomes the special token), and `load`
refuses a file that is not, in every part, what `save` writes. The `tokenizers` library learns the merges, tiktoken
encodes with them: the same ids, about ten times sooner. Left out: normalisation, and any other special token.
"""

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tinygpt import config, files, seams

END_OF_TEXT = "<|endoftext|>"
REPLACEMENT = "\ufffd"
LEARNED = 2**28  # bytes of text that merges are learned from: the library's memory grows with the different words


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
        """What one token stands for, in UTF-8: perhaps a part of a character; nothing for <|endoftext|>."""
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
        files.write_json(Path(folder) / "tokenizer.json", self.to_json())
        files.write_json(Path(folder) / "tokenizer_config.json", settings)

    def to_json(self) -> dict[str, Any]:
        """The content of tokenizer.json."""
        end = {"id": self.end_of_text, "content": END_OF_TEXT, "special": True}
        plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
        unchanged = {"normalizer": None, "post_processor": None}
        return {"version": "1.0", "added_tokens": [end | plain], **unchanged, **self._parts()}

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """What differs from kind to kind in tokenizer.json: its pre_tokenizer, model and decoder."""


class CharTokenizer(Tokenizer):
    """One token a character (a Unicode code point), ids in the order of the code points.

    `unknown` says what a character outside the vocabulary does: "replace" adds U+FFFD to the characters (at its
    place in the order; a U+FFFD in the text is the same entry) and encodes it as that; "error" raises ValueError.
    """

    def __init__(self, characters: Iterable[str], unknown: Literal["replace", "error"]) -> None:
        self._characters = sorted({*characters, REPLACEMENT} if unknown == "replace" else set(characters))
        self._unknown = unknown
        super().__init__([character.encode() for character in self._characters])
        # Code point → id, for all of Unicode: 4 MB, and a whole text is looked up at once, without a loop in Python.
        absent = -1 if self.unknown is None else self.unknown
        self._ids = np.full(0x110000, absent, dtype=np.int32)
        self._ids[[ord(character) for character in self._characters]] = np.arange(len(self._characters))

    @property
    def unknown(self) -> int | None:
        return self._characters.index(REPLACEMENT) if self._unknown == "replace" else None

    def encode(self, text: str) -> list[int]:
        return list(self.encode_array(text).tolist())

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        ids = self._ids[np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")]
        unseen = np.flatnonzero(ids < 0)
        if unseen.size:
            raise ValueError(_unseen(text[place] for place in unseen))
        return ids

    def _parts(self) -> dict[str, Any]:
        # The library wants some unk_token; one that is not in the vocabulary makes an unknown character an error.
        unknown = REPLACEMENT if self._unknown == "replace" else "[UNK]"
        vocabulary = {character: place for place, character in enumerate(self._characters)}
        model = {"type": "WordLevel", "vocab": vocabulary, "unk_token": unknown}
        split = {"type": "Split", "pattern": {"Regex": r"[\s\S]"}, "behavior": "Isolated", "invert": False}
        return {"pre_tokenizer": split, "model": model, "decoder": {"type": "Fuse"}}


class BPETokenizer(Tokenizer):
    """Byte-level byte-pair encoding: the 256 bytes, then one token for each merge, in the order they were learned.

    A text is split by GPT-2's pattern; within a piece, the pair with the lowest id merges first.
    """

    def __init__(self, merges: list[tuple[bytes, bytes]]) -> None:
        import tiktoken

        tokens = _BYTES + [left + right for left, right in merges]
        self._merges = merges
        self._ranks = {token: rank for rank, token in enumerate(tokens)}
        if len(self._ranks) < len(tokens):
            raise ValueError("Two merges give the same token.")
        for rank, pair in enumerate(merges, start=256):
            if any(self._ranks.get(part, rank) >= rank for part in pair):
                raise ValueError(f"Merge {rank - 256} joins {pair}, which no merge before it makes.")
        super().__init__(tokens)
        # It is never looked for in a text; but with no special token at all, encode_to_numpy takes half as long again
        ends = {END_OF_TEXT: len(tokens)}
        self._encoding = tiktoken.Encoding(
            "bpe", pat_str=seams.PATTERN, mergeable_ranks=self._ranks, special_tokens=ends
        )

    def encode(self, text: str) -> list[int]:
        return [token for part in seams.encodable(text) for token in self._encoding.encode_ordinary(part)]

    def encode_array(self, text: str) -> npt.NDArray[np.integer[Any]]:
        parts = (self._encoding.encode_to_numpy(part, disallowed_special=()) for part in seams.encodable(text))
        return np.concatenate([np.empty(0, np.uint32), *parts])

    def _parts(self) -> dict[str, Any]:
        as_bytes = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        vocabulary = {_spell(token): rank for token, rank in self._ranks.items()}
        merges = [[_spell(left), _spell(right)] for left, right in self._merges]
        model = {"type": "BPE", "vocab": vocabulary, "merges": merges}
        return {"pre_tokenizer": as_bytes, "model": model, "decoder": as_bytes}


def build(section: config.Tokenize, texts: Iterable[str], size: int = 0) -> Tokenizer:
    """Make the tokenizer that `section` asks for. `texts` are the training rows, read once and not kept.

    Where they are `size` bytes and that is more than LEARNED, merges are learned from as much, spread over them evenly.
    """
    if section.kind == "gpt2":
        return _fetch_gpt2()
    if section.kind == "bpe":
        return _train_bpe(section.vocab_size, spread(texts, LEARNED / max(size, LEARNED)))
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise ValueError("The training text is empty, so it gives no characters. Put text in, and `dvc repro` again.")
    return CharTokenizer(characters, section.unknown)


def load(folder: Path | str) -> Tokenizer:
    """Read the tokenizer that `save` wrote; no network, nothing unpickled.

    Raises FileNotFoundError where there is none, ValueError where it is damaged or another program's.
    """
    file = Path(folder) / "tokenizer.json"
    if not file.is_file():
        raise FileNotFoundError(f"No tokenizer at {folder}. Run `dvc repro tokenize`.")
    try:
        found = files.read_json(file)
        tokenizer = _rebuild(found["model"])
        _check_equal(tokenizer.to_json(), found)
    except (AttributeError, LookupError, TypeError, ValueError) as problem:
        why = " ".join(str(problem).split())[:200]
        raise ValueError(f"{file} is damaged, or not TinyGPT's: {why} Run `dvc repro tokenize`.") from problem
    return tokenizer


def _rebuild(model: dict[str, Any]) -> Tokenizer:
    """The tokenizer of a `model` section, taken from as little of it as can be; `load` compares the rest."""
    if model["type"] == "WordLevel":
        return CharTokenizer(model["vocab"], "replace" if model["unk_token"] in model["vocab"] else "error")
    if model["type"] == "BPE":
        return BPETokenizer([(unspell(left), unspell(right)) for left, right in model["merges"]])
    raise ValueError(f"its model is {model['type']!r}, not WordLevel or BPE.")


def _check_equal(expected: dict[str, Any], found: dict[str, Any]) -> None:
    """ValueError names the first part of a tokenizer.json that differs from what `save` would write."""
    for key in [*expected, *found]:
        if expected.get(key) != found.get(key):
            raise ValueError(f"its {key} is not what TinyGPT writes.")


def _unseen(characters: Iterable[str]) -> str:
    different = list(dict.fromkeys(characters))
    names = ", ".join(f"{character!r} (U+{ord(character):04X})" for character in different[:5])
    more = f" and {len(different) - 5} more" if len(different) > 5 else ""
    return (
        f"The tokenizer never saw {names}{more} in training. Leave it out, set tokenize.unknown to replace, "
        "or tokenize.kind to bpe, which can write every character."
    )


# Learning and fetching merges


def _train_bpe(vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    """Learn vocab_size − 257 merges. The same texts give the same merges, whatever the number of threads."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    every_byte = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=every_byte, show_progress=False)
    library.train_from_iterator((part for text in texts for part in seams.learnable(text)), trainer)
    tokenizer = _rebuild(json.loads(library.to_str())["model"])
    if tokenizer.vocab_size == 257:
        raise ValueError("The training text is too short to learn pairs from. Add text, or set tokenize.kind to char.")
    if tokenizer.vocab_size < vocab_size:
        raise ValueError(
            f"tokenize.vocab_size is {vocab_size}, but this text gives only {tokenizer.vocab_size}; "
            f"set it to {tokenizer.vocab_size} or less."
        )
    return tokenizer


def spread(texts: Iterable[str], share: float) -> Iterator[str]:
    """Some of the texts, whole and in order, such that up to each of them `share` of the characters were taken."""
    seen = taken = 0
    for text in texts:
        seen += len(text)
        if taken + len(text) <= share * seen:
            taken += len(text)
            yield text


def _fetch_gpt2() -> BPETokenizer:
    """GPT-2's vocabulary from tiktoken, which keeps it; saved in our form, so that `load` needs no network."""
    import tiktoken

    try:
        encoding = tiktoken.get_encoding("gpt2")
    except (OSError, ValueError) as problem:  # no network; or a download that does not match its hash
        raise OSError(
            f"tiktoken could not fetch the gpt2 vocabulary ({type(problem).__name__}). "
            "Connect to the network and try again, or use tokenize.kind=bpe, which is trained here."
        ) from problem
    tokens = [encoding.decode_single_token_bytes(token) for token in range(encoding.eot_token)]
    ranks = {token: rank for rank, token in enumerate(tokens)}
    return BPETokenizer([_last_merge(token, ranks) for token in tokens[256:]])


def _last_merge(token: bytes, ranks: dict[bytes, int]) -> tuple[bytes, bytes]:
    """The pair that makes a token: what is left of its bytes when all merges but the last are done."""
    parts = [token[place : place + 1] for place in range(len(token))]
    while len(parts) > 2:
        pairs = [ranks.get(left + right, len(ranks)) for left, right in itertools.pairwise(parts)]
        place = pairs.index(min(pairs))
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
    return parts[0], parts[1]


# JSON holds text, so GPT-2 spells each byte as a printable character: Latin-1's own where it is printable, else one
# from U+0100 on. Ids of bytes follow that spelling.
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTE_ORDER = _PRINTABLE + [byte for byte in range(256) if byte not in _PRINTABLE]
_BYTES = [bytes([byte]) for byte in _BYTE_ORDER]
_SPELLING = {byte: 0x100 + place for place, byte in enumerate(_BYTE_ORDER[len(_PRINTABLE) :])}
_UNSPELLING = {character: byte for byte, character in _SPELLING.items()}


def _spell(token: bytes) -> str:
    return token.decode("latin-1").translate(_SPELLING)


def unspell(spelled: str) -> bytes:
    """The bytes that an entry of a byte-level vocabulary spells."""
    return spelled.translate(_UNSPELLING).encode("latin-1")

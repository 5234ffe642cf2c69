"""Train a tokenizer on a text, or fetch a published one: `build(params.tokenize, texts)` → a tokenizer.

`char` takes the text's characters. `bpe` is learned by the `tokenizers` library, `sentencepiece` by the package of that
name (an extra), both from the training text only; the result does not depend on the number of threads. The others are
OpenAI's, fetched and cached by tiktoken: gpt2, r50k_base (another name for it), p50k_base, cl100k_base, o200k_base.
Their entries keep their order, but <|endoftext|> comes last and other special tokens are left out, so ids are
tiktoken's up to its first gap.
"""

import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tinygpt import config
from tinygpt.tokenizer import bpe, pretokenize
from tinygpt.tokenizer import sentencepiece as spm
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.sentencepiece import SentencePieceTokenizer

LEARNED = 2**28  # bytes of text learned from at most: the libraries' memory grows with the number of distinct words
LINE = 4096  # bytes of a line for SentencePiece; longer ones are split
THREADS = 4  # fixed, because SentencePiece's rounding, and then its pieces, depend on it
RESERVED = re.compile("[\n\0\u2585]")  # a newline, and characters for which sentencepiece would drop the line


def build(section: config.Tokenize, texts: Iterable[str], size: int = 0) -> Tokenizer:
    """The tokenizer that `section` describes. texts: the training rows, read once and not kept.

    size: their bytes. If it exceeds LEARNED, bpe and sentencepiece learn from about LEARNED bytes, spread evenly.
    Raises ValueError if the text is too short, or a package is missing; OSError if a vocabulary cannot be fetched.
    """
    check(section)
    if section.kind == "char":
        return _characters(section, texts)
    if section.kind == "bpe":
        return _train_bpe(section.vocab_size, spread(texts, LEARNED / max(size, LEARNED)))
    if section.kind == "sentencepiece":
        return _train_pieces(section, spread(texts, LEARNED / max(size, LEARNED)))
    return _fetch(section.kind)


def check(section: config.Tokenize) -> None:
    """Raise ValueError if the package that trains the tokenizer is missing."""
    if section.kind == "sentencepiece" and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            "tokenize.kind is 'sentencepiece', and the package of that name is missing: "
            "pip install -c requirements.lock -e '.[sentencepiece]'; or set tokenize.kind to bpe, which needs no extra."
        )


def spread(texts: Iterable[str], fraction: float) -> Iterator[str]:
    """Whole texts in order, evenly spread, with at most `fraction` of the characters up to each of them."""
    seen = taken = 0
    for text in texts:
        seen += len(text)
        if taken + len(text) <= fraction * seen:
            taken += len(text)
            yield text


def _characters(section: config.Tokenize, texts: Iterable[str]) -> CharTokenizer:
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise ValueError("The training text is empty. Add text, then run `dvc repro`.")
    return CharTokenizer(characters, section.unknown)


def _train_bpe(vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    """Learn vocab_size − 257 merges; the result does not depend on the number of threads."""
    from tokenizers import Tokenizer as Library
    from tokenizers import models, pre_tokenizers, trainers

    library = Library(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    every_byte = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=every_byte, show_progress=False)
    library.train_from_iterator((part for text in texts for part in pretokenize.learnable(text)), trainer)
    learned = json.loads(library.to_str())
    tokenizer = bpe.rebuild(learned)
    if tokenizer.vocab_size == 257:
        raise ValueError("The training text is too short to learn pairs from. Add text, or set tokenize.kind to char.")
    if tokenizer.vocab_size < vocab_size:
        raise ValueError(
            f"tokenize.vocab_size is {vocab_size}, but this text gives only {tokenizer.vocab_size}; "
            f"set it to {tokenizer.vocab_size} or less."
        )
    return tokenizer


def _train_pieces(section: config.Tokenize, texts: Iterable[str]) -> SentencePieceTokenizer:
    """Learn pieces of words. A piece has characters of one script, and spaces only at its beginning."""
    import sentencepiece

    model, size = io.BytesIO(), section.vocab_size
    settings: dict[str, Any] = dict(model_type=section.algorithm, vocab_size=size, character_coverage=1.0)
    settings |= dict(normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False)
    settings |= dict(byte_fallback=True, allow_whitespace_only_pieces=True, user_defined_symbols=[spm.NEW_LINE])
    settings |= dict(unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1)  # an unknown token is required
    settings |= dict(max_sentence_length=2 * LINE, num_threads=THREADS, minloglevel=2)
    failed: list[BaseException] = []
    lines = _recording((line for text in texts for line in _lines(text)), failed)
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **settings)
    except RuntimeError as problem:
        raise failed[0] if failed else ValueError(_why_not_learned(str(problem), size)) from problem
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    learned = range(1 + spm.FIRST, size)  # without the unknown token, never used with byte fallback
    names = [found.id_to_piece(token).replace("▁", " ") for token in learned]
    scores = [found.get_score(token) for token in learned] if section.algorithm == "unigram" else None
    return SentencePieceTokenizer(names, scores)


def _recording(lines: Iterator[str], failed: list[BaseException]) -> Iterator[str]:
    """The lines; an exception is appended to `failed`, because sentencepiece turns any, even Ctrl-C, into its own."""
    try:
        yield from lines
    except BaseException as problem:
        failed.append(problem)
        raise


def _why_not_learned(problem: str, size: int) -> str:
    """sentencepiece's error with the next step; the sizes match because <|endoftext|> replaces its unknown token."""
    if most := re.search(r"to a value <= (\d+)", problem):
        return f"tokenize.vocab_size is {size}, but this text gives only {most[1]}; set it to {most[1]} or less."
    if least := re.search(r"vs (\d+)\. Increase vocab_size", problem):
        return (
            f"tokenize.vocab_size is {size}, but the bytes and this text's characters alone take {least[1]}; "
            f"set it to {least[1]} or more, or tokenize.kind to bpe, where characters may share bytes."
        )
    if "sentences_.empty()" in problem:
        return "The training text is empty. Add text, then run `dvc repro`."
    return f"sentencepiece could not learn from this text: {' '.join(problem.split())[:200]}"


def _lines(text: str) -> Iterator[str]:
    """The lines of a text for SentencePiece: at most LINE bytes, without reserved characters."""
    for line in RESERVED.split(text):
        for part in pretokenize.parts(line, LINE // 4):  # a character takes at most 4 bytes
            yield from (part[start : start + LINE // 4] for start in range(0, len(part), LINE // 4))


def _fetch(name: str) -> BPETokenizer:
    """A vocabulary from tiktoken, converted to our own tokenizer, so that `load` needs no network."""
    import tiktoken

    try:
        encoding = tiktoken.get_encoding(name)
    except (OSError, ValueError) as problem:  # no network; or a download that does not match its hash
        raise OSError(
            f"tiktoken could not fetch the {name} vocabulary ({type(problem).__name__}). "
            "Connect to the network and try again, or use tokenize.kind=bpe, which is trained here."
        ) from problem
    tokens = sorted(encoding.token_byte_values(), key=encoding.encode_single_token)
    ranks = {token: rank for rank, token in enumerate(tokens)}
    merges = [merge for token in tokens[256:] if (merge := bpe.last_merge(token, ranks)) is not None]
    return BPETokenizer(merges, encoding._pat_str, tokens)

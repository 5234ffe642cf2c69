"""Train a tokenizer on a text, or fetch a published one: `build(params.tokenize, texts)` → a tokenizer.

`char` takes the text's characters. `bpe` is learned by the `tokenizers` library, `sentencepiece` by the package of that
name (an extra), both from the training text alone, the same from the same text whatever the number of threads. The
others are OpenAI's, fetched by tiktoken, which keeps them: gpt2, r50k_base (the same, by another name), p50k_base,
cl100k_base, o200k_base. Their entries keep their order, but <|endoftext|> comes last, as everywhere here, and other
special tokens are left out: ids are tiktoken's up to its first gap.
"""

import importlib.util
import io
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

from tinygpt import config
from tinygpt.tokenizer import bpe, pretokenize
from tinygpt.tokenizer import sentencepiece as pieces
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.sentencepiece import SentencePieceTokenizer

LEARNED = 2**28  # bytes of text that are learned from: the libraries' memory grows with the different words
LINE = 4096  # bytes of a line that SentencePiece learns from; a longer one is cut
THREADS = 4  # a fixed number: SentencePiece's sums differ in their last digits with it, and then its pieces
RESERVED = re.compile("[\n\0\u2585]")  # a line's end, and what sentencepiece would drop the whole line for


def build(section: config.Tokenize, texts: Iterable[str], size: int = 0) -> Tokenizer:
    """Make the tokenizer that `section` asks for. `texts` are the training rows, read once and not kept.

    Where they are `size` bytes and that is more than LEARNED, bpe and sentencepiece learn from as much, spread over
    them evenly.
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
    """ValueError, in a sentence, where the package that the tokenizer is learned with is missing."""
    if section.kind == "sentencepiece" and importlib.util.find_spec("sentencepiece") is None:
        raise ValueError(
            "tokenize.kind is 'sentencepiece', and the package of that name is missing: "
            "pip install -c requirements.lock -e '.[sentencepiece]'; or set tokenize.kind to bpe, which needs none."
        )


def spread(texts: Iterable[str], share: float) -> Iterator[str]:
    """Some of the texts, whole and in order, such that up to each of them `share` of the characters were taken."""
    seen = taken = 0
    for text in texts:
        seen += len(text)
        if taken + len(text) <= share * seen:
            taken += len(text)
            yield text


def _characters(section: config.Tokenize, texts: Iterable[str]) -> CharTokenizer:
    characters: set[str] = set()
    for text in texts:
        characters.update(text)
    if not characters:
        raise ValueError("The training text is empty, so it gives no characters. Put text in, and `dvc repro` again.")
    return CharTokenizer(characters, section.unknown)


def _train_bpe(vocab_size: int, texts: Iterable[str]) -> Tokenizer:
    """Learn vocab_size − 257 merges. The same texts give the same merges, whatever the number of threads."""
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
    """Learn pieces of words. A piece holds characters of one script, and a space at its beginning only."""
    import sentencepiece

    model, size = io.BytesIO(), section.vocab_size
    settings: dict[str, Any] = dict(model_type=section.algorithm, vocab_size=size, character_coverage=1.0)
    settings |= dict(normalization_rule_name="identity", add_dummy_prefix=False, remove_extra_whitespaces=False)
    settings |= dict(byte_fallback=True, allow_whitespace_only_pieces=True, user_defined_symbols=[pieces.NEW_LINE])
    settings |= dict(unk_id=0, bos_id=-1, eos_id=-1, pad_id=-1)  # it wants an entry for what is unknown
    settings |= dict(max_sentence_length=2 * LINE, num_threads=THREADS, minloglevel=2)
    failed: list[BaseException] = []
    lines = _noting((line for text in texts for line in _lines(text)), failed)
    try:
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=lines, model_writer=model, **settings)
    except RuntimeError as problem:
        raise failed[0] if failed else ValueError(_why_not_learned(str(problem), size)) from problem
    found = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    learned = range(1 + pieces.FIRST, size)  # after that entry, which is never used where there are bytes
    names = [found.id_to_piece(token).replace("▁", " ") for token in learned]
    scores = [found.get_score(token) for token in learned] if section.algorithm == "unigram" else None
    return SentencePieceTokenizer(names, scores)


def _noting(lines: Iterator[str], failed: list[BaseException]) -> Iterator[str]:
    """The lines; what breaks them off is noted, since sentencepiece makes a RuntimeError of anything, of Ctrl-C too."""
    try:
        yield from lines
    except BaseException as problem:
        failed.append(problem)
        raise


def _why_not_learned(problem: str, size: int) -> str:
    """What sentencepiece says, with what to do; our <|endoftext|> takes the place of its entry for what is unknown."""
    if most := re.search(r"to a value <= (\d+)", problem):
        return f"tokenize.vocab_size is {size}, but this text gives only {most[1]}; set it to {most[1]} or less."
    if least := re.search(r"vs (\d+)\. Increase vocab_size", problem):
        return (
            f"tokenize.vocab_size is {size}, but the bytes and this text's characters alone take {least[1]}; "
            f"set it to {least[1]} or more, or tokenize.kind to bpe, where characters may share bytes."
        )
    if "sentences_.empty()" in problem:
        return "The training text is empty, so it gives no pieces. Put text in, and `dvc repro` again."
    return f"sentencepiece could not learn from this text: {' '.join(problem.split())[:200]}"


def _lines(text: str) -> Iterator[str]:
    """The lines of a text, as SentencePiece can learn from: none too long, and none with a sign of its own in it."""
    for line in RESERVED.split(text):
        for part in pretokenize.parts(line, LINE // 4):  # of which a character takes 4 bytes at most
            yield from (part[start : start + LINE // 4] for start in range(0, len(part), LINE // 4))


def _fetch(name: str) -> BPETokenizer:
    """A vocabulary from tiktoken, which keeps it; saved in our form, so that `load` needs no network."""
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

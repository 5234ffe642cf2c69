"""Speed and memory of tokenizing a large text: `python -m benchmark.text --gigabytes 1`.

Makes an English-like text, runs the stages download and tokenize on it in a temporary folder, each in a new process,
and times the libraries alone on the same text in memory: `tokenizers` learning, tiktoken encoding, on all cores.

Words follow a Markov chain over Python's manual; a tenth are made up or numbers, with a heavy-tailed distribution, so
that the number of distinct words grows with the text's length to the power 0.6 (Heaps' law).
"""

import argparse
import functools
import itertools
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROWS = 100  # of 1 MiB, for measurements that run three times
SYLLABLES = [c + v for c in [*"bcdfghlmnprstv", "ch", "st", "th", "br"] for v in "aeiou"]
WALKS, STEPS = 256, 512


def make_text(characters: int, seed: int = 0) -> Iterator[str]:
    """English-like text of about this many characters, in chunks; equal seeds give equal texts."""
    from pydoc_data.topics import topics

    import numpy as np

    manual = np.array(re.findall(r"\S+\s*", " ".join(topics.values())), dtype=object)
    words, ids, counts = np.unique(manual, return_inverse=True, return_counts=True)
    order, first = np.argsort(ids, kind="stable"), np.cumsum(counts) - counts  # positions of each word in the manual
    random = np.random.default_rng(seed)
    places = random.integers(len(manual), size=WALKS)
    while characters > 0:
        walked = np.empty((STEPS, WALKS), dtype=np.int64)
        for step in range(STEPS):
            word = walked[step] = ids[places]
            again = order[
                first[word] + (random.random(WALKS) * counts[word]).astype(np.int64)
            ]  # a random occurrence of the same word
            places = (again + 1) % len(manual)
        text = words[walked.T.ravel()]
        rare = np.flatnonzero(random.random(len(text)) < 0.1)
        text[rare] = [spell(rank) for rank in (3500 * random.pareto(2 / 3, len(rare))).astype(np.int64).tolist()]
        chunk = "".join(text.tolist())
        characters -= len(chunk)
        yield chunk


@functools.lru_cache(2**16)
def spell(rank: int) -> str:
    """A made-up word; every tenth rank is a number."""
    word, rank = (f"{rank}", 0) if rank % 10 == 9 else ("", rank + 1)
    while rank:
        rank, syllable = divmod(rank, len(SYLLABLES))
        word += SYLLABLES[syllable]
    return word + " "


def prepare(folder: Path, kind: str, text: Path) -> None:
    """Write the project's params.yaml with another text and kind of tokenizer."""
    import yaml

    from tinygpt import yaml_files

    values = yaml_files.read_yaml("params.yaml")
    values["download"] |= {"source": "files", "path": str(text), "url": None, "max_documents": None}
    values["tokenize"] |= {"kind": kind}
    values["runtime"] |= {"progress": False}
    (folder / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def task(name: str, folder: Path, gigabytes: float) -> Callable[[], object]:
    """The function to time: making the text; or TinyGPT or a library alone on the first ROWS rows of training text."""
    if name == "make":
        return lambda: (folder / "text.txt").open("w", encoding="utf-8").writelines(make_text(int(gigabytes * 1e9)))
    from tinygpt import config
    from tinygpt.data import corpus, train_tokenizer
    from tinygpt.data.encode import write_tokens
    from tinygpt.tokenizer.folder import load

    rows = list(itertools.islice(corpus.read_rows(folder / "data/corpus/train.parquet"), ROWS))
    texts, section = [text for _, text in rows], config.load(folder / "params.yaml").tokenize
    if name == "learn":
        return lambda: train_tokenizer.build(section, iter(texts))
    if name == "bare learn":
        chunks = [text[start : start + 2**14] for text in texts for start in range(0, len(text), 2**14)]
        return lambda: learn_bare(chunks, section.vocab_size)
    tokenizer: Any = load(folder / "data/tokenizer")
    if name == "encode":
        return lambda: write_tokens(rows, tokenizer, folder / "tokens.npy")
    groups = [texts[start : start + 16] for start in range(0, len(texts), 16)]
    batch = functools.partial(tokenizer._encoding.encode_ordinary_batch, num_threads=os.cpu_count() or 1)
    return lambda: [len(batch(group)) for group in groups]


def learn_bare(chunks: list[str], vocab_size: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size - 1, initial_alphabet=alphabet, show_progress=False)
    library.train_from_iterator(chunks, trainer)


def measured(*command: str) -> tuple[float, float]:
    """Seconds of a Python process, and its peak resident memory in MB (this process must stay smaller)."""
    begin = time.perf_counter()
    _, status, usage = os.wait4(os.posix_spawn(sys.executable, [sys.executable, "-m", *command], os.environ), 0)
    if status:
        sys.exit(f"`python -m {' '.join(command)}` failed; its output is above.")
    return time.perf_counter() - begin, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6


def seconds(name: str, folder: Path, gigabytes: float = 0) -> float:
    """Seconds of a task in a new process, without imports and reading."""
    command = ["-m", "benchmark.text", "--gigabytes", str(gigabytes), "--task", name, str(folder)]
    return float(subprocess.run([sys.executable, *command], check=True, capture_output=True, text=True).stdout)


def report(gigabytes: float, folder: Path) -> None:
    """Run all measurements and print a table."""
    text = folder / "text.txt"
    seconds("make", folder, gigabytes)
    size = text.stat().st_size / 1e6
    print(f"{'stage':16}{'MB':>8}{'s':>8}{'MB/s':>8}{'peak MB':>10}")
    for stage, kind in (("download", "bpe"), ("tokenize", "char"), ("tokenize", "bpe")):
        prepare(folder, kind, text)
        taken, peak = measured(f"stages.{stage}", str(folder))
        print(f"{stage + ' ' + kind * (stage != 'download'):16}{size:8.0f}{taken:8.1f}{size / taken:8.1f}{peak:10.0f}")
    for name, library in (("learn", "tokenizers"), ("encode", "tiktoken")):
        pairs = [(seconds(name, folder), seconds(f"bare {name}", folder)) for _ in range(3)]
        low, middle, high = sorted(bare / ours for ours, bare in pairs)
        ours, bare = (statistics.median(side) for side in zip(*pairs, strict=True))
        print(f"{name}: {ours:.1f} s, {library} {bare:.1f} s: {middle:.2f} ({low:.2f} to {high:.2f}) of its speed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--gigabytes", type=float, default=0.1)
    parser.add_argument("--task", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        print(timeit.timeit(task(options.task[0], Path(options.task[1]), options.gigabytes), number=1))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            report(options.gigabytes, Path(temporary))

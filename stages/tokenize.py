"""Train a tokenizer on the training text, and encode both splits → data/tokenizer, data/tokens."""

from collections.abc import Iterator
from typing import Any

from tqdm import tqdm

from stages import run
from tinygpt.checkpoints import locate
from tinygpt.config import Params
from tinygpt.console import progress
from tinygpt.data import train_tokenizer
from tinygpt.data.conversations import has_conversations, read_conversations
from tinygpt.data.corpus import Rows, read_rows
from tinygpt.data.encode import write_conversations, write_tokens
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json
from tinygpt.tokenizer.base import Tokenizer


def main(params: Params, paths: Paths) -> None:
    sizes = read_json(paths.baselines)
    tokenizer = load_or_train(params, paths, sizes["train_bytes"])
    chat = has_conversations(paths.text("train"))
    if chat:
        tokenizer = tokenizer.with_roles()
    locate.check_writable(params, tokenizer)
    with writing(paths.tokenizer) as folder:
        folder.mkdir()
        tokenizer.save(folder)
    with writing(paths.tokens) as folder:
        folder.mkdir()
        counts, answers = {}, {}
        for split in ("train", "validation"):
            text, path = paths.text(split), folder / paths.ids(split).name
            with progress(sizes[f"{split}_bytes"], "B", f"tokenizing {split}", params.runtime.progress) as bar:
                if chat:
                    mask, found = folder / paths.mask(split).name, read_conversations(text)
                    counts[split], answers[split] = write_conversations(found, tokenizer, path, mask, bar.update)
                else:
                    counts[split] = write_tokens(read_rows(text), tokenizer, path, bar.update)
        # part of the model's lineage.json later
        texts = {split: sha256(paths.text(split)) for split in counts}
        write_json(folder / "lineage.json", {"text": texts, "tokenizer": sha256(paths.tokenizer / "tokenizer.json")})
    for split, count in counts.items():
        if chat:
            print(f"{split}: {count:,} tokens, of which the assistant writes {answers[split]:,}")
        else:
            size = sizes[f"{split}_bytes"] / count
            print(f"{split}: {count:,} tokens of {size:.2f} bytes; {tokenizer.vocab_size} kinds")


def load_or_train(params: Params, paths: Paths, size: int) -> Tokenizer:
    """The tokenizer of tokenize.from, or one trained on the training text of `size` bytes."""
    section = params.tokenize
    if section.from_ is not None:
        locate.check_not_own(section.from_, paths)
        print(f"keeping the tokenizer of {section.from_}")
        return locate.kept_tokenizer(section.from_)
    with progress(size, "B", f"learning a {section.kind} tokenizer", params.runtime.progress) as bar:
        tokenizer = train_tokenizer.build(section, _counted(read_rows(paths.text("train")), bar), size)
    if section.kind in ("bpe", "sentencepiece") and size > train_tokenizer.LEARNED:
        print(f"learned from {train_tokenizer.LEARNED / 1e6:.0f} MB of the training text, spread over it evenly")
    return tokenizer


def _counted(rows: Rows, bar: "tqdm[Any]") -> Iterator[str]:
    """The texts of the rows, counted on the progress bar; learning starts after the last one."""
    for _, text in rows:
        bar.update(len(text.encode()))
        yield text
    bar.set_description("learning from what was read")


if __name__ == "__main__":
    run(main)

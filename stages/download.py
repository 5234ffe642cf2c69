"""Fetch the text, split it, and measure the baselines → data/corpus."""

from collections import Counter

from stages import run
from tinygpt.config import Params
from tinygpt.console import progress
from tinygpt.data import overlap
from tinygpt.data.baselines import NAMES, measure
from tinygpt.data.conversations import has_conversations
from tinygpt.data.corpus import read_rows, write_corpus
from tinygpt.data.sources import chat_mixture
from tinygpt.data.sources import documents as sources
from tinygpt.files.atomic import writing
from tinygpt.files.paths import Paths
from tinygpt.files.text import write_json


def main(params: Params, paths: Paths) -> None:
    section, show = params.download, params.runtime.progress
    skipped: Counter[str] = Counter()
    with writing(paths.corpus) as folder:
        folder.mkdir()
        with progress(None, "B", "fetching", show) as bar:
            documents, digest = sources.documents(section, bar.update, lambda what: skipped.update([what]))
        with progress(None, "B", "reading the text", show) as bar:
            is_held_out = chat_mixture.is_held_out if section.source == "chat" else None
            written = write_corpus(documents, section, folder, bar.update, is_held_out)
        with progress(len(NAMES), "baseline", "measuring the baselines", show) as bar:
            measured = measure(folder / "train.parquet", folder / "validation.parquet", bar.update)
        write_json(folder / paths.baselines.name, measured)
        with progress(written.train.characters, "character", "looking for copies", show) as bar:
            train, held = (read_rows(folder / f"{split}.parquet") for split in ("train", "validation"))
            copies = overlap.copied(train, held, bar.update)
        chat = has_conversations(folder / "train.parquet")
    for split, part in (("train", written.train), ("validation", written.validation)):
        count = f"{part.documents:,} {'conversation' if chat else 'document'}{'s' * (part.documents > 1)}"
        print(f"{split}: {count}, {part.bytes / 1e6:.3f} MB, {part.characters:,} characters")
    print(overlap.verdict(copies))
    if skipped:
        many = ((count, what.replace(":", "s:", 1) if count > 1 else what) for what, count in skipped.most_common())
        print("skipped " + "; ".join(f"{count:,} {what}" for count, what in many))
    if digest and section.source == "files" and section.sha256 is None:
        print(f"to require exactly this text, set it in params.yaml: `download.sha256: {digest}`")
    bits = measured["bits_per_byte"]
    print("baselines, bits per byte: " + ", ".join(f"{name} {value:.3f}" for name, value in bits.items()))


if __name__ == "__main__":
    run(main)

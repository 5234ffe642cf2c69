"""Fetch the text, split it, and measure what simple models make of it → data/corpus."""

from stages import progress, run
from tinygpt.config import Params
from tinygpt.corpus import write_corpus
from tinygpt.files import Paths, write_json, writing
from tinygpt.yardsticks import measure


def main(params: Params, paths: Paths) -> None:
    show = params.runtime.progress
    with writing(paths.corpus) as folder:
        folder.mkdir()
        with progress(None, "B", "reading the text", show) as bar:
            summary = write_corpus(params.download, params.seed, folder, bar.update)
        with progress(None, "B", "measuring the yardsticks", show) as bar:
            measured = measure(folder / "train.parquet", folder / "validation.parquet", bar.update)
        write_json(folder / paths.yardsticks.name, measured)
    print(summary)
    print(
        "yardsticks, bits per byte: "
        + ", ".join(f"{name} {bits:.3f}" for name, bits in measured["bits_per_byte"].items())
    )


if __name__ == "__main__":
    run(main)

"""Find base models by name: `locate("data/model")` is a folder; so is `locate("openai-community/gpt2@<commit>")`.

`train.init_from` and `tokenize.from` name them. A folder is looked for here, and then in the repository itself, for a
temporary copy of it. A name with an @ is a model of the Hugging Face hub, at a commit, since what a name alone stands
for can change; huggingface_hub keeps it in its cache, so that it is fetched once, and HF_HUB_OFFLINE and HF_ENDPOINT
mean there what they always do. Of a hub's model only JSON and safetensors are fetched: nothing that could run.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from tinygpt.checkpoints.hf_tokenizer import read_tokenizer
from tinygpt.config import Params
from tinygpt.files.checksums import SUMS
from tinygpt.files.paths import Paths, find_folder
from tinygpt.hf_errors import short
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.folder import check_texts, load

ON_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)@(\w+)")


def locate(name: str, wanted: Sequence[str] = ("*.json", "*.safetensors")) -> Path:
    """The folder of a model, with the files that are wanted where the hub has it. FileNotFoundError, ValueError or
    ConnectionError, in a sentence, where there is none.
    """
    check(name)
    match = ON_HUB.fullmatch(name)
    if match and not Path(name).is_dir():
        return _fetched(match[1], match[2], wanted)
    return find_folder(name) or Path(name)


def check(name: str) -> None:
    """FileNotFoundError or ValueError, in a sentence, as far as it can be known before any work and without network."""
    if find_folder(name):
        return
    match = ON_HUB.fullmatch(name)
    if match and not re.fullmatch("[0-9a-f]{40}", match[2]):
        raise ValueError(
            f"{match[2]!r} can stand for another model tomorrow. Name a commit of {match[1]}, 40 hexadecimal digits, "
            f"as the hub's list of its commits shows them: {match[1]}@0123….",
        )
    if not match:
        hint = f" For a model of the hub, write {name}@ and a commit." if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
        raise FileNotFoundError(f"There is no folder {name}. `dvc repro` makes data/model.{hint}")


def check_base(params: Params, paths: Paths) -> None:
    """Check what a pipeline's parameters name for training to go on from, and for `evaluate` to look back at; raises as
    the three below do, so that what `evaluate` would miss is known before the training.
    """
    if params.train.init_from is not None:
        check_not_own(params.train.init_from, paths)
        check(params.train.init_from)
        if params.evaluate.base_text is not None:
            find_text(params.evaluate.base_text)


def check_writable(params: Params, tokenizer: Tokenizer) -> None:
    """ValueError, in a sentence, where the prompts or evaluate.base_text hold a character the tokenizer lacks, which a
    pipeline would find only after the training.
    """
    check_texts(tokenizer, params.sample.prompts, "sample.prompts")
    if params.train.init_from and params.evaluate.base_text and isinstance(tokenizer, CharTokenizer):
        import pyarrow.parquet as pq  # not corpus.read_rows: training would depend on how a corpus is split

        batches = pq.ParquetFile(find_text(params.evaluate.base_text)).iter_batches(columns=["text"])
        texts = (text for batch in batches for text in batch["text"].to_pylist())
        check_texts(tokenizer, texts, "evaluate.base_text")


def check_not_own(name: str, paths: Paths) -> None:
    """ValueError, in a sentence, for what the pipeline itself makes: DVC clears that before it is made anew."""
    for own in (paths.model, paths.tokenizer):
        if Path(name).resolve() == own.resolve():
            raise ValueError(
                f"{name} is what this pipeline makes, and is cleared before it does. Copy it (`cp -r {name} base`) and "
                "name the copy; or use finetune/, a pipeline of its own."
            )


def find_text(corpus: str) -> Path:
    """The held-out text in a data/corpus, here or in the repository; FileNotFoundError where there is none."""
    folder = find_folder(corpus)
    if not folder or not (folder / "validation.parquet").is_file():
        raise FileNotFoundError(f"There is no text in {corpus}. Set evaluate.base_text to a data/corpus, or to null.")
    return folder / "validation.parquet"


def kept_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model, or of a folder that holds one alone; raises as `locate` and `folder.load` do."""
    folder = locate(name, ["*.json"])
    foreign = (folder / "config.json").is_file() and not is_ours(folder)
    return read_tokenizer(folder) if foreign else load(folder)


def _fetched(name: str, commit: str, wanted: Sequence[str]) -> Path:
    """The snapshot of a hub's model, out of huggingface_hub's cache or from the hub."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=list(wanted)))
    except Exception as problem:  # the library, and those below it, raise some of every kind
        raise ConnectionError(
            f"The model {name} at {commit[:7]} could not be fetched ({short(problem)}). Check its name and commit; "
            "connect to the network, or unset HF_HUB_OFFLINE; a mirror is named by HF_ENDPOINT; a model that asks who "
            "you are needs HF_TOKEN."
        ) from problem


def is_ours(model: Path) -> bool:
    """Whether a model folder was written by TinyGPT, whole or not: another program leaves neither of these files."""
    return any((model / name).exists() for name in (SUMS, "lineage.json"))

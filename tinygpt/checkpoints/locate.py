"""Find base models by name: `locate("data/model")` is a folder; so is `locate("openai-community/gpt2@<commit>")`.

The names are values of `train.init_from` and `tokenize.from`. A folder is searched for here, then in the repository
itself (stages may run in a temporary copy). owner/name@commit is a model of the Hugging Face hub; the commit is
required, because a branch can change. huggingface_hub fetches it once into its cache, and respects HF_HUB_OFFLINE and
HF_ENDPOINT. Only JSON and safetensors are fetched: nothing executable.
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
from tinygpt.tokenizer.folder import check_messages, check_texts, load

ON_HUB = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)@(\w+)")


def locate(name: str, wanted: Sequence[str] = ("*.json", "*.safetensors")) -> Path:
    """The folder of a model; `wanted`: the files to fetch from the hub.

    Raises FileNotFoundError, ValueError or ConnectionError if there is none.
    """
    check(name)
    match = ON_HUB.fullmatch(name)
    if match and not Path(name).is_dir():
        return _fetched(match[1], match[2], wanted)
    return find_folder(name) or Path(name)


def check(name: str) -> None:
    """Raise FileNotFoundError or ValueError for a wrong name, as far as can be checked without a network."""
    if find_folder(name):
        return
    match = ON_HUB.fullmatch(name)
    if match and not re.fullmatch("[0-9a-f]{40}", match[2]):
        raise ValueError(
            f"{match[2]!r} is not a commit, so the model could change. Give a commit of {match[1]}, 40 hexadecimal "
            f"digits as in the hub's list of commits: {match[1]}@0123….",
        )
    if not match:
        hint = f" For a model of the hub, write {name}@commit." if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else ""
        raise FileNotFoundError(f"There is no folder {name}. `dvc repro` makes data/model.{hint}")


def check_base(params: Params, paths: Paths) -> None:
    """Check train.init_from and evaluate.base_text before training; raises like the functions called."""
    if params.train.init_from is not None:
        check_not_own(params.train.init_from, paths)
        check(params.train.init_from)
        if params.evaluate.base_text is not None:
            find_text(params.evaluate.base_text)


def check_writable(params: Params, tokenizer: Tokenizer) -> None:
    """Raise ValueError if the tokenizer lacks a character of the prompts or of evaluate.base_text.

    Otherwise a pipeline would fail only after training.
    """
    for prompt in params.sample.prompts:
        if isinstance(prompt, str):
            check_texts(tokenizer, [prompt], "sample.prompts")
        else:
            messages = [message.model_dump() for message in prompt]
            check_messages(tokenizer, messages, params.model.context_length, "sample.prompts")
    if params.train.init_from and params.evaluate.base_text and isinstance(tokenizer, CharTokenizer):
        import pyarrow.parquet as pq  # not corpus.read_rows, which would make data/corpus.py a dep of training

        batches = pq.ParquetFile(find_text(params.evaluate.base_text)).iter_batches(columns=["text"])
        texts = (text for batch in batches for text in batch["text"].to_pylist())
        check_texts(tokenizer, texts, "evaluate.base_text")


def check_not_own(name: str, paths: Paths) -> None:
    """Raise ValueError for an output of this pipeline: DVC deletes it before the stage runs."""
    for own in (paths.model, paths.tokenizer):
        if Path(name).resolve() == own.resolve():
            raise ValueError(
                f"{name} is an output of this pipeline, which DVC deletes before the stage runs. Copy it (`cp -r "
                f"{name} base`) and name the copy; or use the separate pipeline finetune/."
            )


def find_text(corpus: str) -> Path:
    """validation.parquet of a corpus folder, here or in the repository.

    Raises FileNotFoundError if there is none, ValueError if it holds conversations.
    """
    import pyarrow.parquet as pq  # here, because every command imports this module, and few need pyarrow

    folder = find_folder(corpus)
    if not folder or not (folder / "validation.parquet").is_file():
        raise FileNotFoundError(
            f"There is no text in {corpus}. Set evaluate.base_text to a corpus folder, such as data/corpus, or to null."
        )
    if "text" not in pq.read_schema(folder / "validation.parquet").names:
        raise ValueError(f"evaluate.base_text is {corpus}, which holds conversations. Name a corpus of texts, or null.")
    return folder / "validation.parquet"


def kept_tokenizer(name: str) -> Tokenizer:
    """The tokenizer of a model folder or tokenizer folder; raises like `locate` and `folder.load`."""
    folder = locate(name, ["*.json"])
    from_transformers = (folder / "config.json").is_file() and not is_ours(folder)
    return read_tokenizer(folder) if from_transformers else load(folder)


def _fetched(name: str, commit: str, wanted: Sequence[str]) -> Path:
    """The snapshot of a model, from huggingface_hub's cache or from the hub."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(name, revision=commit, allow_patterns=list(wanted)))
    except Exception as problem:  # the library and its dependencies raise many types
        raise ConnectionError(
            f"The model {name} at {commit[:7]} could not be fetched ({short(problem)}). Check its name and commit; "
            "connect to the network, or unset HF_HUB_OFFLINE; HF_ENDPOINT names a mirror; a gated model needs HF_TOKEN."
        ) from problem


def is_ours(model: Path) -> bool:
    """Whether TinyGPT wrote a model folder, even if it is damaged: only TinyGPT writes these files."""
    return any((model / name).exists() for name in (SUMS, "lineage.json"))

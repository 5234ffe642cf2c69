"""A passage that suits a model: what the page shows to start with.

`passage(folder, model, tokenizer)` is from the held-out text that the model was evaluated on, where that lies beside
it, and otherwise written by the model itself. `opening(passage)` is a short prompt from it.
"""

import time
from pathlib import Path

from tinygpt.data.corpus import read_rows
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

CHARACTERS = 160  # of a passage, about
OPENING = 40  # characters of a prompt, at most
TOKENS, SECONDS, SEED = 60, 2.0, 1337  # of a passage that the model writes itself
HASHED = 2**26  # bytes of held-out text; of more, reading them all would keep visitors waiting


def passage(folder: Path, model: GPT, tokenizer: Tokenizer) -> str:
    """About CHARACTERS of text, whole lines where they are short. May be empty, of a model that writes nothing."""
    text = held_out(folder) or written(model, tokenizer)
    return shortened(text.strip(), CHARACTERS)


def opening(text: str) -> str:
    """The first line of a passage, or its first words."""
    return shortened(text.split("\n", maxsplit=1)[0], OPENING)


def held_out(folder: Path) -> str:
    """From a paragraph in the middle of the first row of validation text, which is no title page; "" without it.

    Only the text whose hash the model's lineage.json names.
    """
    lineage = folder / "lineage.json"
    named = read_json(lineage).get("text", {}).get("validation") if lineage.is_file() else None
    for root in (folder.absolute().parent.parent, Path()):
        file = Paths(root).text("validation")
        if named and file.is_file() and file.stat().st_size <= HASHED and sha256(file) == named:
            text = next(row for _, row in read_rows(file))
            start = text.find("\n\n", len(text) // 2)
            return text[max(0, start) :][: 4 * CHARACTERS]
    return ""


def written(model: GPT, tokenizer: Tokenizer) -> str:
    """What a model begins a document with."""
    ids, ends = list[int](), time.monotonic() + SECONDS
    for (token,) in generate_ids(model, [[]], [Sampling()], [SEED], TOKENS, tokenizer.end_of_text):
        if token is None or time.monotonic() > ends:
            break
        ids.append(token)
    return tokenizer.decode(ids)


def shortened(text: str, most: int) -> str:
    """The beginning of a text up to the end of a line, or else of a word."""
    if len(text) <= most:
        return text
    cut = text[: most + 1]
    return cut[: max(cut.rfind("\n"), 0) or max(cut.rfind(" "), 0) or most].rstrip()

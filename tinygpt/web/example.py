"""An example text for a model, which fills the page's empty boxes.

`example_text(folder, model, tokenizer)` is from the model's held-out text if that is on disk; otherwise the model
generates it. `example_prompt(text)` is the start of it, short enough for a prompt.
"""

import time
from pathlib import Path

from tinygpt.data.corpus import read_rows
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.generation.generate import generate_ids, prompt_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer

MAX_TEXT = 160  # characters
MAX_PROMPT = 40  # characters
TOKENS, SECONDS, SEED = 60, 2.0, 1337  # of a generated example; TOKENS and SECONDS are limits
MAX_HASHED = 2**26  # bytes of held-out text; hashing more would keep visitors waiting


def example_text(folder: Path, model: GPT, tokenizer: Tokenizer) -> str:
    """At most MAX_TEXT characters, whole lines if possible. Empty if the model generates nothing."""
    text = held_out(folder) or generated(model, tokenizer)
    return shortened(text.strip(), MAX_TEXT)


def example_prompt(text: str) -> str:
    """The first line of a text, or its first words."""
    return shortened(text.split("\n", maxsplit=1)[0], MAX_PROMPT)


def held_out(folder: Path) -> str:
    """Validation text from the middle of the first row, past any title page; "" if there is none.

    Only the file whose hash is in the model's lineage.json counts.
    """
    lineage = folder / "lineage.json"
    expected = read_json(lineage).get("text", {}).get("validation") if lineage.is_file() else None
    for root in (folder.absolute().parent.parent, Path()):
        file = Paths(root).text("validation")
        if expected and file.is_file() and file.stat().st_size <= MAX_HASHED and sha256(file) == expected:
            text = next(row for _, row in read_rows(file))
            start = text.find("\n\n", len(text) // 2)
            return text[max(0, start) :][: 4 * MAX_TEXT]
    return ""


def generated(model: GPT, tokenizer: Tokenizer) -> str:
    """The beginning of a document that the model generates from an empty prompt."""
    ids, deadline = list[int](), time.monotonic() + SECONDS
    for (token,) in generate_ids(model, [prompt_ids(tokenizer, "")], [Sampling()], [SEED], TOKENS, tokenizer.ends):
        if token is None or time.monotonic() > deadline:
            break
        ids.append(token)
    return tokenizer.decode(ids)


def shortened(text: str, most: int) -> str:
    """At most so many characters from the start of a text, cut at the end of a line, else of a word."""
    if len(text) <= most:
        return text
    cut = text[: most + 1]
    return cut[: max(cut.rfind("\n"), 0) or max(cut.rfind(" "), 0) or most].rstrip()

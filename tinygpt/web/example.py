"""An example text for a model, which fills the page's empty boxes.

`example_text(folder, model, tokenizer)` is from the model's held-out text if that is on disk; otherwise the model
generates it. For a model with a chat template it is a conversation, its role tokens spelled out (chat_template.render).
`example_prompt(text)` is the start of it, short enough for a prompt.
"""

import contextlib
import itertools
import time
from pathlib import Path

from tinygpt.data.conversations import has_conversations, read_conversations
from tinygpt.data.corpus import read_rows
from tinygpt.files.checksums import sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json
from tinygpt.generation.generate import Prompt, generate_ids, prompt_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import Message, render
from tinygpt.web.requests import SPELLED

MAX_TEXT = 160  # characters
MAX_PROMPT = 40  # characters
TOKENS, SECONDS, SEED = 60, 2.0, 1337  # of a generated example; TOKENS and SECONDS are limits
QUESTION: Message = {"role": "user", "content": "What is 23 + 41?"}  # of a generated conversation
SEARCHED = 200  # held-out conversations that are searched for a short one
MAX_HASHED = 2**26  # bytes of held-out text; hashing more would keep visitors waiting


def example_text(folder: Path, model: GPT, tokenizer: Tokenizer) -> str:
    """At most MAX_TEXT characters, whole lines if possible, or a whole conversation. Empty if the model generates
    nothing.
    """
    if tokenizer.has_roles:
        return held_out_conversation(folder) or generated_conversation(model, tokenizer)
    text = held_out(folder) or generated(model, tokenizer)
    return shortened(text.strip(), MAX_TEXT)


def example_prompt(text: str) -> str:
    """The first line of a text, or its first words; of a conversation, of what is said first in it."""
    before, *pieces = SPELLED.split(text)
    said = before or "".join(pieces[1:2])  # after the first role token
    return shortened(said.split("\n", maxsplit=1)[0], MAX_PROMPT)


def held_out(folder: Path) -> str:
    """Validation text from the middle of the first row, past any title page; "" if there is none."""
    file = held_out_file(folder)
    if file is None:
        return ""
    text = next(row for _, row in read_rows(file))
    start = text.find("\n\n", len(text) // 2)
    return text[max(0, start) :][: 4 * MAX_TEXT]


def held_out_conversation(folder: Path) -> str:
    """The first of the validation conversations that is short enough; "" if there is none."""
    file = held_out_file(folder)
    if file is None or not has_conversations(file):
        return ""
    rows = itertools.islice(read_conversations(file), SEARCHED)
    return next((shown for _, messages in rows if len(shown := render(messages)) <= MAX_TEXT), "")


def held_out_file(folder: Path) -> Path | None:
    """The validation text of a model, if it is on disk: the file whose hash is in the model's lineage.json."""
    lineage = folder / "lineage.json"
    expected = read_json(lineage).get("text", {}).get("validation") if lineage.is_file() else None
    for root in (folder.absolute().parent.parent, Path()):
        file = Paths(root).text("validation")
        if expected and file.is_file() and file.stat().st_size <= MAX_HASHED and sha256(file) == expected:
            return file
    return None


def generated(model: GPT, tokenizer: Tokenizer, prompt: Prompt = "") -> str:
    """What the model generates from a prompt; by default, the beginning of a document."""
    ids, deadline = list[int](), time.monotonic() + SECONDS
    prompts = [prompt_ids(tokenizer, prompt)]
    for (token,) in generate_ids(model, prompts, [Sampling()], [SEED], TOKENS, tokenizer.stop_tokens):
        if token is None or time.monotonic() > deadline:
            break
        ids.append(token)
    return tokenizer.decode(ids)


def generated_conversation(model: GPT, tokenizer: Tokenizer) -> str:
    """QUESTION and the model's answer to it; "" if it has none, or cannot read the question."""
    answer = ""
    with contextlib.suppress(ValueError):  # a character outside the vocabulary
        if len(prompt_ids(tokenizer, [QUESTION])) <= model.config.context_length:
            answer = shortened(generated(model, tokenizer, [QUESTION]).strip(), MAX_TEXT)
    return render([QUESTION, {"role": "assistant", "content": answer}]) if answer else ""


def shortened(text: str, most: int) -> str:
    """At most so many characters from the start of a text, cut at the end of a line, else of a word."""
    if len(text) <= most:
        return text
    cut = text[: most + 1]
    return cut[: max(cut.rfind("\n"), 0) or max(cut.rfind(" "), 0) or most].rstrip()

"""The example text suits the model."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TEXT
from tinygpt.checkpoints.model_folder import load
from tinygpt.data.corpus import SCHEMA
from tinygpt.files.checksums import sha256
from tinygpt.files.text import write_json
from tinygpt.web.example import MAX_PROMPT, MAX_TEXT, example_prompt, example_text, generated, held_out, shortened

BIBLE = "THE BIBLE\n\nLicence: free\n\n" + "In the beginning God created the heaven and the earth.\n\n" * 40


@pytest.mark.parametrize("place", ["", "finetune"])
def test_an_example_is_from_the_text_that_the_model_was_evaluated_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    corpus, folder = Path(place, "data/corpus"), Path(place, "data/model")
    corpus.mkdir(parents=True)
    folder.mkdir()
    pq.write_table(pa.table([["bible"], [BIBLE]], schema=SCHEMA), corpus / "validation.parquet")
    write_json(folder / "lineage.json", {"text": {"validation": sha256(corpus / "validation.parquet")}})
    found = held_out(folder).strip()
    assert found.startswith("In the beginning God created")
    assert example_prompt(found) == "In the beginning God created the heaven"
    write_json(folder / "lineage.json", {"text": {"validation": "0" * 64}})  # the text on disk has changed
    assert held_out(folder) == ""


def test_without_that_text_the_model_generates_the_example(model_folder: Path) -> None:
    model, tokenizer = load(model_folder)
    own = generated(model, tokenizer)
    assert example_text(model_folder, model, tokenizer) == shortened(own.strip(), MAX_TEXT)
    assert own == generated(model, tokenizer)
    assert set(own) <= set(TEXT)


def test_an_example_ends_at_the_end_of_a_line_or_a_word() -> None:
    assert shortened("one\ntwo three", 12) == "one"
    assert shortened("one two three", 12) == "one two"
    assert shortened("one two", 7) == "one two"
    assert shortened("x" * 50, 12) == "x" * 12
    assert example_prompt("\n".join(["x y" * 30] * 2)) == shortened("x y" * 30, MAX_PROMPT)

"""What the page shows to start with suits the model that it shows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import TEXT
from tinygpt.checkpoints.model_folder import load
from tinygpt.data.corpus import SCHEMA
from tinygpt.files.checksums import sha256
from tinygpt.files.text import write_json
from tinygpt.web.example import CHARACTERS, OPENING, held_out, opening, passage, shortened, written

BIBLE = "THE BIBLE\n\nLicence: free\n\n" + "In the beginning God created the heaven and the earth.\n\n" * 40


@pytest.mark.parametrize("place", ["", "finetune"])
def test_a_models_examples_are_from_the_text_that_it_was_evaluated_on(
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
    assert opening(found) == "In the beginning God created the heaven"
    write_json(folder / "lineage.json", {"text": {"validation": "0" * 64}})  # the text beside it is another by now
    assert held_out(folder) == ""


def test_where_that_text_is_gone_the_model_writes_its_own_example(model_folder: Path) -> None:
    model, tokenizer = load(model_folder)
    own = written(model, tokenizer)
    assert passage(model_folder, model, tokenizer) == shortened(own.strip(), CHARACTERS)
    assert own == written(model, tokenizer)
    assert set(own) <= set(TEXT)


def test_an_example_ends_with_a_line_or_a_word() -> None:
    assert shortened("one\ntwo three", 12) == "one"
    assert shortened("one two three", 12) == "one two"
    assert shortened("one two", 7) == "one two"
    assert shortened("x" * 50, 12) == "x" * 12
    assert opening("\n".join(["x y" * 30] * 2)) == shortened("x y" * 30, OPENING)

"""tinygpt/tokenizer/sentencepiece.py: others' tokenizers are kept as they are, and open again."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest

from tests.checkpoints.test_hf_model import byte_level, pieces
from tests.conftest import MIXED
from tinygpt.tokenizer.folder import load
from tinygpt.tokenizer.sentencepiece import HFTokenizer


@functools.cache
def foreign() -> HFTokenizer:
    """Like Llama's, with what should not take effect here: a beginning that is put before a text, and truncation."""
    content = json.loads(pieces(400).to_str())
    begin = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    around: dict[str, Any] = {
        "type": "TemplateProcessing",
        "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [],
    }
    around["special_tokens"] = {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
    cut = {"max_length": 5, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
    return HFTokenizer(content | {"post_processor": around, "truncation": cut}, 2, 416)


def test_a_foreign_tokenizer_is_kept_and_opens_again(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    foreign().save(tmp_path)
    loaded = load(tmp_path)
    assert isinstance(loaded, HFTokenizer)
    assert (loaded.end_of_text, loaded.vocab_size) == (2, 416)
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path)
    for text in ("O Romeo, Romeo! wherefore art thou", MIXED.replace("\0", "")):
        ids = foreign().encode(text)
        assert len(ids) > 5
        assert ids == loaded.encode(text) == loaded.encode_array(text).tolist() == opened.encode(text)
        assert loaded.decode(ids) == opened.decode(ids) == text
    assert opened.eos_token_id == 2
    loaded.save(tmp_path / "again")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_words_added_to_a_byte_level_tokenizer_stand_for_themselves() -> None:
    content = json.loads(byte_level(400).to_str())
    size = max(entry["id"] for entry in content["added_tokens"]) + 1
    for spelled, special in (("éé", False), ("<｜User｜>", False), ("<｜End｜>", True)):
        added = {"id": size, "content": spelled, "special": special, "normalized": False}
        content["added_tokens"].append(added | dict.fromkeys(("single_word", "lstrip", "rstrip"), False))
        size += 1
    tokenizer = HFTokenizer(content, 0, size)
    ids = tokenizer.encode("néé <｜User｜>")
    assert {size - 3, size - 2} <= set(ids)
    assert tokenizer.decode(ids) == "néé <｜User｜>"
    assert tokenizer.token_bytes(size - 1) == b""


@pytest.mark.parametrize(
    "told",
    [
        *([], {}, "x", {"other": 1}, {"end_of_text": 2}, {"end_of_text": True, "vocab_size": 416}),
        *({"end_of_text": end, "vocab_size": size} for end, size in ((2, 399), (416, 416), (-1, 416))),
    ],
)
def test_a_foreign_tokenizer_with_a_damaged_note_is_refused(tmp_path: Path, told: Any) -> None:
    foreign().save(tmp_path)
    settings_file = tmp_path / "tokenizer_config.json"
    values = json.loads(settings_file.read_text(encoding="utf-8")) | {"tinygpt": told}
    settings_file.write_text(json.dumps(values), encoding="utf-8")
    with pytest.raises(ValueError, match=r"is damaged, or not TinyGPT's: .*dvc repro tokenize"):
        load(tmp_path)

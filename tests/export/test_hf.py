"""A published folder is the model's own, as it was, and its card says only what is of this very model."""

import json
import shutil
from pathlib import Path
from unittest import mock

import pytest
import yaml
from typer.testing import CliRunner

from tests.chat_model import chat_model
from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import SHAPES, TEXT, gpt, params
from tinygpt.checkpoints.model_folder import hashes, load, save_model
from tinygpt.cli import main
from tinygpt.data import train_tokenizer
from tinygpt.experiments import lineage
from tinygpt.export import hf
from tinygpt.files.checksums import SUMS, seal, verify
from tinygpt.files.paths import Paths
from tinygpt.files.text import write_json, write_text
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training.state import weights

NUMBERS = {"bits_per_byte": 1.234, "baselines": {"bigram": 2.5, "ppmd": 0.987}}


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path) -> Paths:
    """A pipeline's folder with a model, its score and its samples."""
    paths = Paths(tmp_path / "project")
    shutil.copytree(model_folder, paths.model)
    write_json(paths.evaluation / "metrics.json", NUMBERS)
    lock = {"stages": {"evaluate": {"deps": [{"path": "data/model", "md5": lineage.folder_md5(paths.model)}]}}}
    write_text(paths.folder / "dvc.lock", yaml.safe_dump(lock))
    sample = {"text": "O ``` Romeo", "seed": 7, "settings": {"temperature": 0.8}}
    own = hashes(paths.model)
    samples = [sample | {"hashes": own | {"model": "0" * 64}}, sample | {"hashes": own}]
    write_text(paths.samples / "samples.jsonl", "".join(json.dumps(one) + "\n" for one in samples))
    return paths


def card_of(folder: Path) -> str:
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_card_has_the_score_beside_baselines_a_sample_and_the_hashes(pipeline: Paths, tmp_path: Path) -> None:
    assert hf.write(pipeline, pipeline.model, tmp_path / "out") == []
    card = card_of(tmp_path / "out")
    rows = [line for line in card.splitlines() if line.startswith("| ")]
    assert rows[1:] == ["| bigram | 2.500 |", "| **this model** | 1.234 |", "| ppmd | 0.987 |"]
    assert "````text\nO ``` Romeo\n````" in card
    assert hashes(pipeline.model)["model"] in card
    assert yaml.safe_load(card.split("---")[1])["library_name"] == "transformers"


def test_the_card_of_a_chat_model_says_how_to_chat(tmp_path: Path, characters: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    folder = chat_model(tmp_path / "model", characters.with_roles(), steps=1)
    hf.write(Paths(tmp_path), folder, tmp_path / "out")
    card = card_of(tmp_path / "out")
    assert "conversational" in yaml.safe_load(card.split("---")[1])["tags"]
    assert "A chat model" in card
    assert "does not answer" not in card
    lines = [line.removeprefix("    ") for line in card.splitlines() if line.startswith("    ")]
    assert any('"role": "user"' in line for line in lines)
    use = "\n".join(lines).replace("path/to/this/folder", str(tmp_path / "out"))
    found: list[str] = []
    with mock.patch("builtins.print", found.append):
        exec(use, {"transformers": transformers})
    assert [type(text) for text in found] == [str]


def test_a_score_and_samples_of_another_model_are_left_out_and_named(pipeline: Paths, tmp_path: Path) -> None:
    write_json(pipeline.model / "lineage.json", LINEAGE | {"params": "other"})
    seal(pipeline.model)
    missing = hf.write(pipeline, pipeline.model, tmp_path / "out")
    assert [sentence.split("(")[0] for sentence in missing] == ["The card lacks metrics ", "The card lacks a sample "]
    assert "1.234" not in card_of(tmp_path / "out")
    assert "Romeo" not in card_of(tmp_path / "out")


def test_the_folder_is_the_model_and_its_sums_cover_the_card(pipeline: Paths, tmp_path: Path) -> None:
    hf.write(pipeline, pipeline.model, tmp_path / "out")
    verify(tmp_path / "out")
    for file in pipeline.model.iterdir():
        if file.name != SUMS:
            assert (tmp_path / "out" / file.name).read_bytes() == file.read_bytes()
    load(tmp_path / "out")


@pytest.mark.parametrize("kind", ["hf", "gguf"])
def test_what_others_trained_is_not_exported(pipeline: Paths, tmp_path: Path, kind: str) -> None:
    for name in ("lineage.json", SUMS):
        (pipeline.model / name).unlink()
    words = ["export", kind, str(tmp_path / "out"), "--model", str(pipeline.model)]
    result = CliRunner().invoke(main.app, words)
    assert "was not trained by TinyGPT" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_what_is_there_stays(pipeline: Paths, tmp_path: Path) -> None:
    for kind in ("hf", "gguf"):
        write_text(tmp_path / "mine", "precious")
        words = ["export", kind, str(tmp_path / "mine"), "--model", str(pipeline.model)]
        result = CliRunner().invoke(main.app, words)
        assert "exists already and is not overwritten" in str(result.exception)
        assert (tmp_path / "mine").read_text(encoding="utf-8") == "precious"


def test_a_mix_without_a_twin_is_refused(tmp_path: Path) -> None:
    characters = train_tokenizer.build(params().tokenize, [TEXT])
    model = gpt(characters.vocab_size, **SHAPES["mixed"])
    save_model(tmp_path / "model", model.config, weights(model), characters, LINEAGE)
    with pytest.raises(ValueError, match=r"Qwen3 and Llama would need model.norm=\"rmsnorm\", model.mlp=\"swiglu\""):
        hf.write(Paths(tmp_path), tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()

"""The model folder opens here, and refuses damage. Elsewhere: test_matrix.py."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.conftest import gpt
from tinygpt.checkpoints.model_folder import hashes, load, save_model
from tinygpt.files.checksums import SUMS, seal, verify
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.training.state import weights

LINEAGE = {"text": {"train": "t", "validation": "v"}, "tokenizer": "k", "params": "p"}


def saved(folder: Path, characters: Tokenizer, **changes: Any) -> Any:
    """A model written to `folder`."""
    model = gpt(characters.vocab_size, **changes)
    save_model(folder, model.config, weights(model), characters, LINEAGE)
    return model


def test_a_model_comes_back_with_every_weight(tmp_path: Path, characters: Tokenizer, shape: dict[str, Any]) -> None:
    model = saved(tmp_path / "model", characters, **shape)
    opened, tokenizer = load(tmp_path / "model")
    tokens = torch.tensor([tokenizer.encode("Juliet is the")])
    assert torch.equal(opened(tokens), model(tokens))
    assert not opened.training


def test_the_folder_passes_sha256sum_and_holds_no_pickle(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "model", characters)
    verify(tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == [
        "SHA256SUMS",
        "config.json",
        "generation_config.json",
        "lineage.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_same_model_gives_the_same_bytes(tmp_path: Path, characters: Tokenizer) -> None:
    for name in ("a", "b"):
        saved(tmp_path / name, characters)
    assert (tmp_path / "a/SHA256SUMS").read_text() == (tmp_path / "b/SHA256SUMS").read_text()


def drop_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("lm_head.weight")
    save_file(tensors, folder / "model.safetensors")


def reshape_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["lm_head.weight"].T.contiguous()
    save_file(tensors, folder / "model.safetensors")


def replace_in(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text(encoding="utf-8")
        assert old in text
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")

    return change


def replace_the_tokenizer(folder: Path) -> None:
    CharTokenizer("ab", "error").save(folder)


def cut_short(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (drop_a_tensor, "lm_head.weight is missing"),
        (reshape_a_tensor, "lm_head.weight is"),
        (cut_short, "is damaged"),
        (replace_in("config.json", '"qwen3"', '"bert"'), "model_type 'bert'"),
        (replace_in("config.json", '"hidden_size": 32', '"hidden_size": 64'), "does not fit its config.json"),
        (replace_in("config.json", '"rope_theta": 500.0,', ""), "lacks 'rope_theta'"),
        (replace_in("config.json", '"vocab_size"', '"vocab_size": 9, "other"'), "is .* not \\(9, 32\\)"),
        (replace_the_tokenizer, "the tokenizer has 3 tokens, the model"),
        (replace_in("config.json", "{", "["), "not JSON"),
        (lambda folder: (folder / "config.json").write_text("[]"), "is not a JSON object"),
        (
            replace_in("config.json", '"max_position_embeddings": 16', '"max_position_embeddings": 100000000000'),
            "context",
        ),
        (replace_in("config.json", '"num_attention_heads": 2', '"num_attention_heads": 0'), "n_head 0"),
        (replace_in("config.json", '"rms_norm_eps": 1e-05', '"rms_norm_eps": "x"'), "norm_eps 'x'"),
    ],
)
def test_a_damaged_folder_is_refused_in_a_sentence(
    tmp_path: Path, characters: Tokenizer, damage: Callable[[Path], None], says: str
) -> None:
    saved(tmp_path / "model", characters)
    damage(tmp_path / "model")
    with pytest.raises(ValueError, match="does not match its SHA256SUMS"):
        load(tmp_path / "model")
    seal(tmp_path / "model")  # the damage of someone who also renews the sums
    with pytest.raises(ValueError, match=says):
        load(tmp_path / "model")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "lineage.json"])
def test_a_pointer_of_git_lfs_is_told_from_damage(tmp_path: Path, characters: Tokenizer, name: str) -> None:
    folder = tmp_path / "model"
    saved(folder, characters)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    sentence = rf"{name} is a pointer of git-lfs, not the file itself\. Run `git lfs pull` in its repository"
    with pytest.raises(ValueError, match=sentence):
        load(folder)
    (folder / SUMS).unlink()
    with pytest.raises(ValueError, match=sentence) as told:
        (hashes if name == "lineage.json" else load)(folder)
    assert "damaged" not in str(told.value)


def test_a_missing_model_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Run `dvc repro train`"):
        load(tmp_path)

"""Going on from a trained model: its shape and tokenizer are kept, its context may be cut, and it is found again."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
import torch
import yaml
from typer.testing import CliRunner

from tests.checkpoints.test_hf_model import write as write_theirs
from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import ROOT, SHAPES, TEXT, gpt, gpt_config, params
from tinygpt import config
from tinygpt.checkpoints import base_model, locate
from tinygpt.checkpoints.model_folder import CHANGES, hashes, load, save_model
from tinygpt.cli import main
from tinygpt.data.corpus import write_corpus
from tinygpt.errors import ConfigError
from tinygpt.evaluation import before_after
from tinygpt.export import hf
from tinygpt.files.text import write_text
from tinygpt.model.hardware import autocast
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.chat_template import ROLE_TOKENS
from tinygpt.training import lora
from tinygpt.training.state import weights

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
TOKENS = torch.randint(30, (2, 8), generator=torch.Generator().manual_seed(4))


def saved(folder: Path, characters: Tokenizer, lineage: dict[str, Any] = LINEAGE, **changes: Any) -> Any:
    model = gpt(characters.vocab_size, **changes)
    save_model(folder, model.config, weights(model), characters, lineage)
    return model


def section(**changes: Any) -> config.Model:
    return params(**{f"model__{name}": value for name, value in changes.items()}).model


# The base


def test_a_base_keeps_its_shape_and_takes_a_shorter_context_and_dropout(
    tmp_path: Path, characters: Tokenizer, shape: dict[str, Any]
) -> None:
    model = saved(tmp_path / "base", characters, **shape)
    base, origin = base_model.open_base(str(tmp_path / "base"), characters, section(context_length=8, dropout=0.5))
    assert (base.config.context_length, base.config.dropout) == (8, 0.5)
    assert base.config.n_embd == model.config.n_embd
    torch.testing.assert_close(base(TOKENS), model(TOKENS))
    assert origin == {"init_from": str(tmp_path / "base")} | hashes(tmp_path / "base")


def test_a_base_grows_by_role_tokens_and_the_known_ones_keep_their_logits(
    tmp_path: Path, characters: Tokenizer, shape: dict[str, Any]
) -> None:
    model, known = saved(tmp_path / "base", characters, **shape), characters.vocab_size
    base, origin = base_model.open_base(str(tmp_path / "base"), characters.with_roles(), section())
    assert base.config.vocab_size == known + len(ROLE_TOKENS)
    logits = base(TOKENS)
    torch.testing.assert_close(logits[..., :known], model(TOKENS))
    for new in range(known, base.config.vocab_size):  # neither likely nor unlikely
        torch.testing.assert_close(logits[..., new], logits[..., :known].mean(-1))
        torch.testing.assert_close(base.token_embedding.weight[new], model.token_embedding.weight.mean(0))
    saved(tmp_path / "tuned", characters.with_roles(), LINEAGE | {"base": origin})
    found = base_model.base_of(tmp_path / "tuned", base.config)
    assert found is not None
    torch.testing.assert_close(found[0](TOKENS), logits)


def test_a_transformers_folder_is_a_base_too(tmp_path: Path, characters: Tokenizer) -> None:
    model = saved(tmp_path / "base", characters, **SHAPES["gpt2"])
    for name in ("lineage.json", "SHA256SUMS"):
        (tmp_path / "base" / name).unlink()
    base, origin = base_model.open_base(str(tmp_path / "base"), characters, section())
    torch.testing.assert_close(base(TOKENS), model(TOKENS))
    assert origin["text"] == {}


def test_another_tokenizer_is_refused(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "base", characters)
    other = CharTokenizer("abc", "error")
    with pytest.raises(ValueError, match=r"differs from the tokenizer of .*Set tokenize.from to"):
        base_model.open_base(str(tmp_path / "base"), other, section())


def test_more_context_than_there_is_is_refused(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "base", characters)
    with pytest.raises(ValueError, match=r"context_length is 17, but that of .* is 16. Set it to 16 or less"):
        base_model.open_base(str(tmp_path / "base"), characters, section(context_length=17))


def test_a_model_names_its_base_which_is_found_again(tmp_path: Path, characters: Tokenizer) -> None:
    model = saved(tmp_path / "base", characters)
    _, origin = base_model.open_base(str(tmp_path / "base"), characters, section())
    saved(tmp_path / "tuned", characters, LINEAGE | {"base": origin}, seed=2)
    found = base_model.base_of(tmp_path / "tuned", gpt_config(characters.vocab_size, context_length=8))
    assert found is not None
    torch.testing.assert_close(found[0](TOKENS), model(TOKENS))
    assert found[1] == hashes(tmp_path / "base")
    assert base_model.base_of(tmp_path / "base", model.config) is None


def test_a_base_that_has_changed_since_is_told(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "base", characters)
    _, origin = base_model.open_base(str(tmp_path / "base"), characters, section())
    saved(tmp_path / "tuned", characters, LINEAGE | {"base": origin})
    saved(tmp_path / "base", characters, seed=3)
    with pytest.raises(ValueError, match="is no longer the model that"):
        base_model.base_of(tmp_path / "tuned", gpt_config(characters.vocab_size, context_length=8))


# Its vocabulary


def test_a_vocabulary_grows_by_role_tokens_that_begin_at_the_mean(
    tmp_path: Path, characters: Tokenizer, shape: dict[str, Any]
) -> None:
    model, chat = saved(tmp_path / "base", characters, **shape), characters.with_roles()
    grown, origin = base_model.open_base(str(tmp_path / "base"), chat, section())
    size = characters.vocab_size
    assert origin["new_tokens"] == [size, size + 1, size + 2, size + 3]
    assert grown.config.vocab_size == chat.vocab_size
    assert grown.config.tie_embeddings == (grown.head.weight is grown.token_embedding.weight)
    for before, after in ((model.token_embedding, grown.token_embedding), (model.head, grown.head)):
        assert torch.equal(after.weight[:size], before.weight)
        torch.testing.assert_close(after.weight[size:], before.weight.mean(0).expand(4, -1))
    torch.testing.assert_close(grown(TOKENS)[..., :size], model(TOKENS))
    save_model(tmp_path / "chat", grown.config, weights(grown), chat, LINEAGE | {"base": origin})
    opened, tokenizer = load(tmp_path / "chat")
    assert torch.equal(opened(TOKENS + 10), grown(TOKENS + 10))
    assert tokenizer.to_json() == chat.to_json()
    found = base_model.base_of(tmp_path / "chat", opened.config)
    assert found is not None
    assert torch.equal(found[0](TOKENS), grown(TOKENS))


def test_role_tokens_in_free_ids_of_a_padded_vocabulary_begin_at_the_mean_of_the_others(tmp_path: Path) -> None:
    write_theirs(tmp_path / "base", "qwen3")  # 320 ids, of which its tokenizer has 300
    model, tokenizer = load(tmp_path / "base")
    chat = tokenizer.with_roles()
    grown, origin = base_model.open_base(str(tmp_path / "base"), chat, section())
    assert origin["new_tokens"] == [300, 301, 302, 303]
    assert grown.config.vocab_size == 320
    rows, others = grown.token_embedding.weight, [*range(300), *range(304, 320)]
    torch.testing.assert_close(rows[300:304], model.token_embedding.weight[others].mean(0).expand(4, -1))
    assert torch.equal(rows[others], model.token_embedding.weight[others])


def test_a_chat_model_as_a_base_keeps_its_role_tokens(tmp_path: Path, characters: Tokenizer) -> None:
    chat = characters.with_roles()
    model = saved(tmp_path / "base", chat)
    base, origin = base_model.open_base(str(tmp_path / "base"), chat, section())
    assert "new_tokens" not in origin
    assert torch.equal(base(TOKENS), model(TOKENS))


# Its name


def test_a_folder_is_looked_for_here_and_then_in_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "home/data/model").mkdir(parents=True)
    (tmp_path / "copy").mkdir()
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "home"))
    assert locate.locate("data/model") == tmp_path / "home/data/model"
    (tmp_path / "copy/data/model").mkdir(parents=True)
    assert locate.locate("data/model") == Path("data/model")


@pytest.mark.parametrize(
    ("name", "problem", "sentence"),
    [
        ("data/model", FileNotFoundError, "There is no folder data/model. `dvc repro` makes data/model."),
        ("openai-community/gpt2", FileNotFoundError, "write openai-community/gpt2@commit"),
        ("openai-community/gpt2@main", ValueError, "'main' is not a commit, so the model could change"),
        ("../../etc\0/x", FileNotFoundError, "There is no folder"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused_in_a_sentence(
    name: str, problem: type[Exception], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with pytest.raises(problem, match=sentence):
        locate.check(name)


def test_a_hubs_model_is_fetched_at_its_commit_without_what_could_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []

    def snapshot_download(name: str, **options: Any) -> str:
        asked.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    assert locate.locate(f"owner/name@{COMMIT}") == tmp_path
    assert asked == [("owner/name", {"revision": COMMIT, "allow_patterns": ["*.json", "*.safetensors"]})]


def test_a_hub_that_cannot_be_reached_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConnectionError, match=r"owner/name at 607a30d could not be fetched.*unset HF_HUB_OFFLINE"):
        locate.locate(f"owner/name@{COMMIT}")


# The tokenizer that is kept


def test_the_tokenizer_of_a_model_or_of_a_folder_of_its_own_is_kept(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "model", characters)
    characters.save(tmp_path / "tokenizer")
    for folder in ("model", "tokenizer"):
        assert locate.kept_tokenizer(str(tmp_path / folder)).to_json() == characters.to_json()


def test_check_refuses_a_base_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = ROOT / "finetune/params.yaml"
    write_text(tmp_path / "finetune/params.yaml", source.read_text(encoding="utf-8"))
    monkeypatch.setattr("tinygpt.data.sources.documents.check_source", lambda section: None)
    done = CliRunner().invoke(main.app, ["check", "finetune"])
    assert done.exit_code == 1
    assert "There is no folder data/model" in str(done.exception)


@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("train", "init_from", "data/model", "data/model is an output of this pipeline, which DVC deletes"),
        (
            "tokenize",
            "from",
            "data/../data/tokenizer",
            "is an output of this pipeline, which DVC deletes before the stage runs",
        ),
        ("evaluate", "base_text", "no/corpus", "There is no text in no/corpus. Set evaluate.base_text"),
    ],
)
def test_check_refuses_what_would_fail_only_once_there_was_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: str, key: str, value: str, says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("base", "data/model", "data/tokenizer"):
        (tmp_path / name).mkdir(parents=True)
    values = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    values["train"]["init_from"] = "base"
    values[section][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    done = CliRunner().invoke(main.app, ["check"])
    assert done.exit_code == 1
    assert says in str(done.exception)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"train__lora_rank": 4}, "there is no model to adapt; set train.init_from"),
        ({"train__lora_rank": -1}, "train.lora_rank is -1"),
        ({"train__init_from": ""}, "train.init_from is ''"),
        ({"tokenize__from": 7}, "tokenize.from is 7"),
        ({"tokenize__form": "x"}, "did you mean from"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        params(**changes)


# Gained and forgotten


def test_bits_per_byte_are_of_the_held_out_part_of_the_base_text(
    tmp_path: Path, characters: Tokenizer, model_folder: Path
) -> None:
    (tmp_path / "corpus").mkdir()
    write_corpus([("book", [TEXT])], params().download, tmp_path / "corpus")
    text = before_after.base_text(str(tmp_path / "corpus"), characters, 16, 4)
    assert text.bytes == round(len(TEXT) * 0.1)
    model, _ = load(model_folder)
    cast = autocast(torch.device("cpu"), "fp32")
    learned, untrained = (
        before_after.bits_per_byte(one, text, characters, cast) for one in (model, gpt(characters.vocab_size))
    )
    assert learned < 3.5 < untrained


def test_a_base_text_that_is_not_there_is_told(tmp_path: Path, characters: Tokenizer) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"Set evaluate.base_text to a corpus folder, such as data/corpus, or to null"
    ):
        before_after.base_text(str(tmp_path / "nowhere"), characters, 16, 4)


def test_the_verdict_says_what_was_gained_and_what_it_cost() -> None:
    numbers = {"its_text": {"before": 4.0, "after": 2.0}, "base_text": {"before": 2.0, "after": 2.5}}
    assert before_after.verdict(numbers) == (
        "fine-tuning, bits per byte before and after: its text 4.000 → 2.000 (-50%); base text 2.000 → 2.500 (+25%)"
    )


# What LoRA learned, exported


def tuned(folder: Path, characters: Tokenizer, **shape: Any) -> None:
    """A model folder as train writes it after LoRA."""
    model = gpt(characters.vocab_size, **shape)
    lora.adapt(model, 2, 4.0, torch.Generator().manual_seed(1))
    learned = weights(model)
    lineage = LINEAGE | {
        "base": {"init_from": f"owner/name@{COMMIT}", "model": "m"},
        "train": {"lora_rank": 2, "lora_alpha": 4.0},
    }
    plain = lora.merged(learned, 2, 4.0)
    save_model(folder, model.config, plain, characters, lineage, lora.learned(learned))


def test_what_lora_learned_is_exported_for_peft_and_left_out_of_a_published_folder(
    tmp_path: Path, characters: Tokenizer
) -> None:
    tuned(tmp_path / "model", characters)
    load(tmp_path / "model")
    hf.write_adapter(tmp_path / "model", tmp_path / "adapter")
    said = json.loads((tmp_path / "adapter/adapter_config.json").read_text(encoding="utf-8"))
    assert (said["r"], said["lora_alpha"]) == (2, 4.0)
    assert (said["base_model_name_or_path"], said["revision"]) == ("owner/name", COMMIT)
    paths = SimpleNamespace(folder=tmp_path, evaluation=tmp_path, samples=tmp_path)
    hf.write(paths, tmp_path / "model", tmp_path / "published")  # type: ignore[arg-type]
    assert not (tmp_path / "published" / CHANGES).exists()
    load(tmp_path / "published")


def test_a_model_without_lora_or_without_a_twin_has_no_adapter(tmp_path: Path, characters: Tokenizer) -> None:
    saved(tmp_path / "model", characters)
    with pytest.raises(ValueError, match="was not trained with LoRA"):
        hf.write_adapter(tmp_path / "model", tmp_path / "adapter")
    tuned(tmp_path / "mixed", characters, **SHAPES["mixed"])
    with pytest.raises(ValueError, match="transformers has no model like"):
        hf.write_adapter(tmp_path / "mixed", tmp_path / "adapter")
    shutil.rmtree(tmp_path / "mixed")

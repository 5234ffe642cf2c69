"""A wrong parameter is refused in a sentence, all of them at once; a sound file is read as DVC reads it."""

import datetime
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dvc.utils.hydra
import pytest
import yaml
from dvc.utils.serialize import parse_yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT
from tinygpt import config, yaml_files
from tinygpt.errors import ConfigError
from tinygpt.model.gpt import GPTConfig


def values() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))


def refusal(changes: dict[str, Any]) -> str:
    """The message for params.yaml with `section.key` changed."""
    changed = values()
    for name, value in changes.items():
        section, _, key = name.rpartition(".")
        (changed[section] if section else changed)[key] = value
    with pytest.raises(ConfigError) as error:
        config.check(changed)
    return str(error.value)


def test_the_projects_own_parameters_are_sound() -> None:
    assert config.load(ROOT / "params.yaml").train.steps >= 1


def test_every_parameter_has_a_comment() -> None:
    lines = (ROOT / "params.yaml").read_text(encoding="utf-8").splitlines()
    values = [line for line in lines if ":" in line and not line.lstrip().startswith(("#", "- "))]
    bare = [line for line in values if " # " not in line]
    assert bare == ["    temperature:", "    top_p:"]  # explained by their section


@pytest.mark.parametrize(
    "file",
    ["params.yaml", "finetune/params.yaml", "chat/params.yaml", "scratch/params.yaml", "benchmark/params.yaml"],
)
def test_a_parameter_set_by_dvc_changes_its_own_line_alone(file: str, tmp_path: Path) -> None:
    shutil.copy(ROOT / file, tmp_path / "params.yaml")
    lines = (ROOT / file).read_text(encoding="utf-8").splitlines(keepends=True)
    key, old, new = ("budget", "600 ", "700 ") if file.startswith("benchmark") else ("seed", "1337", "1338")
    dvc.utils.hydra.apply_overrides(tmp_path / "params.yaml", [f"{key}={new.strip()}"])
    changed = [line.replace(old, new) if line.startswith(key) else line for line in lines]
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8").splitlines(keepends=True) == changed


def test_the_model_section_and_gptconfig_name_the_same_things() -> None:
    assert ["vocab_size", *config.Model.model_fields] == list(GPTConfig.__dataclass_fields__)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"train.lerning_rate": 1}, "train.lerning_rate is not a parameter; did you mean learning_rate?"),
        (
            {"train.implementation": "scratch"},
            "train.implementation is no longer a parameter: remove the line. `dvc repro scr",
        ),
        ({"smaple": {}}, "smaple is not a parameter; did you mean sample?"),
        (
            {"train.learning_rate": "1e-2"},
            "train.learning_rate is the text '1e-2', not a number; write 0.01 without quotes.",
        ),
        ({"model.n_layer": "4"}, "model.n_layer is the text '4', not a number; write 4 without quotes."),
        ({"model.n_kv_head": "2"}, "model.n_kv_head is the text '2', not a number; write 2 without quotes."),
        ({"model.n_layer": 2.5}, "model.n_layer is 2.5; it must be a valid integer."),
        ({"train.steps": 0}, "train.steps is 0; it must be greater than or equal to 1."),
        ({"sample.top_p": 0}, "sample.top_p is 0; it must be greater than 0."),
        ({"train.weight_decay": float("nan")}, "train.weight_decay is nan; it must be a finite number."),
        (
            {"tokenize.kind": "bpee"},
            "tokenize.kind is 'bpee'; it must be 'char', 'bpe', 'sentencepiece', 'gpt2', "
            "'r50k_base', 'p50k_base', 'cl100k_base' or 'o200k_base'.",
        ),
        ({"train.compile": "maybe"}, "train.compile is 'maybe'; it must be 'auto', True or False."),
        ({"model.n_embd": 130}, "model.n_embd is 130, which 3 heads (model.n_head) do not divide; write 129"),
        ({"model.head_dim": 33}, "rope rotates pairs of coordinates"),
        ({"model.n_kv_head": 2}, "model.n_kv_head is 2, which does not divide model.n_head, 3."),
        ({"tokenize.vocab_size": 100}, "tokenize.vocab_size is 100; a bpe vocabulary has the 256 bytes"),
        ({"download.path": "data/*.txt"}, "download.path is 'data/*.txt', which looks like a glob"),
        ({"download.path": ""}, "download.path is ''; write a file or folder in full, without ~, such as data/own."),
        ({"download.path": "~/book.txt"}, "download.path is '~/book.txt'; write a"),
        ({"download.url": "http://example.org/a.txt"}, "it must start with https://"),
        ({"train": None}, "train is null; it must be a section of keys and values."),
        ({"sample.prompts": []}, "sample.prompts is []; it must have at least 1 item"),
    ],
)
def test_a_wrong_value_is_refused_in_a_sentence(changes: dict[str, Any], says: str) -> None:
    assert says in refusal(changes)


def test_all_problems_are_reported_at_once() -> None:
    message = refusal({"train.steps": -1, "model.n_head": "two", "download.sources": "x", "seed": 1.5})
    for key in ("train.steps", "model.n_head", "download.sources", "seed"):
        assert key in message
    assert "4 problems" in message


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    changed = values()
    del changed["train"]["steps"]
    with pytest.raises(ConfigError, match=r"train\.steps is missing"):
        config.check(changed)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no sections"),
        ("- 1\n- 2", "has no sections"),
        ("a: [", "is not YAML"),
        ("seed: 1\nseed: 2", "the key 'seed' appears twice"),
        ("a: !!python/object/apply:os.getcwd []", "is not YAML"),
        ("[" * 5000, "is not YAML"),
    ],
)
def test_a_file_that_is_not_a_parameter_file_is_refused(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=says):
        config.load(file)


def test_a_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes(b"seed: 1 # caf\xe9")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_stand(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="Run this in the project's folder"):
        config.load(tmp_path / "params.yaml")


def test_numbers_are_read_as_dvc_reads_and_writes_them(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    file = tmp_path / "params.yaml"
    file.write_text(text.replace("weight_decay: 0.1 ", "weight_decay: 1e-05 "), encoding="utf-8")
    assert config.load(file).train.weight_decay == 0.00001


WRITTEN = [
    "1e-2",
    "2_000",
    "0100",
    "0o17",
    "0x1F",
    "1:30",
    "yes",
    "~",
    ".5",
    "2024-01-01",
    "1_0.5",
    "+.inf",
    "- 1",
    "''",
    "!!int x",
]


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("1e-2", 0.01),
        ("2_000", 2000),
        ("0100", 100),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("yes", "yes"),
        ("~", None),
        (".5", 0.5),
        ("2024-01-01", datetime.date(2024, 1, 1)),
    ],
)
def test_plain_values_mean_what_they_mean_to_dvc(written: str, means: object) -> None:
    """DVC reads params.yaml as YAML 1.2."""
    assert yaml_files.read_value(written) == means


@pytest.mark.filterwarnings("ignore::ruamel.yaml.error.ReusedAnchorWarning")  # which is read as DVC reads it, too
@given(
    text=st.one_of(
        st.dictionaries(
            st.sampled_from(["a", "b", "'a'", "1", "[]"]), st.sampled_from(WRITTEN) | st.text(max_size=6)
        ).map(lambda values: "\n".join(f"{key}: {value}" for key, value in values.items())),
        st.lists(st.sampled_from(["a: 1", "a: 2", "'a': 3", "b: {c: 1, c: 2}", "- x", "&x a: *x"])).map("\n".join),
        st.floats().map(lambda value: f"a: {value!r}"),
        st.text(max_size=30),
    )
)
def test_every_text_has_the_values_that_dvc_sees_or_is_refused_by_both(text: str) -> None:
    try:
        expected = parse_yaml(text, "params.yaml")
    except Exception:  # DVC lets those of the library through that it did not expect
        expected = None
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "params.yaml"
        file.write_bytes(text.encode("utf-8", "surrogatepass"))
        if not isinstance(expected, dict) or not expected:
            with pytest.raises(ConfigError):
                yaml_files.read_yaml(file)
        else:
            assert repr(yaml_files.read_yaml(file)) == repr(expected)


def test_sections_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        config.load(ROOT / "params.yaml").train.steps = 3

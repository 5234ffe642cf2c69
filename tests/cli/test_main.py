"""The command line: prints text or JSON that can be traced, and answers a mistake with a sentence."""

import dataclasses
import importlib.util
import inspect
import json
import os
import re
import shutil
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tests import screen
from tests.conftest import ROOT
from tinygpt import console
from tinygpt.cli import generate as _generate
from tinygpt.cli import inspect as cli_looking
from tinygpt.cli import main
from tinygpt.config import SAMPLING
from tinygpt.errors import explain
from tinygpt.files.checksums import SUMS, sha256
from tinygpt.files.text import write_json
from tinygpt.generation.sampling import Sampling
from tinygpt.inspection.activations import EXAMPLE, VIEWS


def tinygpt(*words: str, monkeypatch: pytest.MonkeyPatch, stdin: str | bytes = "") -> tuple[int, str]:
    """Run the command in this process; (exit status, all that it printed)."""
    result = CliRunner().invoke(main.app, words, input=stdin)
    if isinstance(result.exception, ValueError | OSError):
        return 1, result.output + str(explain(result.exception))  # what `main` prints
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.fixture
def generate(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*words: str, stdin: str | bytes = "") -> tuple[int, str]:
        return tinygpt("generate", *words, "--model", str(model_folder), monkeypatch=monkeypatch, stdin=stdin)

    return run


def test_generate_continues_the_prompt(generate: Any) -> None:
    code, printed = generate("ROMEO:", "--max-new-tokens", "30")
    assert code == 0
    assert printed.startswith("ROMEO:")
    assert len(printed) == len("ROMEO:") + 30 + 1


def test_the_same_seed_prints_the_same_text(generate: Any) -> None:
    first, again, other = (generate("O ", "--seed", seed)[1] for seed in ("1", "1", "2"))
    assert first == again != other


def test_streaming_prints_the_same_text(generate: Any) -> None:
    assert generate("JULIET:", "--stream") == generate("JULIET:")


def test_json_is_one_traceable_object_a_line(generate: Any, model_folder: Path) -> None:
    _, printed = generate("O ", "--num-samples", "3", "--json", "--seed", "7", "--top-k", "5")
    samples = [json.loads(line) for line in printed.splitlines()]
    assert [sample["seed"] for sample in samples] == [7, 8, 9]
    for sample in samples:
        assert sample["text"] == sample["prompt"] + sample["completion"]
        assert sample["settings"]["top_k"] == 5
        assert sample["hashes"]["model"] == sha256(model_folder / "model.safetensors")
        assert set(sample["hashes"]) == {"model", "tokenizer", "text", "params"}


def test_int8_weights_give_a_text_of_their_own_that_says_so(generate: Any) -> None:
    (plain, int8) = (json.loads(generate("O ", "--json", "--weights", kind)[1]) for kind in ("fp32", "int8"))
    assert int8["hashes"] == plain["hashes"] | {"weights": "int8"}
    assert generate("O ", "--weights", "int8")[1] == int8["text"] + "\n"


def test_a_prompt_can_come_from_standard_input(generate: Any) -> None:
    assert generate("-", stdin="JULIET:\n")[1].startswith("JULIET:\n")


@pytest.mark.parametrize("command", ["generate", "inspect"])
def test_standard_input_that_is_no_utf8_is_answered_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, command: str
) -> None:
    code, printed = tinygpt(
        command, "-", "--model", str(model_folder), monkeypatch=monkeypatch, stdin="Où est".encode("latin1")
    )
    assert (code, printed) == (
        1,
        "Standard input is not UTF-8 text (byte 1). Convert it first, for instance with `iconv -f latin1 -t utf-8`.",
    )


def test_standard_input_that_is_closed_is_an_empty_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with console.prepared():
        assert console.typed("-") == ""


def test_a_prompt_longer_than_the_context_slides(generate: Any) -> None:
    code, printed = generate("O Romeo, Romeo! wherefore art thou Romeo? " * 9, "--max-new-tokens", "5")
    assert code == 0
    assert len(printed) == 42 * 9 + 5 + 1


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--temperature", "-1"], "temperature is -1.0; it must be 0 or more."),
        (["--temperature", "nan"], "temperature is nan"),
        (["--top-p", "0"], "top_p is 0.0; it must be above 0 and at most 1."),
        (["--stream", "--json"], "--stream prints one sample"),
        (["--device", "quantum"], "quantum"),
        (["--max-new-tokens", "0"], "Invalid value for '--max-new-tokens'"),
    ],
)
def test_a_mistake_is_answered_with_a_sentence(generate: Any, words: list[str], says: str) -> None:
    code, printed = generate("x", *words)
    assert code != 0
    assert says in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("exercise --check", "--check needs the number of a lesson: tinygpt exercise 4 --check."),
        ("exercise --folder mine", "--folder needs the number of a lesson"),
        ("inspect O --what lens --head 1", "--head has no effect with --what lens; leave one of them out."),
        ("inspect O --what lens --top-k 20", "--top-k has an effect only with --what next; leave it out."),
        ("inspect O --layer 1 --temperature 1", "--temperature has an effect only with --what next; leave it out."),
        ("compare --allow text", "--allow needs two sets: tinygpt compare A B."),
        ("compare --results runs.jsonl", "--results needs two sets"),
        ("benchmark --quick --budget 600", "--budget has no effect with --quick; leave one of them out."),
        ("benchmark --quick --no-compile", "--compile has no effect with --quick"),
        ("export hf folder --type q8_0", "--type applies only to gguf; leave it out of hf."),
        ("export gguf file --folder finetune", "--folder applies only to hf, whose card shows the score and samples"),
    ],
)
def test_an_option_that_would_be_ignored_is_refused(words: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    code, printed = tinygpt(*words.split(), monkeypatch=monkeypatch)
    assert code == 1
    assert printed.startswith(says)


def test_a_missing_model_says_what_to_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    code, printed = tinygpt("generate", "x", "--model", str(tmp_path), monkeypatch=monkeypatch)
    assert code == 1
    assert "Run `dvc repro train`" in printed


def test_check_accepts_the_projects_own_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    code, printed = tinygpt("check", monkeypatch=monkeypatch)
    assert (code, printed[:21]) == (0, "params.yaml is valid;")


def test_check_says_where_the_project_is_in_no_repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    code, printed = tinygpt("check", str(ROOT), monkeypatch=monkeypatch)
    assert code == 1
    assert "git finds no repository here, and DVC needs one. Clone" in printed


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("n_embd: 96", "n_embd: 130", "model.n_embd is 130"),
        ("device: auto", "device: cuda", "train.device is 'cuda'"),
        ("precision: auto", "precision: fp16", "needs a CUDA device"),
        ("source: shakespeare", "source: files", "There is no text in data/own"),
        ("path: data/own", "path: data", "download.path is 'data', which contains data/corpus, an output of dvc.yaml"),
        ("  kind: bpe", "  kind: sentencepiece", "pip install -c requirements.lock -e '.[sentencepiece]'"),
    ],
)
def test_check_refuses_what_could_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, old: str, new: str, says: str
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert old in text
    (tmp_path / "params.yaml").write_text(text.replace(old, new), encoding="utf-8")
    (tmp_path / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "data/own").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sentencepiece" else find(name))
    code, printed = tinygpt("check", monkeypatch=monkeypatch)
    assert code == 1
    assert says in " ".join(printed.split())


@pytest.mark.parametrize(
    ("content", "changes", "says"),
    [
        ("caf\xe9 ".encode("latin1") * 500, {}, "book.txt is not UTF-8 text (byte 3)"),
        (b"abc", {}, "data/own holds 3 characters of text; a model needs 1,000 or more"),
        (
            b"abc " * 500,
            {"context_length: 128": "context_length: 4096"},
            "holds 2,000 characters of text; a model needs 4,096",
        ),
    ],
)
def test_check_reads_the_beginning_of_peoples_own_text(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes, changes: dict[str, str], says: str
) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("source: shakespeare", "source: files")
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "data/own").mkdir(parents=True)
    (tmp_path / "data/own/book.txt").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    code, printed = tinygpt("check", monkeypatch=monkeypatch)
    assert code == 1
    assert says in printed


@pytest.fixture
def pipeline(model_folder: Path, tokens: dict[str, np.ndarray], tmp_path: Path) -> Path:
    """A pipeline's folder, in which a model and held-out text lie."""
    shutil.copytree(model_folder, tmp_path / "data/model")
    (tmp_path / "data/tokens").mkdir()
    np.save(tmp_path / "data/tokens/validation.npy", tokens["validation"])
    lineage = {"tokenizer": sha256(model_folder / "tokenizer.json")}
    write_json(tmp_path / "data/tokens/lineage.json", lineage)
    return tmp_path


@pytest.fixture
def inspect_model(pipeline: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    def run(*words: str, stdin: str = "") -> tuple[int, str]:
        return tinygpt("inspect", *words, "--model", str(pipeline / "data/model"), monkeypatch=monkeypatch, stdin=stdin)

    return run


def test_inspect_shows_every_view_of_a_held_out_passage(inspect_model: Any) -> None:
    code, printed = inspect_model()
    assert code == 0
    assert [name for name in VIEWS if f"\n{name.upper()}  " in printed] == [*VIEWS]
    assert "mean loss on held-out text" in printed
    assert "\x1b" not in printed


def test_inspect_shows_one_view_of_ones_own_text(inspect_model: Any) -> None:
    for text, stdin in (("O Romeo\\n", ""), ("-", "O Romeo\n")):
        code, printed = inspect_model(text, "--what", "surprisal", stdin=stdin)
        assert code == 0
        assert "O Romeo↵\n" in printed
        assert "NEXT" not in printed


def test_naming_a_head_is_asking_for_its_attention(inspect_model: Any) -> None:
    code, printed = inspect_model("O Romeo", "--layer", "2", "--head", "1")
    assert code == 0
    assert printed.startswith("\nATTENTION")
    assert "o            " in printed
    assert "SURPRISAL" not in printed


def test_the_views_on_offer_are_those_there_are() -> None:
    what = inspect.signature(cli_looking.inspect).parameters["what"].annotation
    (choice, *_) = typing.get_args(typing.get_args(what)[0])
    assert typing.get_args(choice) == ("all", *VIEWS)
    for field in ("temperature", "top_k", "top_p", "min_p"):
        assert inspect.signature(cli_looking.inspect).parameters[field].default == getattr(EXAMPLE, field)


def test_inspect_draws_into_a_folder(inspect_model: Any, tmp_path: Path) -> None:
    folder = tmp_path / "new/pictures"
    code, printed = inspect_model("O Romeo", "--what", "embeddings", "--write", str(folder))
    assert (code, printed) == (0, f"{folder}/embeddings.png\n")
    assert [file.name for file in folder.iterdir()] == ["embeddings.png"]


def test_inspect_says_what_of_a_long_text_it_leaves_out(inspect_model: Any) -> None:
    code, printed = inspect_model("wherefore art thou Romeo", "--what", "surprisal")
    assert code == 0
    assert printed.startswith("The first 8 tokens are left out: the context holds only the last 16.")
    assert "\ne art thou Romeo\n" in printed


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([""], "The text is empty"),
        (["x", "--layer", "3"], "--layer is 3; this model has 2, counted from 1."),
        (["x", "--head", "0"], "--head is 0; this model has 2, counted from 1."),
        (["x", "--what", "attentoin"], "Invalid value for '--what'"),
        (["x", "--top-p", "0"], "top_p is 0.0; it must be above 0 and at most 1."),
    ],
)
def test_inspect_answers_a_mistake_with_a_sentence(inspect_model: Any, words: list[str], says: str) -> None:
    code, printed = inspect_model(*words)
    assert code != 0
    assert says in printed


def test_inspect_refuses_a_damaged_model_and_asks_for_a_text_where_none_is_held_out(
    inspect_model: Any, pipeline: Path
) -> None:
    (pipeline / "data/tokens/validation.npy").unlink()
    assert "There is no held-out text beside" in inspect_model()[1]
    assert inspect_model("O Romeo", "--what", "tokens")[0] == 0
    (pipeline / "data/model/model.safetensors").write_bytes(b"x" * 99)
    code, printed = inspect_model("O Romeo")
    assert code == 1
    assert "is damaged: model.safetensors does not match its SHA256SUMS" in printed


def test_the_options_defaults_are_those_of_the_library() -> None:
    parameters = inspect.signature(_generate.generate).parameters
    for field in dataclasses.fields(Sampling):
        assert parameters[field.name].default == field.default


def test_a_mistake_ends_the_process_with_code_1_and_no_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tinygpt", "generate", "x", "--model", "nowhere"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert run.stderr == "tinygpt: There is no model in nowhere: config.json is missing. Run `dvc repro train`.\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tinygpt gen", ["generate"]),
        ("tinygpt ch", ["check", "chat"]),
        ("tinygpt generate --te", ["--temperature"]),
        ("tinygpt inspect --what l", ["lens"]),
        ("tinygpt chat --device c", ["cpu", "cuda"]),
    ],
)
def test_the_tab_key_completes_and_waits_for_no_torch(typed: str, offered: list[str]) -> None:
    """What a shell asks after --install-completion."""
    code = (
        "import sys; sys.argv = ['tinygpt']; from tinygpt.cli import main\n"
        "try: main.main()\n"
        "finally: print(*sys.modules, file=sys.stderr)"
    )
    asks = {"_TINYGPT_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" "))}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | asks, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == offered
    assert "typer" in run.stderr.split()
    assert not {"torch", "numpy", "tqdm"} & set(run.stderr.split())


@pytest.mark.slow
def test_no_command_colours_where_nobody_wants_it(pipeline: Path) -> None:
    paint = re.compile(r"\x1b\[[0-9;]*m")
    look = ("inspect", "O Romeo", "--what", "surprisal", "--model", str(pipeline / "data/model"))
    write = ("generate", "O", "--model", str(pipeline / "data/model"), "--max-new-tokens", "5")
    with screen.tinygpt(*look) as terminal:
        assert terminal.end()[0] == 0
    assert paint.search(terminal.raw)
    for wish in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        for words in (look, write, ("--help",), ("nonsense",)):
            with screen.tinygpt(*words, **wish) as terminal:
                terminal.end()
            assert terminal.raw
            assert not paint.search(terminal.raw)


@pytest.mark.parametrize("words", [["compare", "--html"], ["benchmark", "--json"]])
def test_a_folder_named_for_a_file_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str]
) -> None:
    (tmp_path / "precious").write_text("x")
    code, printed = tinygpt(*words, str(tmp_path), monkeypatch=monkeypatch)
    assert (code, "is a folder" in printed) == (1, True)
    assert (tmp_path / "precious").read_text() == "x"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["exercise", "1", "--folder"], "is a file, and a folder is needed there. Write another path, or move"),
        (["compare", "--html"], "is a file; --html needs a folder there. Choose another path."),
        (["benchmark", "--json"], "is a file; --json needs a folder there."),
        (["benchmark", "--write"], "is a file; --write needs a folder there."),
        (["inspect", "O", "--write"], "is a file; --write needs a folder there."),
    ],
)
def test_a_path_below_a_file_is_refused_before_any_work_with_what_stands_in_its_way(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: list[str], says: str
) -> None:
    (tmp_path / "notes.txt").write_text("x")
    code, printed = tinygpt(*words, str(tmp_path / "notes.txt/new/page"), monkeypatch=monkeypatch)
    assert (code, printed.startswith(f"{tmp_path / 'notes.txt'} {says}")) == (1, True), printed


def test_a_path_with_a_nul_in_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for words in (["size", "hour", "--folder"], ["compare", "--html"], ["generate", "x", "--model"]):
        code, printed = tinygpt(*words, "a\0b", monkeypatch=monkeypatch)
        assert (code, "embedded null" in printed) == (2, True), printed


@pytest.mark.slow
def test_the_benchmark_moves_within_a_row_in_a_terminal() -> None:
    """A row may take a minute; what is measured stands there, with seconds that go on."""
    with screen.tinygpt("benchmark", "--quick") as terminal:
        first_row = terminal.wait_for("GFLOP/s at best")
    moves = first_row.rpartition("in fp32: ")[0].rpartition("in fp32 … ")[0]  # the last is drawn when the row is there
    assert len(set(re.findall(r"in fp32 … (\d\d:\d\d)", moves))) > 1


def test_info_says_undamaged_only_where_it_could_be_checked(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model_folder, tmp_path / "model"))
    for name, says in (
        (None, "; undamaged"),
        (SUMS, "so damage cannot be detected"),
        ("lineage.json", "damage cannot be detected"),
    ):
        if name:
            (copy / name).unlink()
        assert says in tinygpt("info", str(copy), "--folder", str(ROOT), monkeypatch=monkeypatch)[1]


@pytest.mark.parametrize("command", ["generate", "chat"])
def test_sampling_settings_have_the_defaults_and_the_help_of_config(command: str) -> None:
    signature = inspect.signature(getattr(_generate, command))
    for name, setting in SAMPLING.items():
        parameter = signature.parameters[name]
        assert (parameter.default, parameter.annotation.__metadata__[0].help) == (setting.default, setting.help), name

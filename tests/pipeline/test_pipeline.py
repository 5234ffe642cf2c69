"""The whole pipeline under DVC, small, in a copy of the project: what reruns, what does not, what survives."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.project import Project
from tests.screen import Screen


def test_the_pipeline_leaves_all_that_the_contract_names(project: Project) -> None:
    numbers = json.loads((project.folder / "data/evaluation/metrics.json").read_text())
    assert 0 < numbers["bits_per_byte"] < 8
    assert list(numbers["baselines"]) == ["uniform", "unigram", "bigram", "five_gram", "bz2", "xz", "ppmd"]
    sample = json.loads((project.folder / "data/samples/samples.jsonl").read_text().splitlines()[0])
    assert sample["text"] == sample["prompt"] + sample["completion"]
    sums = (project.folder / "data/model/SHA256SUMS").read_text()
    assert sample["hashes"]["model"] + "  model.safetensors" in sums
    assert not list((project.folder / ".tinygpt/runs").glob("*"))  # nothing is in progress


@pytest.mark.slow
def test_info_follows_every_hash_and_finds_all_the_same(project: Project) -> None:
    for path in ("data/model", "data/samples/samples.jsonl"):
        lines = project.run("tinygpt", "info", path).splitlines()
        followed = [line.rsplit(": ", 1)[1] for line in lines if "undamaged" not in line and "threads" not in line]
        assert len(followed) >= 5
        assert set(followed) == {"the same"}
    assert "model in dvc.lock" in project.run("tinygpt", "info")


SAYS = {  # stage → what its bars say, one after the other
    "download": ["fetching", "reading the text", "measuring the baselines"],
    "tokenize": [
        "learning a bpe tokenizer",
        "learning from what was read",
        "tokenizing train",
        "tokenizing validation",
    ],
    "train": ["training"],
    "evaluate": ["evaluating", "drawing"],
    "sample": ["sampling"],
}


@pytest.mark.slow
def test_every_stage_says_what_it_does_in_a_terminal_and_leaves_a_few_lines(project: Project) -> None:
    for stage, says in SAYS.items():
        with Screen(sys.executable, "-m", f"stages.{stage}", cwd=project.folder) as screen:
            for words in says:
                screen.wait_for(f"{words}: ")
            status, _ = screen.end()
        assert status == 0
        left = [line.rpartition("\r")[2] for line in screen.raw.rstrip().split("\r\n")]
        assert "\x1b" not in screen.raw.replace("\x1b[A", "")  # bars move up a line; nothing is in colour
        assert sum(1 + len(line) // 80 for line in left) <= 24


@pytest.mark.slow
def test_stages_are_quiet_in_a_pipe_and_where_progress_is_not_wanted(project: Project) -> None:
    for stage, says in SAYS.items():
        printed = project.run(sys.executable, "-m", f"stages.{stage}")
        assert "\r" not in printed
        assert not [words for words in says if f"{words}: " in printed]
    project.set("runtime", progress=False)
    with Screen(sys.executable, "-m", "stages.evaluate", cwd=project.folder) as screen:
        assert screen.end()[0] == 0
    assert "evaluating" not in screen.raw


def test_a_second_repro_runs_nothing(project: Project) -> None:
    assert project.dvc("repro") == []


@pytest.mark.slow
def test_a_forced_repro_gives_the_same_bytes(project: Project) -> None:
    before = project.results()
    assert len(project.dvc("repro", "-f")) == 5
    assert project.results() == before


@pytest.mark.slow
def test_a_training_parameter_reruns_training_and_what_follows(project: Project) -> None:
    assert project.dvc("exp", "run", "-S", "train.learning_rate=0.02") == ["train", "evaluate", "sample"]


@pytest.mark.slow
def test_a_sampling_parameter_reruns_sampling_alone(project: Project) -> None:
    assert project.dvc("exp", "run", "-S", "sample.temperature=0.5") == ["sample"]


@pytest.mark.slow
def test_evaluate_says_what_int8_weights_cost(project: Project) -> None:
    before = json.loads(project.results()["data/evaluation/metrics.json"])
    project.set("evaluate", weights="int8")
    printed = project.run("dvc", "repro")
    after = json.loads(project.results()["data/evaluation/metrics.json"])
    int8 = after.pop("int8")
    assert after == before
    cost = int8["bits_per_byte"] - after["bits_per_byte"]
    assert 0 < abs(cost) < 0.01
    assert f"int8 weights: {int8['bits_per_byte']:.4f} bits per byte, {cost:+.4f} compared with fp32." in printed


def test_a_runtime_parameter_reruns_nothing(project: Project) -> None:
    assert project.dvc("exp", "run", "-S", "runtime.checkpoint_every=7") == []


@pytest.mark.slow
def test_an_edited_text_reruns_the_pipeline(project: Project) -> None:
    with (project.folder / "data/own/book.txt").open("a", encoding="utf-8") as file:
        file.write("NURSE:\nMadam, your mother craves a word with you.\n" * 9)
    assert project.dvc("repro") == ["download", "tokenize", "train", "evaluate", "sample"]


@pytest.mark.slow
def test_after_a_refusal_putting_the_value_back_restores_every_byte_and_runs_nothing(project: Project) -> None:
    before = project.results()
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("n_embd: 32", "n_embd: 33"))
    assert "model.n_embd is 33, which 2 heads" in project.run("tinygpt", "check", code=1)
    assert "model.n_embd is 33, which 2 heads" in project.run("dvc", "repro", code=255)
    (project.folder / "params.yaml").write_text(text)
    assert project.dvc("repro") == []
    assert project.results() == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_saves_says_so_and_goes_on_to_the_same_bytes(
    project: Project, number: signal.Signals, code: int
) -> None:
    before = project.results()
    text = (project.folder / "params.yaml").read_text()
    (project.folder / "params.yaml").write_text(text.replace("checkpoint_every: 4", "checkpoint_every: 1000"))
    shutil.rmtree(project.folder / "data/model")
    env = {name: value for name, value in os.environ.items() if not name.startswith("DVC")}
    command = [sys.executable, "-m", "stages.train"]
    with subprocess.Popen(command, cwd=project.folder, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = ""
        while "step 10/20" not in printed:
            printed += process.stdout.read(1)
        process.send_signal(number)
        printed += process.stdout.read()
    assert process.returncode == code
    assert "all is saved: run the same command again to go on" in printed
    assert not (project.folder / "data/model").exists()
    assert "going on after step 1" in project.run(*command)
    (project.folder / "params.yaml").write_text(text)
    assert project.results() == before


def test_plots_show_training_and_validation_in_one_picture_without_a_network(project: Project) -> None:
    assert "failed to load" not in project.run("dvc", "plots", "show")  # fine-tuning, which never ran, asks for none
    page = (project.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    spec = page[page.index('"data": {"values": ') :]
    assert "train.tsv" in spec.split("vegaEmbed(")[0]
    assert "validation.tsv" in spec.split("vegaEmbed(")[0]


@pytest.mark.slow
def test_plots_diff_compares_an_experiment_with_the_workspace(project: Project) -> None:
    project.dvc("exp", "run", "-n", "hotter", "-S", "sample.temperature=1.5")
    project.run("git", "checkout", "-q", "-f", "main")
    project.run("dvc", "checkout", "-q")
    project.run("dvc", "plots", "diff", "hotter")
    page = (project.folder / "dvc_plots/index.html").read_text(encoding="utf-8")
    assert '"rev": "hotter"' in page
    assert '"rev": "workspace"' in page


@pytest.mark.slow
def test_a_queue_of_four_with_two_workers_succeeds(project: Project) -> None:
    project.run("dvc", "queue", "remove", "--all")  # what other tests left
    grid = ["-S", "train.learning_rate=0.01,0.02", "-S", "train.optimizer=adamw,muon"]
    project.run("dvc", "exp", "run", "--queue", *grid)
    project.run("dvc", "queue", "start", "-j", "2")
    until = time.monotonic() + 300
    while (status := project.run("dvc", "queue", "status")).count("Success") < 4 and time.monotonic() < until:
        time.sleep(2)
    assert status.count("Success") == 4, status

"""The scripts in benchmark/ read rightly what others print, and count rightly what they measure."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmark import beside, race, references, worker
from benchmark.common import commit, copied, parameters, watch
from benchmark.reference_loss import summed_nats
from tinygpt import config
from tinygpt.bench import figures

NANOGPT = [
    (3.0, "tokens per iteration will be: 768"),
    (4.5, "step 0: train loss 4.1676, val loss 4.1649"),
    (4.6, "iter 0: loss 4.1835, time 300.11ms, mfu -100.00%"),
    (20.0, "step 250: train loss 2.4249, val loss 2.4283"),
]
NANOCHAT = [
    (9.0, "Step 00000 | Validation bpb: 4.017839"),
    (70.0, "step 00000/00300 (0.00%) | loss: 6.931465 | lrm: 0.03 | dt: 62081.93ms | tok/sec: 65"),
    (99.0, "Step 00100 | Validation bpb: 2.812000"),
]
OURS = [
    (4.0, "about 6 seconds on cpu (2 threads, AVX2), fp32"),
    (4.1, "not compiled: on cpu it is not known to save time"),
    (6.0, "step 50/150  loss 5.011  validation 4.912  10.2k tokens/s  0:05 left"),
    (9.5, "step 150/150  loss 4.202  validation 4.301  10.1k tokens/s  0:00 left"),
]


def result(system: str, run: str, seconds: float, bits: float, repeat: int = 0) -> references.Result:
    return references.Result(system, run, repeat, seconds, seconds - 4, bits, [(1.0, 3.0), (seconds, bits)])


def test_losses_are_read_from_what_each_project_prints() -> None:
    assert references.nanogpt_losses(NANOGPT) == [(4.5, 4.1649), (20.0, 2.4283)]
    assert references.nanochat_losses(NANOCHAT) == [(9.0, 4.017839), (99.0, 2.812)]
    assert race.steps_shown(OURS) == [(6.0, 50), (9.5, 150)]


def test_every_run_of_the_race_is_one_that_params_yaml_allows(tmp_path: Path) -> None:
    for course in race.COURSES.values():
        for run, changes in course.runs.items():
            config.check(parameters(race.COMMON | changes), run)
        assert {run for run, _ in course.matches.values()} | set(course.limits) <= set(course.runs)
    with pytest.raises(KeyError, match=r"params\.yaml has no train\.step"):
        parameters({"train.step": 3})


def test_documents_lose_no_character_and_are_long_enough() -> None:
    text = "\n\nROMEO:\nBut, soft!\n\n" * 100 + "the end"
    pieces = references.documents(text)
    assert "".join(pieces) == text
    assert len(pieces) > 2
    assert all(len(piece) >= references.DOCUMENT for piece in pieces[:-1])


def test_a_goal_counts_as_reached_only_with_both_loss_and_time() -> None:
    def verdict(seconds: float, bits: float) -> str:
        groups = {
            ("nanoGPT", "CPU recipe"): [result("nanoGPT", "CPU recipe", 150.0, 2.72)],
            ("TinyGPT", "as good as nanoGPT"): [result("TinyGPT", "as good as nanoGPT", seconds, bits)],
        }
        (sentence,) = race.verdicts(groups, race.COURSES["cpu"])
        return sentence.partition(":")[0]

    assert verdict(10.0, 2.71) == "reached"
    assert verdict(10.0, 2.73) == "not reached"
    assert verdict(11.0, 2.71) == "not reached"


def test_a_rival_that_overfits_is_timed_until_its_best_look() -> None:
    curve = [(5.0, 4.2), (40.0, 2.1), (90.0, 2.3)]
    kept = references.Result("nanoGPT", "GPU recipe", 0, 95.0, 85.0, 2.1, curve, until_best=True)
    groups = {
        ("nanoGPT", "GPU recipe"): [kept],
        ("TinyGPT", "as good as nanoGPT"): [result("TinyGPT", "as good as nanoGPT", 4.0, 2.09)],
    }
    (sentence,) = race.verdicts(groups, race.COURSES["cuda"])
    assert race.median_run([kept]) == (curve, (40.0, 2.1))
    assert sentence.startswith("reached: nanoGPT takes 40.0 s to 2.100 bits per byte, TinyGPT 4.0 s to 2.090: 1/10.0 ")


def test_the_table_shows_medians_and_extremes_and_the_run_of_the_middle_loss_is_drawn(tmp_path: Path) -> None:
    runs = enumerate(((50.0, 2.11), (70.0, 2.1), (58.0, 2.09)))
    group = [result("TinyGPT", "60 seconds", seconds, bits, i) for i, (seconds, bits) in runs]
    row = ("TinyGPT", "60 seconds", "2.100 (2.090–2.110)", "58.0 (50.0–70.0)", "54.0 (46.0–66.0)")
    assert race.row(group) == row
    assert race.median_run(group) == (group[1].curve, (70.0, 2.1))
    figures.race(tmp_path / "race.png", {"TinyGPT, 60 seconds": race.median_run(group)}, {"ppmd": 2.026})
    assert (tmp_path / "race.png").read_bytes().startswith(b"\x89PNG")


def test_a_watched_process_tells_when_it_said_what_and_fails_with_its_last_words(tmp_path: Path) -> None:
    code = "import time; print('first'); time.sleep(0.05); print('second')"
    watched = watch([sys.executable, "-c", code], tmp_path)
    assert [line for _, line in watched.lines] == ["first", "second"]
    assert 0 < watched.first("first") < watched.last("second") <= watched.seconds
    with pytest.raises(ValueError, match="The output does not contain 'third'"):
        watched.first("third")
    with pytest.raises(RuntimeError, match="no such luck"):
        watch([sys.executable, "-c", "raise SystemExit('no such luck')"], tmp_path)


def test_a_checkout_is_copied_without_its_history(tmp_path: Path) -> None:
    (tmp_path / "reference/.git").mkdir(parents=True)
    (tmp_path / "reference/train.py").write_text("")
    assert [path.name for path in copied(tmp_path / "reference", tmp_path / "copy").iterdir()] == ["train.py"]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ["--text", "{text}", "--nanogpt", "nowhere"],
            "There is no checkout at nowhere. Clone the project there first.",
        ),
        (["--text", "nowhere"], "There is no file nowhere."),
        (["--text", "{text}", "--runs"], "expected at least one argument"),
        (["--text", "{text}", "--runs", "better"], "there is no run 'better' on cpu; choose from"),
        (["--text", "{text}", "--device", "cuda", "--nanochat", "{folder}"], "nanochat's recipe is for a CPU"),
        (["--text", "{text}", "--device", "cuda"], "the device is 'cuda', but PyTorch"),
        (["--text", "{text}", "--device", "tpu"], "'tpu' is none of auto, cpu and cuda."),
        (["--text", "{text}", "--repeats", "0"], "'0' is not an integer of 1 or more."),
    ],
)
def test_what_is_not_there_is_refused_before_anything_runs(
    tmp_path: Path, words: list[str], problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "text"
    text.touch()
    monkeypatch.setattr("sys.argv", ["race", *(word.format(text=text, folder=tmp_path) for word in words)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "--nanochat" in words)
    with pytest.raises(SystemExit):
        race.arguments()
    assert problem in capsys.readouterr().err


def test_every_token_but_the_first_is_charged_once() -> None:
    seen: list[tuple[int, int]] = []

    def nats(x: torch.Tensor, y: torch.Tensor) -> float:
        seen.extend(zip(x[0].tolist(), y[0].tolist(), strict=True))
        return float(y.numel())

    assert summed_nats(list(range(11)), 4, nats) == 10
    assert seen == [(i, i + 1) for i in range(10)]


@pytest.mark.parametrize("prefix", ["", "_orig_mod."])
def test_the_loss_of_a_nanogpt_is_read_whether_it_was_compiled_or_not(tmp_path: Path, prefix: str) -> None:
    """With a stand-in for its model, whose loss is the number it was saved with."""
    (tmp_path / "model.py").write_text(
        "import torch\n"
        "def GPTConfig(**sizes): return sizes\n"
        "class GPT(torch.nn.Module):\n"
        "    def __init__(self, sizes):\n"
        "        super().__init__()\n"
        "        self.loss = torch.nn.Parameter(torch.zeros(()))\n"
        "    def forward(self, x, y): return None, self.loss\n"
    )
    text = tmp_path / "data/shakespeare_char/input.txt"
    (tmp_path / "out-shakespeare-char").mkdir()
    text.parent.mkdir(parents=True)
    text.write_text("abcd" * 100)
    saved = {"model_args": {"block_size": 8}, "model": {f"{prefix}loss": torch.tensor(2 * math.log(2))}}
    torch.save(saved, tmp_path / "out-shakespeare-char/ckpt.pt")
    assert references.final_loss("nanogpt", tmp_path, text, {"PYTHONPATH": str(tmp_path)}) == pytest.approx(2.0)


def test_a_folder_inside_another_project_has_no_version_of_its_own(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "commit", "-q", "--allow-empty", "-m", "first"], check=True)
    (tmp_path / "reference").mkdir()
    assert len(commit(tmp_path)) == 40
    assert commit(tmp_path / "reference") == commit(tmp_path / "nowhere") == "unknown"


def test_ratios_are_of_medians_and_goals_stand_beside_them() -> None:
    task = ("decode", "10.9M", "gpt2", 1)
    ours, reference = beside.rows({task: {"TinyGPT": [100.0, 300.0, 200.0], "nanoGPT": [20.0, 10.0, 90.0]}})
    assert (ours["tokens_per_second"], ours["slowest"], ours["fastest"]) == (200.0, 100.0, 300.0)
    assert reference["tinygpt_is_times_as_fast"] == 10.0
    assert beside.goal(reference, torch.device("cpu")) == "10"
    assert beside.goal(ours, torch.device("cpu")) == ""


@pytest.mark.parametrize(("system", "number_type"), [("llama.cpp", "f32"), ("llama.cpp q8_0", "q8_0")])
def test_a_llama_bench_measures_both_kinds_of_weights(tmp_path: Path, system: str, number_type: str) -> None:
    """Then the package with the prebuilt one may be missing."""
    measured = beside.start(system, tmp_path, torch.device("cpu"), tmp_path / "llama-bench")
    assert isinstance(measured, beside.LlamaBench)
    assert measured.number_type == number_type


def test_our_contestant_decodes_to_the_end_of_the_context_and_trains(tmp_path: Path) -> None:
    worker.write_model(tmp_path / "gpt2-0.9M", "gpt2", "0.9M")
    deterministic = torch.are_deterministic_algorithms_enabled()
    try:
        ours = worker.TinyGPT(tmp_path, torch.device("cpu"))
        assert ours.decode("gpt2", "0.9M", 2)() == 2 * 127
        assert ours.train("0.8M", "fp32")() == 12 * 64
    finally:
        torch.use_deterministic_algorithms(deterministic)

"""Compiling is chosen by what it should save, refused where it cannot be done, and changes nothing but rounding."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import CPU, ROOT
from tests.small_training import Data, settings, start
from tinygpt.model import hardware
from tinygpt.training import compilation
from tinygpt.training.compilation import GAINS, CompileGain
from tinygpt.training.loop import train

CUDA = torch.device("cuda")


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that lacks nothing, whose CPU would save a fifth of its time."""
    monkeypatch.setattr(compilation, "missing", lambda _: "")
    monkeypatch.setitem(GAINS, "cpu", CompileGain(speed=1e10, saved=0.2, cost=10.0))


@pytest.mark.parametrize(
    ("device", "flops", "pays"),
    [
        (CPU, 4.9e11, False),  # 49 s, of which a fifth is less than 10
        (CPU, 5.1e11, True),
        (CUDA, 1.9e15, False),  # 95 s, of which 30% is less than 30
        (CUDA, 2.1e15, True),
        (torch.device("mps"), 1e20, False),  # nobody knows
    ],
)
@pytest.mark.usefixtures("complete")
def test_auto_compiles_where_it_should_save_more_than_it_costs(device: torch.device, flops: float, pays: bool) -> None:
    compiled, why = compilation.choose("auto", flops, device, "fp32")
    assert compiled == pays
    assert why.startswith("compiled: on " if pays else "not compiled: ")
    if device == CPU:  # in FLOPs, as they stand above the timed forecast: seconds by the table would belie those
        assert why.endswith(f"compiling pays in a run of more than 0.5 TFLOP; this one has {flops / 1e12:.2f}")


@pytest.mark.parametrize(
    ("capabilities", "precision", "flops", "pays"),
    [
        ({"amx_bf16"}, "bf16", 0.9 * 12.5 / 0.25 * 1.5e11 * 2, False),  # of two threads
        ({"amx_bf16"}, "bf16", 1.1 * 12.5 / 0.25 * 1.5e11 * 2, True),
        ({"avx512_bf16"}, "bf16", 0.9 * 12.5 / 0.2 * 7.5e10 * 2, False),
        ({"avx512_bf16"}, "bf16", 1.1 * 12.5 / 0.2 * 7.5e10 * 2, True),
        ({"amx_bf16"}, "fp32", 1e20, None),  # products are most of the time: nothing is known to be gained
        (set(), "bf16", 1e20, None),
    ],
)
def test_on_a_cpu_auto_compiles_long_runs_in_bf16_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: set[str], precision: str, flops: float, pays: bool | None
) -> None:
    monkeypatch.setattr(compilation, "missing", lambda _: "")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(capabilities, True))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    compiled, why = compilation.choose("auto", flops, CPU, precision)
    assert compiled == bool(pays)
    assert ("not known to save time" if pays is None else "compiling pays in a run of more than ") in why


def test_what_is_compiled_is_kept_where_the_next_run_finds_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # so that it is put back
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR")
    compilation.keep_in(tmp_path / "here")
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "here")
    compilation.keep_in(tmp_path / "there")  # somebody chose a place
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "here")


def test_what_is_asked_for_is_done_and_said() -> None:
    assert compilation.choose(False, 1e20, CPU, "fp32") == (False, "not compiled: train.compile is false")


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_without_a_compiler_auto_says_no_and_true_is_refused(
    monkeypatch: pytest.MonkeyPatch, device: torch.device
) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    compiled, why = compilation.choose("auto", 1e20, device, "fp32")
    assert (compiled, why.partition(" (")[0]) == (False, "not compiled: there is no C++ compiler")
    with pytest.raises(ValueError, match=r"train\.compile is true, but there is no C\+\+ compiler .*; write auto or"):
        compilation.choose(True, 1e20, device, "fp32")


def test_a_compiled_run_is_another_machine_to_the_fingerprint() -> None:
    assert hardware.describe(CPU, "fp32", compiled=True) == hardware.describe(CPU, "fp32") + ", compiled"


@pytest.mark.slow
@pytest.mark.skipif(bool(compilation.missing(CPU)), reason="no compiler here")
def test_a_compiled_run_equals_an_eager_one_but_for_rounding(data: Data) -> None:
    chosen = settings(steps=12, accumulation=2, eval_every=6)
    runs: list[dict[str, Any]] = []
    for compiled in (False, True, True):
        state = start(data, chosen, n_layer=1)
        if compiled:
            compilation.compile_blocks(state.model)
        for _ in train(state, chosen, data, 3, "fp32"):
            pass
        runs.append({**state.tensors(), "scale": torch.tensor([row["activation_scale"] for row in state.health_rows])})
    eager, compiled_run, again = runs
    assert eager.keys() == compiled_run.keys()  # no weight has another name
    assert not all(torch.equal(eager[name], compiled_run[name]) for name in eager)  # it did compile
    assert all(torch.equal(again[name], compiled_run[name]) for name in again)
    for name in eager:
        torch.testing.assert_close(compiled_run[name], eager[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_what_does_not_compile_does_not_load_the_compiler(model_folder: Path, optimizer: str) -> None:
    """It takes a second: of every training, every command."""
    code = f"""
import sys
from pathlib import Path
from tests.conftest import CPU, TEXT
from tests.small_training import batch, settings, start
import tinygpt
from tinygpt.data.dataset import TokenDataset
from tinygpt.model import hardware
from tinygpt.training.loop import train
hardware.make_deterministic()
model, tokenizer = tinygpt.load(Path({str(model_folder)!r}))
tinygpt.generate(model, tokenizer, "ROMEO:", max_new_tokens=3)
data = dict.fromkeys(("train", "validation"), TokenDataset(tokenizer.encode_array(TEXT), 16))
chosen = settings(optimizer={optimizer!r})
for _ in train(start(data, chosen), chosen, data, 3, "fp32"):
    pass
print([name for name in ("torch._dynamo", "torch._inductor") if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("[]\n", "")

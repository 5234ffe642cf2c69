"""`auto` is settled by what the machine has, and what it cannot do is refused in a sentence."""

import os
import subprocess
import sys

import pytest
import torch

import tinygpt
from tests.conftest import CPU, ROOT
from tinygpt.model import hardware


@pytest.mark.parametrize(
    ("has", "expected"), [({}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16")]
)
def test_auto_takes_bf16_on_a_cpu_that_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert hardware.pick_precision("auto", CPU) == expected
    assert hardware.pick_precision("fp32", CPU) == "fp32"


@pytest.mark.parametrize(("bf16", "expected"), [(True, "bf16"), (False, "fp16")])
def test_auto_takes_fp16_on_a_gpu_without_bf16(monkeypatch: pytest.MonkeyPatch, bf16: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: bf16)
    assert hardware.pick_precision("auto", torch.device("cuda")) == expected


def test_fp16_is_refused_on_a_cpu() -> None:
    with pytest.raises(ValueError, match=r"^train.precision is 'fp16', which needs .* use auto, fp32 or bf16 on cpu"):
        hardware.pick_precision("fp16", CPU)
    with pytest.raises(ValueError, match=r"^--precision is 'fp16', "):  # as it was asked for
        hardware.pick_precision("fp16", CPU, "--precision")


def test_auto_takes_the_best_device_there_is_and_a_missing_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert hardware.pick_device("auto") == CPU
    with pytest.raises(ValueError, match="finds none here; use auto or cpu"):
        hardware.pick_device("cuda")
    with pytest.raises(ValueError, match=r"^--device is 'cuda', "):
        hardware.pick_device("cuda", "--device")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.pick_device("auto").type == "mps"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert hardware.pick_device("auto").type == "cuda"


def test_autocast_multiplies_in_the_precision_asked_for() -> None:
    x = torch.ones(2, 2)
    with hardware.autocast(CPU, "bf16"):
        assert (x @ x).dtype == torch.bfloat16
    with hardware.autocast(CPU, "fp32"):
        assert (x @ x).dtype == torch.float32


@pytest.mark.parametrize(
    ("set_before", "torch_loaded", "spins", "says"),
    [
        ({}, False, "10000", "by spinning 10000 times, then sleeping"),
        ({}, True, None, "torch was loaded before tinygpt"),
        ({"GOMP_SPINCOUNT": "10000"}, True, "10000", "by spinning 10000 times, then sleeping"),  # by the parent process
        ({"GOMP_SPINCOUNT": "77"}, False, "77", "as set by GOMP_SPINCOUNT=77"),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, False, None, "as set by OMP_WAIT_POLICY=ACTIVE"),
    ],
)
def test_threads_spin_briefly_unless_the_user_says_otherwise_or_torch_is_loaded(
    monkeypatch: pytest.MonkeyPatch, set_before: dict[str, str], torch_loaded: bool, spins: str | None, says: str
) -> None:
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name, value in set_before.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "platform", "linux")
    if not torch_loaded:
        monkeypatch.delitem(sys.modules, "torch")
    assert says in tinygpt._bound_spinning()
    assert os.environ.get("GOMP_SPINCOUNT") == spins
    monkeypatch.setattr(sys, "platform", "darwin")
    assert tinygpt._bound_spinning() == "as this platform's OpenMP has it"


TELL = """
import os, sys
class Torch:
    def find_spec(name, *_):
        if name == "torch":
            sys.exit(print(os.environ.get("GOMP_SPINCOUNT")))
sys.meta_path.insert(0, Torch)
import {}
import torch
"""


@pytest.mark.parametrize("entry", ["stages.train", "tinygpt.cli.main", "benchmark.race", "tests.conftest"])
def test_every_entry_bounds_the_spinning_before_it_loads_torch(entry: str) -> None:
    env = {name: value for name, value in os.environ.items() if "OMP_" not in name}
    words = [sys.executable, "-c", TELL.format(entry)]
    assert subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True, check=True).stdout == "10000\n"


def test_a_thread_that_waits_for_a_core_is_told_from_one_that_computes(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([(0.0, 0.0), (10.0, 9.0), (20.0, 13.0), (30.0, 13.0)])
    monkeypatch.setattr(hardware, "clock", lambda: next(now))
    since = hardware.clock()
    assert hardware.core_share(since, CPU) == 0.9
    share = hardware.core_share((10.0, 9.0), CPU)
    assert share == 0.4
    assert hardware.busy(0.9) == ""
    assert "had a core for only 40% of the time" in hardware.busy(share)
    assert hardware.core_share((20.0, 13.0), torch.device("cuda")) == 1.0  # there it waits for the device

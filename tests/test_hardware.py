"""`auto` is settled by what the machine has, and what it cannot do is refused in a sentence."""

import pytest
import torch

from tests.conftest import CPU
from tinygpt import hardware


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

"""Both decoders compute the model's logits, whatever the lengths of the sequences, and keep what they should."""

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, gpt
from tinygpt.generation import decoder as decoding
from tinygpt.generation.cpu import decoder as loop_decoder
from tinygpt.generation.cpu.decoder import LoopDecoder, decoder_of
from tinygpt.generation.decoder import Decoder, TorchDecoder
from tinygpt.model.cuda_graphs import CUDAGraphRunner
from tinygpt.model.quantization import Int8Linear, convert
from tinygpt.scratch.kv_cache import KVCache, step
from tinygpt.training.lora import adapt

ROWS = [[3], [1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [1, 4, 1, 5, 9, 2, 6]]
both = pytest.mark.parametrize("kind", [LoopDecoder, TorchDecoder])


def agree(model: Any, decoder: Decoder, windows: list[list[int]]) -> None:
    expected = torch.stack([model(torch.tensor([window]))[0, -1] for window in windows])
    torch.testing.assert_close(decoder.logits(windows), expected, rtol=1e-4, atol=1e-4)


@both
@pytest.mark.parametrize("weights", ["fp32", "int8"])
def test_its_logits_are_those_of_the_model(kind: type[Any], weights: Any, shape: dict[str, Any]) -> None:
    model, windows = convert(gpt(**shape), weights), [list(row) for row in ROWS]
    decoder = kind(model, len(windows))
    for number in range(9):
        agree(model, decoder, windows)
        windows = [[*window, (7 * number + row) % 61] for row, window in enumerate(windows)]
    windows[1] = windows[1][-8:]  # slides: read anew, while the others go on
    agree(model, decoder, windows)


def test_a_batch_of_twenty_one_agrees_too(shape: dict[str, Any]) -> None:
    """Eight sequences are computed at once, and what is left of them one by one."""
    model, windows = gpt(**shape), [[row % 61, 3 * row % 61][: 1 + row % 2] for row in range(21)]
    decoder = LoopDecoder(model, len(windows))
    for number in range(4):
        agree(model, decoder, windows)
        windows = [[*window, (7 * number + row) % 61] for row, window in enumerate(windows)]


@both
def test_rows_that_have_ended_leave_the_others_as_they_were(kind: type[Any], shape: dict[str, Any]) -> None:
    model, windows = gpt(**shape), [list(row) for row in ROWS]
    decoder = kind(model, len(windows))
    agree(model, decoder, windows)
    decoder.select_rows([1, 2])
    agree(model, decoder, [[*windows[1], 8], [*windows[2], 9]])


def test_the_reference_implementation_computes_the_same(shape: dict[str, Any]) -> None:
    model, tokens = gpt(**shape), [1, 4, 1, 5, 9, 2, 6]
    cache, decoder = KVCache(model), LoopDecoder(model, 1)
    for number in range(1, len(tokens) + 1):
        logits = step(model, cache, tokens[number - 1])
        torch.testing.assert_close(logits[None], decoder.logits([tokens[:number]]), rtol=1e-4, atol=1e-4)


def test_the_step_that_cuda_records_scores_the_same(shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, and not recorded: it looks at the whole context, and writes whole layers."""
    monkeypatch.setattr(CUDAGraphRunner, "__call__", lambda _self, work, _used: work())
    model, windows = gpt(**shape), [list(row) for row in ROWS]
    decoder = TorchDecoder(model, len(windows))
    decoder.replay.on_cuda = True
    for number in range(9):
        agree(model, decoder, windows)
        windows = [[*window, (7 * number + row) % 61] for row, window in enumerate(windows)]
    decoder.select_rows([1, 2])
    windows = [windows[1][-8:], windows[2]]  # one slides
    agree(model, decoder, windows)


@pytest.mark.parametrize("rows", [[0, 1], [1, 3]], ids=["unlike", "alike"])
def test_a_step_stays_on_the_device_of_its_model(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one at hand: every tensor that a step makes names the device, but for numbers that are copied to it."""
    makers = {name: getattr(torch, name) for name in ("arange", "zeros")}
    devices: list[Any] = []

    def noting(name: str) -> Any:
        def maker(*values: Any, **words: Any) -> torch.Tensor:
            devices.append(words.get("device"))
            made: torch.Tensor = makers[name](*values, **words)
            return made

        return maker

    decoder = TorchDecoder(gpt(), 2)
    decoder.logits([ROWS[row] for row in rows])
    for name in makers:
        monkeypatch.setattr(torch, name, noting(name))
    decoder.logits([[*ROWS[row], 1] for row in rows])
    assert devices
    assert set(devices) == {torch.device("cpu")}


@both
def test_texts_are_read_together_but_not_too_many(kind: type[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = kind.read

    def counted(self: Any, texts: list[tuple[int, ...]], rows: list[int]) -> None:
        read.append(len(texts))
        plain(self, texts, rows)

    monkeypatch.setattr(kind, "read", counted)
    model, windows = gpt(), [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 9], [9, 9], [4, 4, 4, 4]]
    agree(model, kind(model, len(windows)), windows)
    assert read == [4]  # two of the five begin alike
    monkeypatch.setattr(decoding, "READ", 6)
    agree(model, kind(model, len(windows)), windows)
    assert read[1:] == [2, 2]


@both
def test_grouped_heads_save_cache(kind: type[Any]) -> None:
    full, grouped = (kind(gpt(n_head=4, n_kv_head=heads), 3) for heads in (4, 1))
    assert full.cache_bytes == 4 * grouped.cache_bytes > 0


# Compiled loops


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets how many threads there are; any step is enough for all of them."""
    monkeypatch.setattr(loop_decoder, "WORK_PER_THREAD", 1)
    monkeypatch.setattr(loop_decoder, "LANES", 1)
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_any_number_of_threads_gives_the_same_bits(threads: Any, shape: dict[str, Any]) -> None:
    model, found = gpt(**shape), []
    for count in (1, 2, 3, 7):
        threads(count)
        decoder, windows = LoopDecoder(model, len(ROWS)), [list(row) for row in ROWS]
        logits = [decoder.logits(windows), decoder.logits([[*window, 7] for window in windows])]
        found.append(torch.stack(logits).numpy().tobytes())
    assert len(set(found)) == 1


def test_small_steps_are_done_by_one_thread(threads: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    threads(2)
    model, asked = gpt(), list[int]()

    def pool(process: int) -> ThreadPoolExecutor:
        asked.append(process)
        return ThreadPoolExecutor(1)

    monkeypatch.setattr(loop_decoder, "pool", pool)
    agree(model, LoopDecoder(model, len(ROWS)), ROWS)
    assert asked  # where any step is enough
    asked.clear()
    monkeypatch.setattr(loop_decoder, "WORK_PER_THREAD", 2**40)
    agree(model, LoopDecoder(model, len(ROWS)), ROWS)
    assert not asked


def test_several_may_decode_at_once(threads: Any) -> None:
    threads(2)
    model, failed = gpt(), list[Exception]()

    def decode() -> None:
        try:
            decoder, windows = LoopDecoder(model, len(ROWS)), [list(row) for row in ROWS]
            for _ in range(9):
                agree(model, decoder, windows)
                windows = [[*window, 1] for window in windows]
        except Exception as problem:
            failed.append(problem)

    visitors = [threading.Thread(target=decode) for _ in range(4)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join()
    assert failed == []


@pytest.mark.slow
def test_a_busy_machine_changes_nothing_and_stops_nobody(threads: Any) -> None:
    threads(2)
    model = gpt()
    expected = LoopDecoder(model, len(ROWS)).logits(ROWS)
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))]
    try:
        for _ in range(100):
            assert torch.equal(LoopDecoder(model, len(ROWS)).logits(ROWS), expected)
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_a_forked_child_decodes_as_its_parent_did(threads: Any) -> None:
    threads(2)
    model = gpt()
    expected = LoopDecoder(model, len(ROWS)).logits(ROWS).numpy().tobytes()
    child = os.fork()
    if child == 0:
        try:
            same = LoopDecoder(model, len(ROWS)).logits(ROWS).numpy().tobytes() == expected
            os._exit(0 if same else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_weights_changed_in_place_are_seen_and_replaced_ones_do_not_matter() -> None:
    """The loops read the model's own memory, which stays where it is as long as the decoder."""
    model, windows = gpt(), [[1, 2, 3]]
    decoder = LoopDecoder(model, 1)
    before = decoder.logits(windows)
    model.head.weight.data = torch.zeros_like(model.head.weight)
    torch.testing.assert_close(LoopDecoder(model, 1).logits(windows), torch.zeros_like(before))
    decoder.lengths = [0]
    assert torch.equal(decoder.logits(windows), before)
    with torch.no_grad():
        model.norm.weight.zero_()
    decoder.lengths = [0]
    assert torch.equal(decoder.logits(windows), torch.zeros_like(before))


@pytest.mark.parametrize("change", ["float64", "transposed", "LoRA", "int8 and fp32"])
def test_what_the_loops_cannot_read_is_decoded_by_pytorch(change: str) -> None:
    model = gpt()
    if change == "float64":
        model.double()
    elif change == "transposed":
        model.head.weight.data = model.head.weight.data.T.contiguous().T
    elif change == "LoRA":
        adapt(model, 2, 4.0, torch.Generator().manual_seed(1))
    else:
        model.head = Int8Linear(model.head)  # type: ignore[assignment]
    decoder = decoder_of(model, 1)
    assert isinstance(decoder, TorchDecoder)
    window = [1, 2, 3]
    assert torch.equal(decoder.logits([window])[0].argmax(), model(torch.tensor([window]))[0, -1].argmax())


def test_without_numba_pytorch_decodes_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    model = gpt()
    assert isinstance(decoder_of(model, 1), LoopDecoder)
    monkeypatch.setattr(loop_decoder, "prepare", lambda _: "No module named 'numba'")
    with pytest.warns(UserWarning, match="PyTorch decodes instead, more slowly: No module named 'numba'"):
        decoder = decoder_of(model, len(ROWS))
    agree(model, decoder, ROWS)


@pytest.mark.parametrize("missing", ["llvmlite", "numba"])
def test_without_either_package_nothing_else_breaks(missing: str, tmp_path: Path) -> None:
    """numba is needed to compile, llvmlite to load what is compiled."""
    script = (
        f"import sys\nsys.modules['{missing}'] = None\nfrom tests.conftest import gpt\n"
        "from tinygpt.generation.cpu.decoder import decoder_of\n"
        "print(type(decoder_of(gpt(), 1)).__name__)"
    )
    env = os.environ | {"XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert done.stdout == "TorchDecoder\n"
    assert "PyTorch decodes instead, more slowly: " in done.stderr


def test_a_gpu_waits_for_no_loops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert not loop_decoder.is_ready(torch.device("cpu"))
    assert loop_decoder.is_ready(torch.device("cuda"))


def test_a_token_outside_the_vocabulary_is_refused() -> None:
    """It would be read from beyond the embedding."""
    for token in (-1, 61):
        with pytest.raises(IndexError, match=f"{token} is no token of a vocabulary of 61"):
            LoopDecoder(gpt(), 1).logits([[1, token]])


def test_a_window_longer_than_the_context_is_refused() -> None:
    """Its keys would be written beyond the cache."""
    model = gpt()
    with pytest.raises(ValueError, match=f"do not fit into a context of {model.config.context_length}"):
        LoopDecoder(model, 1).logits([[1] * (model.config.context_length + 1)])


def test_pytorchs_default_type_does_not_matter() -> None:
    model = gpt()
    torch.set_default_dtype(torch.float64)
    try:
        decoder, windows = LoopDecoder(model, len(ROWS)), [list(row) for row in ROWS]
        agree(model, decoder, windows)
    finally:
        torch.set_default_dtype(torch.float32)


def test_a_refused_token_leaves_the_decoder_as_it_was() -> None:
    model = gpt()
    decoder = LoopDecoder(model, 1)
    agree(model, decoder, [[1, 2]])
    with pytest.raises(IndexError):
        decoder.logits([[1, 2, 99]])
    agree(model, decoder, [[1, 2, 3]])


def test_nan_and_infinite_weights_affect_their_logits_alone() -> None:
    model = gpt()
    with torch.no_grad():
        model.head.weight[5] = np.nan
        model.head.weight[7] = np.inf
    logits = LoopDecoder(model, 1).logits([[1]])[0]
    assert torch.isnan(logits[5])
    assert not torch.isfinite(logits[7])
    assert torch.isfinite(logits[[0, 1, 2, 3, 4, 6]]).all()

"""The decoder scores as the model does, whatever the lengths of the sequences, and keeps what it is told to keep."""

import threading
from typing import Any

import pytest
import torch

from tests.conftest import gpt
from tinygpt.generation.decoder import Decoder, threads
from tinygpt.model.cuda_graphs import CUDAGraphRunner

ROWS = [[3], [1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [1, 4, 1, 5, 9, 2, 6]]


def agree(model: Any, decoder: Decoder, windows: list[list[int]]) -> None:
    expected = torch.stack([model(torch.tensor([window]))[0, -1] for window in windows])
    torch.testing.assert_close(decoder.logits(windows), expected, rtol=1e-4, atol=1e-4)


def test_its_scores_are_those_of_the_model(shape: dict[str, Any]) -> None:
    model, windows = gpt(**shape), [list(row) for row in ROWS]
    decoder = Decoder(model, len(windows))
    for step in range(9):
        agree(model, decoder, windows)
        windows = [[*window, (7 * step + row) % 61] for row, window in enumerate(windows)]
    windows[1] = windows[1][-8:]  # slides: read anew, while the others go on
    agree(model, decoder, windows)


def test_rows_that_have_ended_leave_the_others_as_they_were(shape: dict[str, Any]) -> None:
    model, windows = gpt(**shape), [list(row) for row in ROWS]
    decoder = Decoder(model, len(windows))
    agree(model, decoder, windows)
    decoder.select_rows([1, 2])
    agree(model, decoder, [[*windows[1], 8], [*windows[2], 9]])


def test_the_step_that_cuda_records_scores_the_same(shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """On a CPU, and not recorded: it looks at the whole context, and writes whole layers."""
    monkeypatch.setattr(CUDAGraphRunner, "__call__", lambda _self, work, _used: work())
    model, windows = gpt(**shape), [list(row) for row in ROWS]
    decoder = Decoder(model, len(windows))
    decoder.replay.on_cuda = True
    for step in range(9):
        agree(model, decoder, windows)
        windows = [[*window, (7 * step + row) % 61] for row, window in enumerate(windows)]
    decoder.select_rows([1, 2])
    windows = [windows[1][-8:], windows[2]]  # one slides
    agree(model, decoder, windows)


@pytest.mark.parametrize("rows", [[0, 1], [1, 3]], ids=["unlike", "alike"])
def test_a_step_stays_on_the_device_of_its_model(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one at hand: every tensor that a step makes names the device."""
    makers = {name: getattr(torch, name) for name in ("tensor", "arange", "zeros")}
    devices: list[Any] = []

    def noting(name: str) -> Any:
        def maker(*values: Any, **words: Any) -> torch.Tensor:
            devices.append(words.get("device"))
            made: torch.Tensor = makers[name](*values, **words)
            return made

        return maker

    decoder = Decoder(gpt(), 2)
    decoder.logits([ROWS[row] for row in rows])
    for name in makers:
        monkeypatch.setattr(torch, name, noting(name))
    decoder.logits([[*ROWS[row], 1] for row in rows])
    assert devices
    assert set(devices) == {torch.device("cpu")}


@pytest.mark.parametrize(("batch", "onednn"), [(1, True), (4, True), (4, False)])
def test_large_matrices_give_the_same_scores_however_they_are_laid_out(
    shape: dict[str, Any], batch: int, onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut into pieces, of which the last of the scores, of 61 tokens, is not full; or in oneDNN's order."""
    packed = batch > 1 and onednn and torch.backends.mkldnn.is_available()
    monkeypatch.setattr("tinygpt.generation.decoder.LARGE", 0)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: packed)
    model = gpt(**shape)
    decoder = Decoder(model, batch)
    assert (decoder.head.packed, decoder.head.pieces, decoder.head.outputs) == (packed, 1 if packed else 2, 61)
    agree(model, decoder, [list(row) for row in ROWS[-batch:]])


def test_texts_of_one_length_are_read_together_but_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = Decoder.prefill

    def counted(self: Any, texts: dict[tuple[int, ...], list[int]]) -> None:
        read.append(len(texts))
        plain(self, texts)

    monkeypatch.setattr(Decoder, "prefill", counted)
    model, windows = gpt(), [[1, 2, 3, 4], [5, 6, 7, 8], [1, 2, 3, 9], [9, 9], [4, 4, 4, 4]]
    agree(model, Decoder(model, len(windows)), windows)
    assert read == [3, 1]  # two of the four begin alike
    monkeypatch.setattr("tinygpt.generation.decoder.READ", 6)
    agree(model, Decoder(model, len(windows)), windows)
    assert read[2:] == [2, 1, 1]


@pytest.mark.parametrize(("large", "used"), [(2**40, 1), (0, 2)])
def test_small_steps_are_done_by_one_thread(large: int, used: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And all are back afterwards."""
    seen: list[int] = []
    monkeypatch.setattr("tinygpt.generation.decoder.LARGE", large)
    monkeypatch.setattr(Decoder, "step", lambda *_: seen.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        Decoder(gpt(), 1).logits([[1]])
        assert (seen, torch.get_num_threads()) == ([used], 2)
    finally:
        torch.set_num_threads(before)


def test_grouped_heads_save_cache() -> None:
    full, grouped = (Decoder(gpt(n_head=4, n_kv_head=heads), 3) for heads in (4, 1))
    assert full.cache.numel() == 4 * grouped.cache.numel()


def test_a_thread_that_begins_while_another_computes_gets_all_threads_back() -> None:
    """The number that it starts with is the other's."""
    inside, seen = threading.Barrier(2, timeout=60), list[int]()

    def other() -> None:
        inside.wait()
        with threads(1):
            pass
        seen.append(torch.get_num_threads())
        inside.wait()

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    beside = threading.Thread(target=other)
    beside.start()
    with threads(1):
        inside.wait()
        inside.wait()
    beside.join()
    after = torch.get_num_threads()
    torch.set_num_threads(before)
    assert (seen, after) == ([2], 2)

"""The decoder scores as the model does, whatever the lengths of the sequences, and keeps what it is told to keep."""

from typing import Any

import pytest
import torch

from tests.conftest import gpt
from tinygpt.decoding import Decoder

ROWS = [[3], [1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [1, 4, 1, 5, 9, 2, 6]]


def agree(model: Any, decoder: Decoder, windows: list[list[int]]) -> None:
    expected = torch.stack([model(torch.tensor([window]))[0, -1] for window in windows])
    torch.testing.assert_close(decoder.scores(windows), expected, rtol=1e-4, atol=1e-4)


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
    decoder.keep([1, 2])
    agree(model, decoder, [[*windows[1], 8], [*windows[2], 9]])


def test_matrices_cut_into_pieces_give_the_same_scores(shape: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The last piece of the scores, of 61 tokens, is not full."""
    monkeypatch.setattr("tinygpt.decoding.LARGE", 0)
    model = gpt(**shape)
    decoder = Decoder(model, len(ROWS))
    assert (decoder.head.pieces, decoder.head.outputs) == (2, 61)
    agree(model, decoder, [list(row) for row in ROWS])


def test_grouped_heads_save_cache() -> None:
    full, grouped = (Decoder(gpt(n_head=4, n_kv_head=heads), 3) for heads in (4, 1))
    assert full.cache.numel() == 4 * grouped.cache.numel()

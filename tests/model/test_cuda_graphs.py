"""Work is recorded once its memory has settled, and anew where it has moved.

With a stand-in for CUDA's graphs; test_cuda.py has the real ones.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from tests.conftest import CPU
from tinygpt.model import cuda_graphs
from tinygpt.model.cuda_graphs import CUDAGraphRunner


class Script:
    """What the stand-in was asked for, in order."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        script = self

        class Graph:
            def replay(self) -> None:
                script.lines.append("replayed")

        class Stream:
            def wait_stream(self, _other: Any) -> None:
                pass

        class Side(Stream):
            pass

        @contextmanager
        def graph(_graph: Graph, **_: Any) -> Iterator[None]:
            script.lines.append("recording")
            yield

        @contextmanager
        def aside(stream: Stream) -> Iterator[None]:
            if isinstance(stream, Side):
                script.lines.append("aside")
            yield

        monkeypatch.setattr(cuda_graphs, "capture_stream", lambda _: Side())
        stand_ins = {"CUDAGraph": Graph, "graph": graph, "stream": aside, "current_stream": lambda _device: Stream()}
        for name, stand_in in stand_ins.items():
            monkeypatch.setattr(torch.cuda, name, stand_in)

    def told(self) -> list[str]:
        lines, self.lines = self.lines, []
        return lines


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    return Script(monkeypatch)


def test_work_is_recorded_when_it_meets_the_same_memory_again(script: Script) -> None:
    play, made = CUDAGraphRunner[int](torch.device("cuda")), torch.zeros(3)
    works = iter(range(100))
    assert play(lambda: next(works), [made, None]) == 0
    assert script.told() == ["aside"]
    grown = torch.zeros(3)  # what the first call made
    assert play(lambda: next(works), [made, grown]) == 1
    assert script.told() == ["aside"]
    assert [play(lambda: next(works), [made, grown]) for _ in range(3)] == [2, 2, 2]  # done once, and then replayed
    assert script.told() == ["recording", "replayed", "replayed", "replayed"]


def test_work_whose_memory_has_moved_is_recorded_anew(script: Script) -> None:
    play = CUDAGraphRunner[None](torch.device("cuda"))
    first, second = torch.zeros(3), torch.zeros(3)
    for used in (first, first, second, second, second):
        play(lambda: None, [used])
    assert script.told() == ["aside", "recording", "replayed", "aside", "recording", "replayed", "replayed"]


def test_a_recording_that_failed_is_not_replayed(script: Script) -> None:
    play, used = CUDAGraphRunner[None](torch.device("cuda")), [torch.zeros(3)]

    def fails() -> None:
        raise RuntimeError("out of memory")

    play(lambda: None, used)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="out of memory"):
            play(fails, used)
    assert script.told() == ["aside", "recording", "recording"]


def test_work_that_often_moves_can_wait_with_being_recorded(script: Script) -> None:
    play, used = CUDAGraphRunner[None](torch.device("cuda"), plain=3), [torch.zeros(3)]
    for _ in range(5):
        play(lambda: None, used)
    assert script.told() == ["aside", "aside", "aside", "recording", "replayed", "replayed"]


def test_elsewhere_work_is_just_done(script: Script) -> None:
    play, works = CUDAGraphRunner[int](CPU), iter(range(100))
    assert [play(lambda: next(works), []) for _ in range(4)] == [0, 1, 2, 3]
    assert script.told() == []

"""Whatever standard output is, no print fails for its encoding, and no stage loses its work."""

import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import stages
from tests.conftest import ROOT
from tinygpt import console
from tinygpt.cli import main
from tinygpt.console import duration, thousands

SAID = "2.049 ± 0.007 — naïve 東京 🙂 \udce9"  # the last is half a character, as in a file's name that is not UTF-8
Opened = Callable[..., io.TextIOWrapper]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    """Makes a descriptor standard output, as Python opens it."""

    def be(descriptor: int, encoding: str = "utf-8", buffered: bool = True) -> io.TextIOWrapper:
        raw: Any = io.FileIO(descriptor, "w")
        stream = io.TextIOWrapper(io.BufferedWriter(raw) if buffered else raw, encoding, write_through=not buffered)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        return stream

    return be


def command(monkeypatch: pytest.MonkeyPatch, *words: str) -> object:
    """Run the command line; what it leaves with."""
    monkeypatch.setattr(sys, "argv", ["tinygpt", *words])
    with pytest.raises(SystemExit) as left:
        main.main()
    return left.value.code


def stage(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run a stage that prints before, between and after its work; what it has done."""
    done = []

    def work(*_: Any) -> None:
        for part in ("first", "last"):
            print(SAID * 9999, flush=True)
            done.append(part)
        print(SAID)

    monkeypatch.setattr(sys, "argv", ["stages/work.py", str(ROOT)])
    stages.run(work)
    return done


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gbk", "utf-8"])
def test_what_an_encoding_cannot_say_is_printed_as_its_escape(
    encoding: str, tmp_path: Path, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "out"
    opened(os.open(file, os.O_CREAT | os.O_WRONLY), encoding)
    with console.prepared():
        print(SAID)
        print(console.json_line(SAID[:-1]))
    said, line = file.read_text(encoding=encoding).splitlines()
    assert said == SAID.encode(encoding, "backslashreplace").decode(encoding)
    assert json.loads(line) == SAID[:-1]
    assert stage(monkeypatch) == ["first", "last"]
    assert command(monkeypatch, "exercise", "0") == "tinygpt: There is no lesson 0; there are 1 to 11."


@pytest.mark.parametrize("buffered", [True, False])
def test_a_reader_that_leaves_ends_a_command_without_a_word_and_no_stage(
    buffered: bool, opened: Opened, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for run, left in ((command, console.BROKEN_PIPE), (lambda patch, *_: stage(patch), ["first", "last"])):
        reader, writer = os.pipe()
        os.close(reader)
        opened(writer, buffered=buffered)
        assert run(monkeypatch, "exercise") == left
    assert capsys.readouterr().err == ""


def test_a_command_whose_results_go_into_files_goes_on_where_nobody_reads(opened: Opened) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    opened(writer)
    with console.prepared():
        console.ignore_write_errors()
        print(SAID, flush=True)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_a_sentence_of_a_command_and_ends_no_stage(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(os.open("/dev/full", os.O_WRONLY))
    assert str(command(monkeypatch, "exercise")).startswith("tinygpt: The disk is full")
    opened(os.open("/dev/full", os.O_WRONLY))
    assert stage(monkeypatch) == ["first", "last"]


def test_closed_streams_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("stdin", "stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    assert command(monkeypatch, "exercise") == 0
    assert sys.stdin.read() == ""
    monkeypatch.setattr(sys, "stdout", None)
    assert stage(monkeypatch) == ["first", "last"]


def test_every_entry_prepares_its_streams_or_prints_numbers_and_names_alone() -> None:
    plain = {
        "worker",
        "reference_loss",
        "measure",
        "text",
        "api",
        "architecture",
        "web_pictures",
        "project",
        "together",
        "together_masked",
    }
    plain |= {"llama_cpp"}
    for folder in ("benchmark", "stages", "tests", "tinygpt", "tools"):
        for file in (ROOT / folder).rglob("*.py"):
            text = file.read_text(encoding="utf-8")
            entry = text.partition('\nif __name__ == "__main__":\n')[2]
            prepared = (
                "    run(main)" in entry or "with console.prepared(" in text or "tinygpt.cli.main import main" in text
            )
            assert prepared or not entry or file.stem in plain or file.parent.name == "lesson_pictures", file


@pytest.mark.parametrize(
    ("number", "text"),
    [(0.72, "0.72"), (999.4, "999"), (999.6, "1k"), (1024, "1.02k"), (999_600, "1M"), (5.3e6, "5.3M"), (2e15, "2P")],
)
def test_numbers_are_told_in_three_digits_and_a_letter(number: float, text: str) -> None:
    assert thousands(number) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "1 second"), (1.6, "2 seconds"), (89.4, "89 seconds"), (90, "1.5 minutes")]
)
def test_a_forecast_is_told_in_seconds_up_to_a_minute_and_a_half(seconds: float, text: str) -> None:
    assert duration(seconds) == text

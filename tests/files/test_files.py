"""Files appear whole or not at all, and a folder's sums tell of any change."""

import errno
import os
import stat
import subprocess
from pathlib import Path

import pytest

from tinygpt.errors import explain
from tinygpt.files.atomic import writing
from tinygpt.files.checksums import SUMS, seal, verify
from tinygpt.files.text import write_json, write_text


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "metrics.json"
    write_text(target, "old")

    def write_half() -> None:
        with writing(target) as partial:
            partial.write_text("ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_half()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_file_takes_no_folders_place(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/precious").write_text("x")
    with pytest.raises(OSError, match="directory"):
        write_text(tmp_path / "mine", "a report")
    assert [file.name for file in tmp_path.iterdir()] == ["mine"]
    assert (tmp_path / "mine/precious").read_text() == "x"


def test_what_a_killed_process_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    (tmp_path / f".a.{dead.pid}.partial").mkdir()
    (tmp_path / f".a.{os.getppid()}.partial").write_text("still being written")
    others = [f".a.{os.getppid()}.partial", f".a.tsv.{dead.pid}.partial", ".a.old.partial"]
    for name in others[1:]:
        (tmp_path / name).touch()  # a file of another's, whatever its name
    write_text(tmp_path / "a", "whole")
    assert {file.name for file in tmp_path.iterdir()} == {*others, "a"}


def test_json_that_is_not_json_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "a", {"x": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (OSError(28, "No space left on device"), "The disk is full"),
        (MemoryError(), "not enough memory. For a stage, lower train.batch_size"),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (ValueError("a sentence"), "a sentence"),
        (RuntimeError("a bug"), None),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (FileNotFoundError(2, "no", "data/model/config.json"), "There is no data/model/config.json. `dvc repro train`"),
        (FileNotFoundError(2, "no", "my/model/config.json"), "There is no my/model/config.json. Check the spelling"),
    ],
)
def test_errors_become_sentences_and_unforeseen_ones_stay_errors(problem: Exception, says: str | None) -> None:
    told = explain(problem)
    assert told == says or (says is not None and told is not None and says in told)


def test_a_traceback_is_shown_to_whoever_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINYGPT_TRACEBACK", "1")
    assert explain(ValueError("a sentence")) is None


def test_a_folder_replaces_the_one_before_it(tmp_path: Path) -> None:
    target = tmp_path / "model"
    for content in ("one", "two"):
        with writing(target) as partial:
            partial.mkdir()
            (partial / content).write_text(content)
    assert [file.name for file in target.iterdir()] == ["two"]


def test_a_folder_takes_the_place_of_a_link_and_not_of_what_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk/ids").write_text("old")
    (tmp_path / "tokens").symlink_to("disk")
    with writing(tmp_path / "tokens") as partial:
        partial.mkdir()
        (partial / "ids").write_text("new")
    assert not (tmp_path / "tokens").is_symlink()
    assert [(tmp_path / name / "ids").read_text() for name in ("tokens", "disk")] == ["new", "old"]


def test_where_folders_cannot_be_flushed_all_is_written_and_a_files_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = stat.S_ISDIR

    def fsync(descriptor: int) -> None:
        if refused(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_text(tmp_path / "data/metrics.json", "{}")
    assert (tmp_path / "data/metrics.json").read_text() == "{}"
    refused = stat.S_ISREG
    with pytest.raises(OSError, match="Invalid argument"):
        write_text(tmp_path / "data/metrics.json", "[]")


def test_text_is_utf8_with_unix_line_ends_everywhere(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "é\n")
    assert (tmp_path / "a").read_bytes() == b"\xc3\xa9\n"


def sealed(folder: Path) -> Path:
    folder.mkdir()
    (folder / "a").write_text("a")
    (folder / "b").write_text("b")
    seal(folder)
    return folder


def test_a_sealed_folder_passes_sha256sum(tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    verify(folder)
    assert subprocess.run(["sha256sum", "-c", SUMS], cwd=folder, capture_output=True, check=False).returncode == 0


def test_any_change_to_a_sealed_folder_is_found(tmp_path: Path) -> None:
    changed = sealed(tmp_path / "changed")
    (changed / "a").write_text("A")
    missing = sealed(tmp_path / "missing")
    (missing / "a").unlink()
    extra = sealed(tmp_path / "extra")
    (extra / "c").write_text("c")
    for folder, says in ((changed, "a does not match"), (missing, "a is missing"), (extra, "c is not in its")):
        with pytest.raises(ValueError, match=says):
            verify(folder)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (FileNotFoundError(2, "No such file or directory", "text.txt"), "There is no text.txt. Check the spelling"),
        (IsADirectoryError(21, "Is a directory", "data"), "data is a folder, and a file is needed there."),
        (PermissionError(13, "Permission denied", b"key"), "key cannot be accessed (Permission denied)."),
        (OSError(30, "Read-only file system", "m.gguf"), "m.gguf cannot be accessed (Read-only file system)."),
        (FileNotFoundError("There is no model in x."), "There is no model in x."),
        (
            UnicodeDecodeError("utf-8", b"a\xff", 1, 2, "invalid start byte"),
            "The input is not UTF-8 text (byte 1).",
        ),
        (
            UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
            "A text has a lone surrogate (half a character)",
        ),
        (ValueError("embedded null byte"), "A path has a NUL character in it"),
        (OSError(28, "No space left on device", "x"), "The disk is full"),
    ],
)
def test_what_the_system_refuses_is_told_in_a_sentence(problem: Exception, says: str) -> None:
    assert str(explain(problem)).startswith(says)

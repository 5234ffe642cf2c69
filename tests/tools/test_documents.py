"""The checker of documents sees what is wrong, and mends it; every lesson can be read by it."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tinygpt.exercises import runner
from tools import documents

PAGES = [
    *sorted((ROOT / "docs/lessons").glob("*.md")),
    ROOT / "docs/tour.md",
    ROOT / "docs/README.md",
    ROOT / "docs/dvc.md",
    ROOT / "docs/datasets.md",
    ROOT / "docs/glossary.md",
]
LINKED = [file for file in {*PAGES, *ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} if "](" in file.read_text("utf-8")]


def page(tmp_path: Path, command: str, output: str, mark: str = "") -> Path:
    file = tmp_path / "page.md"
    file.write_text(f"# A page\n\n{mark}\n```console\n$ {command}\n{output}\n```\n\nAnd on.\n", encoding="utf-8")
    return file


def test_a_true_page_passes(tmp_path: Path) -> None:
    assert documents.check(page(tmp_path, "echo 'loss 3.88 after\n1200 steps'", "loss 3.88 after\n1200 steps")) == []


@pytest.mark.parametrize(
    ("command", "output", "mark", "complaint"),
    [
        ("echo loss 3.88", "loss 3.87", "", "+loss 3.88"),
        ("echo loss 3.88", "los 3.88", "<!-- within 2% -->", "-los 3.88"),
        ("echo loss 3.88", "loss 3.77", "<!-- within 2% -->", "3.77 is now 3.88: more than 2%"),
        ("echo loss 3.88 1", "loss 3.88", "<!-- within 2% -->", "+loss 3.88 1"),
        ("echo 1201 steps", "1200 steps", "<!-- within 2% -->", "1200 is now 1201"),
        ("echo 3.88; exit 3", "3.88", "", "exit status 3, where 0 is meant"),
        ("false | cat", "", "", "exit status 1"),
        ("no-such-command", "fine", "<!-- shape only -->", "exit status 127"),
        ("true", "some text", "<!-- shape only -->", "it prints nothing"),
        ("echo fine", "fine", "<!-- fails -->", "exit status 0, where another than 0 is meant"),
    ],
)
def test_what_is_wrong_is_seen(tmp_path: Path, command: str, output: str, mark: str, complaint: str) -> None:
    (problem,) = documents.check(page(tmp_path, command, output, mark))
    assert problem.splitlines()[0].endswith(f"page.md:5: $ {command}")
    assert complaint in problem


@pytest.mark.parametrize(
    ("command", "output", "mark"),
    [
        ("echo loss 3.80", "loss   3.88", "<!-- within 3% -->"),
        ("echo 0.01 -1.2e-3", "0.02 -1.3e-3", "<!-- within 1% -->"),
        ("date", "another time", "<!-- shape only -->"),
        ("echo no; exit 3", "no", "<!-- fails -->"),
        ("echo 2.01; exit 3", "2.00", "<!-- fails, within 1% -->"),
        ("echo one  >&2; echo two", "one\ntwo", ""),
    ],
)
def test_what_is_meant_to_differ_may_differ(tmp_path: Path, command: str, output: str, mark: str) -> None:
    assert documents.check(page(tmp_path, command, output, mark)) == []


def test_an_update_makes_a_page_true_and_leaves_the_rest_alone(tmp_path: Path) -> None:
    file = page(tmp_path, "echo 'one\ntwo' | tac", "three", "<!-- within 2% -->")
    assert documents.update(file) == []
    assert file.read_text(encoding="utf-8") == (
        "# A page\n\n<!-- within 2% -->\n```console\n$ echo 'one\ntwo' | tac\ntwo\none\n```\n\nAnd on.\n"
    )
    assert documents.check(file) == []


def test_an_update_leaves_a_page_whose_command_fails(tmp_path: Path) -> None:
    file = page(tmp_path, "echo new; exit 1", "old")
    before = file.read_bytes()
    (problem,) = documents.update(file)
    assert "exit status 1" in problem
    assert file.read_bytes() == before


def test_an_update_leaves_a_page_whose_output_would_end_its_block(tmp_path: Path) -> None:
    """A model trained on Markdown writes fences, too."""
    file = page(tmp_path, "printf '```\\nnew'", "old")
    before = file.read_bytes()
    (problem,) = documents.update(file)
    assert "its output would end the block" in problem
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("```console\n$ ls\n", "line 1: this block has no end"),
        ("```console\nls\n```\n", "line 2: 'ls' should be a command that begins with"),
        ("```console\n```\n", "line 1: this block has no command"),
        ("<!-- about 2% -->\n```console\n$ ls\n```\n", "line 1: '<!-- about 2% -->' is no mark"),
    ],
)
def test_a_page_that_cannot_be_read_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(ValueError, match="^" + complaint):
        list(documents.blocks(text))


def test_the_command_exits_with_1_and_says_where(tmp_path: Path) -> None:
    file = page(tmp_path, "echo 1", "2")
    command = [sys.executable, "-m", "tools.documents", str(file)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "page.md:5: $ echo 1" in done.stderr
    assert "-2\n+1" in done.stderr


@pytest.mark.parametrize("file", PAGES, ids=lambda file: file.name)
def test_every_page_can_be_read(file: Path) -> None:
    list(documents.blocks(file.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", sorted(LINKED), ids=lambda file: file.name)
def test_every_link_leads_to_a_file(file: Path) -> None:
    text = re.sub(
        r"```console.*?\n```", "", file.read_text(encoding="utf-8"), flags=re.DOTALL
    )  # a model writes links too
    links = re.findall(r"\]\(([^)#]+)\)", text)
    assert links
    assert [link for link in links if "://" not in link and not (file.parent / link).exists()] == []


@pytest.mark.parametrize("lesson", runner.lessons())
def test_every_lesson_has_a_picture_and_names_its_exercises(lesson: int) -> None:
    (file,) = (ROOT / "docs/lessons").glob(f"{lesson:02}_*.md")
    text = file.read_text(encoding="utf-8")
    assert [name for name in runner.names(lesson) if f"`{name}`" not in text] == []
    assert re.search(rf"!\[.+\]\({lesson:02}_\w+\.png\)", text)
    assert "```console" in text


def test_of_two_stages_that_dvc_may_run_in_either_order_evaluate_is_told_first() -> None:
    kept, other = "Stage 'evaluate' didn't change, skipping", "Stage 'sample' didn't change, skipping"
    assert documents.in_order(["x", other, kept, "end"]) == ["x", kept, other, "end"]
    assert documents.in_order(["x", kept, other, "end"]) == ["x", kept, other, "end"]
    ran = ["Running stage 'sample':", "> python", ""]
    assert documents.in_order([*ran, kept, "end"]) == [kept, *ran[:2], "end"]
    assert documents.in_order(["Running stage 'sample':", "end"]) == ["Running stage 'sample':", "end"]


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reliability.md"])
def test_every_test_that_a_page_names_is_there(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    files = {file.name for file in (ROOT / "tests").rglob("test_*.py")}
    assert set(re.findall(r"\btest_\w+\.py", text)) <= files

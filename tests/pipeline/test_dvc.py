"""docs/dvc.md is true, and what it promises holds: remotes, a second clone, experiments kept, models by name."""

import hashlib
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import yaml
from dvc.utils import hydra
from dvc.utils.cli_parse import to_path_overrides
from moto.server import ThreadedMotoServer

from tests.conftest import ROOT
from tests.project import Project
from tinygpt import config
from tools import documents

PAGE = ROOT / "docs/dvc.md"
RESULTS = ["dvc.lock", "data/training/metrics.json", "data/evaluation/metrics.json"]  # as the Makefile has them
COMMIT = "git add {} && git commit -m {}".format(" ".join(RESULTS), '"My first run"')  # as `make` prints it
BACK = "git checkout HEAD -- params.yaml && dvc repro"


@pytest.fixture
def mine(finished: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A copy of the finished project, whose remotes and tags nobody else sees. Nothing leaves this machine."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # where nobody listens
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    shutil.copytree(finished.folder, tmp_path / "tinygpt", symlinks=True)
    copy = Project.at(tmp_path / "tinygpt")
    yield copy
    copy.end_workers()


@pytest.fixture
def foreign(mine: Project) -> Project:
    """What a first `make` leaves where a dvc.lock was committed on a machine that rounds differently: HEAD names files
    that no cache here has, and this machine's own results are not committed.
    """
    mine.run("dvc", "commit", "-q", "-f", "dvc.yaml")  # as a run does: other tests make the project forget its runs
    own = {name: (mine.folder / name).read_text(encoding="utf-8") for name in RESULTS}
    for name, text in own.items():
        other = re.sub(r"(md5: )(.)", lambda found: found[1] + "fe"[found[2] == "f"], text)
        (mine.folder / name).write_text(re.sub(r"(loss\": )\d", r"\g<1>9", other), encoding="utf-8")
    mine.run("git", "commit", "-q", "-a", "-m", "results of another machine")
    for name, text in own.items():
        (mine.folder / name).write_text(text, encoding="utf-8")
    assert mine.run("git", "diff", "--name-only", "HEAD").split() == sorted(RESULTS)
    return mine


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ThreadedMotoServer]:
    """An empty S3 on loopback, with a bucket, its address in $ENDPOINT, and credentials in the environment alone."""
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"):
        monkeypatch.setenv(f"AWS_{name}", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    server = ThreadedMotoServer("127.0.0.1", 0)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    monkeypatch.setenv("ENDPOINT", address)
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="tinygpt-results")
    yield server
    server.stop()


def store(project: Project) -> None:
    """A folder beside the project as its remote, as the page sets it up."""
    project.run("dvc", "remote", "add", "--local", "-d", "store", str(project.folder.parent / "store"))
    project.run("dvc", "remote", "modify", "--local", "store", "verify", "true")


def cloned(project: Project) -> Project:
    project.run("git", "clone", "-q", ".", "../second")
    return Project.at(project.folder.parent / "second")


def has_nothing_to_run(clone: Project, original: Project) -> None:
    """What a second clone has after a pull: all the same bytes, and no stage that would run."""
    assert not (clone.folder / "data/model").exists()
    clone.run("dvc", "pull")
    assert clone.results() == original.results()
    assert clone.dvc("repro") == []
    assert clone.run("git", "status", "--short") == ""
    assert clone.results() == original.results()


@pytest.mark.slow
def test_a_second_clone_pulls_from_a_folder_and_has_nothing_to_run(mine: Project) -> None:
    store(mine)
    mine.run("dvc", "push")
    clone = cloned(mine)
    store(clone)
    has_nothing_to_run(clone, mine)


@pytest.mark.slow
def test_a_second_clone_pulls_from_s3_and_has_nothing_to_run(mine: Project, s3: ThreadedMotoServer) -> None:
    lines = re.findall(r"^    (dvc .*)$", PAGE.read_text(encoding="utf-8").split("<!-- s3:")[1].split("## ")[0], re.M)
    assert [line.split()[1] for line in lines] == ["remote", "remote", "remote", "push"]
    for line in lines:
        mine.run("bash", "-c", line)
    clone = cloned(mine)
    for line in lines[:-1]:
        clone.run("bash", "-c", line)
    has_nothing_to_run(clone, mine)
    assert "testing" not in (mine.folder / ".dvc/config.local").read_text()
    assert mine.run("git", "status", "--short") == ""  # --local: git sees no remote and no key


@pytest.mark.slow
def test_a_damaged_object_in_a_remote_is_refused_and_repro_makes_the_same_bytes(mine: Project) -> None:
    store(mine)
    mine.run("dvc", "push")
    damaged = mine.folder.parent / "store/files/md5" / stored(mine, "data/model/model.safetensors")
    damaged.chmod(0o644)
    content = damaged.read_bytes()
    damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    clone = cloned(mine)
    store(clone)
    assert "data/model" in clone.run("dvc", "pull", code=1)
    assert not (clone.folder / "data/model").exists()
    assert clone.dvc("repro") == ["train"]
    assert clone.results() == mine.results()


def stored(project: Project, name: str) -> Path:
    """Where the cache or a remote has a file, below its files/md5."""
    digest = project.run("md5sum", name)[:32]
    return Path(digest[:2], digest[2:])


@pytest.mark.slow
def test_an_experiment_is_compared_applied_and_made_a_branch(mine: Project) -> None:
    before = mine.results()
    mine.dvc("exp", "run", "--temp", "--name", "cool", "-S", "sample.temperature=0.4")
    assert mine.results() == before  # --temp: the workspace stays as it was
    assert re.search(r"sample.temperature\s+0.8\s+0.4\s+-0.4", mine.run("dvc", "exp", "diff", "main", "cool"))
    assert re.search(r"experiment +bits_per_byte +sample.temperature\n", mine.run("tinygpt", "compare"))
    mine.run("dvc", "exp", "branch", "cool", "cooler")
    mine.run("dvc", "exp", "apply", "cool")
    applied = mine.results()
    assert applied != before
    assert mine.dvc("repro") == []
    mine.run("git", "checkout", "-q", "-f", "cooler")
    mine.run("dvc", "checkout", "-q")
    assert mine.results() == applied
    assert mine.dvc("repro") == []
    mine.run("git", "checkout", "-q", "main")
    mine.run("dvc", "checkout", "-q")
    assert mine.results() == before


@pytest.mark.parametrize("path", ["Zoë (1).txt", "a=[b], {c}; d.txt", "#1 & ~x!.md", "日本.txt", "Zoë's.txt"])
def test_a_path_of_any_characters_is_set_in_the_quotes_that_the_pages_show(path: str, tmp_path: Path) -> None:
    inner, apostrophe = """'download.path="/home/me/Zoë (1).txt"'""", r'''"download.path=\"/home/me/Zoë's.txt\""'''
    for page, form in (("docs/datasets.md", inner), ("docs/dvc.md", inner), ("docs/dvc.md", apostrophe)):
        assert f"-S {form}" in (ROOT / page).read_text(encoding="utf-8")
    (tmp_path / path).touch()
    form, example = (apostrophe, "/home/me/Zoë's.txt") if "'" in path else (inner, "/home/me/Zoë (1).txt")
    overrides = to_path_overrides(shlex.split(form.replace(example, str(tmp_path / path))))
    shutil.copy(ROOT / "params.yaml", tmp_path)
    hydra.apply_overrides(tmp_path / "params.yaml", overrides["params.yaml"])
    assert config.load(tmp_path / "params.yaml").download.path == str(tmp_path / path)
    assert len(hydra.get_hydra_sweeps(overrides)) == 1  # and in the queue it is one experiment


def test_a_clone_has_the_same_bytes_whatever_git_does_to_line_endings_elsewhere(tmp_path: Path) -> None:
    def git(*words: str) -> None:
        subprocess.run(["git", "-C", tmp_path, "-c", "core.autocrlf=true", "-c", "core.eol=crlf", *words], check=True)

    contents = {"model.py": b"a\n", "data/own/windows.txt": b"a\r\nb\n", "figure.png": b"\x89PNG\r\n\0"}
    (tmp_path / "data/own").mkdir(parents=True)
    shutil.copy(ROOT / ".gitattributes", tmp_path)
    git("init", "-q")
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    git("add", ".")
    for name in contents:
        (tmp_path / name).unlink()
    git("checkout", "-q", "--", ".")  # as a clone writes them
    assert {name: (tmp_path / name).read_bytes() for name in contents} == contents


def test_the_model_is_found_by_name_and_version_from_a_repository_elsewhere(mine: Project) -> None:
    declared = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["artifacts"]
    assert declared["gpt"]["path"] == "data/model"
    store(mine)
    mine.run("dvc", "push")
    mine.run("git", "tag", "-a", "gpt@v1.0.0", "-m", "the first")
    mine.run("git", "clone", "-q", "--bare", ".", "../hub.git")
    words = ["--remote", "store", "--remote-config", f"url={mine.folder.parent / 'store'}"]
    mine.run("dvc", "artifacts", "get", "../hub.git", "gpt", "--rev", "v1.0.0", "--out", "../model", *words)
    mine.run("bash", "-c", "cd ../model && sha256sum --check --quiet SHA256SUMS && diff -r . ../tinygpt/data/model")
    assert "v2.0.0" in mine.run("dvc", "artifacts", "get", "../hub.git", "gpt", "--rev", "v2.0.0", *words, code=1)


def content(project: Project) -> set[str]:
    """The MD5 of everything that the pipeline made and that lies in the workspace."""
    return {hashlib.md5(made).hexdigest() for name, made in project.results().items() if name != "dvc.lock"}


def cached(project: Project, md5: str) -> bool:
    return (project.folder / ".dvc/cache/files/md5" / md5[:2] / md5[2:]).exists()


@pytest.mark.slow
def test_the_way_back_needs_no_hash_of_head_and_computes_nothing(foreign: Project) -> None:
    before = foreign.results()
    assert foreign.dvc("exp", "run", "-S", "train.steps=10") == ["train", "evaluate", "sample"]
    assert foreign.results() != before
    assert "Running" not in foreign.run("bash", "-c", BACK)
    assert foreign.results() == before


def test_the_pages_give_that_way_back_and_the_commit_that_make_prints() -> None:
    for page in ("README.md", "docs/dvc.md", "docs/lessons/09_experiments.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        assert BACK in text
        assert COMMIT in text
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"RESULTS := {' '.join(RESULTS)}\n" in makefile
    assert COMMIT.replace(" ".join(RESULTS), "$(RESULTS)").replace('"', '\\"') in makefile


def test_comparing_with_a_revision_without_results_says_how_to_commit_them(mine: Project) -> None:
    mine.run("git", "rm", "-q", "--cached", *RESULTS)
    mine.run("git", "commit", "-q", "-m", "none")
    assert COMMIT.partition(" -m")[0] in mine.run("tinygpt", "compare", "main", ".", code=1)
    mine.run("bash", "-c", COMMIT)
    assert mine.run("git", "status", "--short") == ""
    assert "main and . contain the same run" in mine.run("tinygpt", "compare", "main", ".", code=1)


@pytest.mark.slow
def test_the_commands_of_the_readme_in_order_lose_nothing_where_head_has_foreign_hashes(foreign: Project) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Quick start")[2]
    commands = [line.strip() for line in re.findall(r"^    (?:dvc|git|tinygpt compare) .*$", readme, re.M)]
    assert COMMIT in commands
    before, own, ever = foreign.results(), (foreign.folder / "data/own/book.txt").read_bytes(), content(foreign)
    for command in [*commands, BACK]:
        if "download.source=hub" not in command:
            foreign.run("bash", "-c", command.replace("<name>", "$(dvc exp list --name-only | head -1)"))
        ever |= content(foreign)
        assert (foreign.folder / "data/model/model.safetensors").exists(), command
        assert (foreign.folder / "data/own/book.txt").read_bytes() == own, command
        assert [md5 for md5 in ever - content(foreign) if not cached(foreign, md5)] == [], command
    assert foreign.results() == before
    # nothing is changed or gone; DVC has staged the new locks of fine-tuning, which ran for the first time
    added = foreign.run("git", "status", "--short", "--untracked-files=no")
    assert added == "A  chat/dvc.lock\nA  finetune/dvc.lock\n"
    for page in ("dvc_plots/index.html", "report.html"):  # both draw the curves of main
        assert re.search(r'"(rev|run)": "main"|>main<', (foreign.folder / page).read_text(encoding="utf-8"))


@pytest.mark.slow
def test_every_command_of_the_page_does_what_it_says(foreign: Project) -> None:
    foreign.run("bash", "-c", COMMIT)
    assert documents.check(PAGE, foreign.folder) == []

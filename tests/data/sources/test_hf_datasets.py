"""tinygpt/data/sources/hf_datasets.py: datasets of the hub, from a stand-in on loopback."""

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from tests.conftest import params
from tests.data.sources.test_documents import joined
from tests.hub_server import COMMIT, GATED, UNKNOWN, Answer, Hub
from tests.project import Project
from tinygpt import config
from tinygpt.data.sources import documents, hf_datasets
from tinygpt.errors import explain
from tinygpt.files.paths import hidden
from tinygpt.files.text import write_text

STORIES = "roneneldan/TinyStories"


def parquet(texts: list[str], column: str = "text") -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({column: texts}), file)
    return file.getvalue()


def stories(shard: int) -> list[str]:
    """Six stories, one with the broken quotes that the true ones have too."""
    return [f"Once upon a time â€œ{shard}-{number}â€\x9d " + "there was a cat. " * 9 for number in range(6)]


TRAIN = [f"data/train-{number:05}-of-00004-{number:016x}.parquet" for number in range(4)]
TINY_STORIES = {  # the layout of the true one
    **{name: parquet(stories(number)) for number, name in enumerate(TRAIN)},
    "data/validation-00000-of-00001-0123456789abcdef.parquet": parquet(["held out"]),
    "README.md": b"---\nlicense: cdla-sharing-1.0\n---\n# Stories\n",
    "TinyStories-train.txt": b"the same as text",
    "TinyStories_all_data.tar.gz": b"not for us",
}
ALL = [story for number in range(4) for story in stories(number)]


@pytest.fixture
def served(here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with TinyStories on it, as huggingface_hub sees it; an empty cache; nobody waits before trying again."""
    with Hub({STORIES: dict(TINY_STORIES)}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.address)
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(here / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
        yield hub


def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def section(**changes: object) -> config.Download:
    values = {"source": "hub", "dataset": STORIES, "revision": COMMIT, "text_column": "text", "max_documents": None}
    return params(**{f"download__{key}": value for key, value in (values | changes).items()}).download


def texts(**changes: object) -> list[str]:
    return [joined(content) for _, content in documents.documents(section(**changes))[0]]


def blob(name: str) -> Path:
    """A file of TinyStories in the hub's cache."""
    return Path("cache", f"datasets--{STORIES.replace('/', '--')}", "snapshots", COMMIT, name)


# What is read, and what is asked for


def test_the_train_split_is_read_in_order_as_it_is_and_nothing_else_is_fetched(served: Hub) -> None:
    heard: list[int] = []
    found, digest = documents.documents(section(), heard.append)
    read = [(name, joined(content)) for name, content in found]
    assert read == [(f"TinyStories/{number}", text) for number, text in enumerate(ALL, 1)]
    assert digest is None
    assert served.files_asked() == [Path(name).name for name in TRAIN]
    assert sum(heard) == sum(len(TINY_STORIES[name]) for name in TRAIN)


def test_only_the_files_that_are_needed_are_fetched(served: Hub) -> None:
    found, _ = documents.documents(section(max_documents=6))
    assert len(list(itertools.islice(found, 6))) == 6
    assert served.files_asked() == [Path(TRAIN[0]).name]
    next(iter(found))
    assert served.files_asked() == [Path(name).name for name in TRAIN[:2]]


def test_the_second_time_asks_for_nothing(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert texts() == ALL
    served.asked.clear()
    assert texts() == ALL
    offline(monkeypatch)
    assert texts() == ALL
    assert served.asked == []


def test_what_another_program_left_in_the_cache_is_enough(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.snapshot_download(STORIES, repo_type="dataset", revision=COMMIT)
    offline(monkeypatch)
    served.asked.clear()
    assert texts() == ALL
    assert served.asked == []


def test_a_part_of_it_in_the_cache_is_not_taken_for_all(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    huggingface_hub.snapshot_download(STORIES, repo_type="dataset", revision=COMMIT, allow_patterns=TRAIN[1:3])
    offline(monkeypatch)
    with pytest.raises(
        ConnectionError,
        match=r"not \(all\) in the hub's cache, and HF_HUB_OFFLINE is set. Unset it for the first fetch",
    ):
        texts()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    huggingface_hub.hf_hub_download(STORIES, TRAIN[0], repo_type="dataset", revision=COMMIT)
    offline(monkeypatch)
    assert list(itertools.islice(hf_datasets.rows(section()), 18)) == [{"text": text} for text in ALL[:18]]
    with pytest.raises(ConnectionError, match=r"not \(all\)"):
        list(hf_datasets.rows(section()))


def test_a_damaged_list_of_files_is_asked_for_again(served: Hub) -> None:
    texts()
    for damaged in ("{", "[]", '{"README.md": {"size": 1}}'):
        (kept,) = hidden("downloads/hub").iterdir()
        kept.write_text(damaged)
        assert texts() == ALL
        assert json.loads(kept.read_text()).keys() == TINY_STORIES.keys()


def test_lines_and_compressed_files_are_read_too(served: Hub) -> None:
    import gzip

    lines = "".join(json.dumps({"id": n, "text": f"line {n}"}) + "\n" for n in range(3)).encode()
    served.datasets["a/lines"] = {"train.jsonl": lines}
    served.datasets["a/packed"] = {"train.jsonl.gz": gzip.compress(lines)}
    assert texts(dataset="a/lines") == texts(dataset="a/packed") == ["line 0", "line 1", "line 2"]


# Damage


def test_a_transfer_that_breaks_goes_on_where_it_was(served: Hub) -> None:
    served.breaks = 3
    assert texts() == ALL
    assert served.breaks == 0


def test_a_kept_file_that_is_damaged_is_fetched_again(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    texts()
    content = TINY_STORIES[TRAIN[2]]
    for damaged in (content[:-1], content[:50] + b"?" + content[51:]):
        blob(TRAIN[2]).resolve().write_bytes(damaged)
        served.asked.clear()
        assert texts() == ALL
        assert served.files_asked() == [Path(TRAIN[2]).name]
    blob(TRAIN[2]).resolve().write_bytes(damaged)
    offline(monkeypatch)
    with pytest.raises(ConnectionError, match=rf"{TRAIN[2]} is damaged in the hub's cache.*HF_HUB_OFFLINE"):
        texts()


def test_what_is_damaged_on_the_way_is_fetched_again_once(served: Hub) -> None:
    served.damages = 1
    assert texts() == ALL
    blob(TRAIN[0]).resolve().unlink()
    served.damages = 2
    with pytest.raises(ValueError, match=rf"{TRAIN[0]} of {STORIES} has the hash \w+, not \w+\. .*HF_ENDPOINT"):
        texts()


# What cannot be


@pytest.mark.parametrize(
    ("path", "answer", "sentence"),
    [
        (
            "/tree/",
            UNKNOWN,
            "The hub shows no dataset roneneldan/TinyStories. Check download.dataset; .*`hf auth login`",
        ),
        ("/tree/", (404, {}), "The hub shows no dataset"),
        ("/tree/", GATED, "is gated: .*/datasets/roneneldan/TinyStories, then run `hf auth login` or set HF_TOKEN"),
        ("train-00000", GATED, "is gated"),
        ("train-00002", (403, {}), r"refuses roneneldan/TinyStories to your token \(403\)"),
        ("/tree/", (429, {}), r"The hub limits requests \(429\) .*Wait some minutes"),
        ("train-00001", (429, {}), r"The hub limits requests \(429\) .*Wait some minutes"),
        ("/tree/", (500, {}), "could not be fetched from .*500.*Try again with a network.*HF_ENDPOINT"),
        ("/cdn/", (503, {}), "could not be fetched from .*503"),
    ],
)
def test_each_refusal_is_a_sentence_with_the_next_step(served: Hub, path: str, answer: Answer, sentence: str) -> None:
    served.answers[path] = answer
    with pytest.raises(ConnectionError, match=sentence):
        texts()


def test_no_network_and_nothing_kept_says_so(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(ConnectionError, match=r"could not be fetched .*Try again with a network"):
        texts()
    offline(monkeypatch)
    with pytest.raises(ConnectionError, match=r"HF_HUB_OFFLINE is set. Unset it for the first fetch"):
        texts()


def test_a_full_disk_stays_a_full_disk(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", full)
    with pytest.raises(OSError, match="No space") as problem:
        texts()
    assert "The disk is full" in str(explain(problem.value))


def test_a_branch_is_refused_without_a_network_and_a_wrong_commit_learns_of_the_newest(served: Hub) -> None:
    with pytest.raises(ValueError, match=rf"can move.*`git ls-remote {served.address}/datasets/{STORIES} main` prints"):
        documents.check_source(section(revision="main"))
    for revision in ("", COMMIT[:7]):
        with pytest.raises(ValueError, match=rf"{STORIES} main` prints"):
            documents.check_source(section(revision=revision))
    assert served.asked == []
    with pytest.raises(ValueError, match=rf"no commit 1{{40}} .*newest is {COMMIT}: `-S download.revision={COMMIT}`"):
        texts(revision="1" * 40)


@pytest.mark.parametrize("name", ["", "--help/x", "a/b/c", "a/..", "../nothing"])
def test_what_is_no_name_of_a_dataset_is_refused_without_a_network(served: Hub, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=r"There is no folder '.*'\. Set download.dataset"):
        documents.check_source(section(dataset=name))
    assert served.asked == []


CONFIGS = (
    b"---\nconfigs:\n- config_name: en\n  data_files: en/*.jsonl\n- config_name: fr\n  data_files: fr/*.jsonl\n---\n"
)
LANGUAGES = {"README.md": CONFIGS, "en/a.jsonl": b'{"text": "hello"}\n', "fr/a.jsonl": b'{"text": "bonjour"}\n'}


def test_a_dataset_of_several_configurations_names_them(served: Hub) -> None:
    served.datasets["a/b"] = LANGUAGES
    with pytest.raises(ValueError, match=r"download.config is null; set it to one that a/b has: en, fr\."):
        texts(dataset="a/b")
    with pytest.raises(ValueError, match=r"download.config is de; .*: en, fr\."):
        texts(dataset="a/b", config="de")
    assert texts(dataset="a/b", config="fr") == ["bonjour"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"data/test.jsonl": b'{"text": "x"}\n'}, "a/b has no train split, only test"),
        ({"b.py": b"raise SystemExit"}, "cannot be read as a dataset .*scripts are not run.*refs/convert/parquet"),
        (
            {"train.jsonl": b'{"body": "x", "id": 1}\n'},
            "no column 'text'. Set download.text_column to one of: body, id",
        ),
        ({"train.jsonl": b"{"}, "train.jsonl of a/b cannot be read"),
        ({"train.parquet": b"no"}, "train.parquet of a/b cannot be read"),
        ({"README.md": b"---\nconfigs: 5\n---\n", "train.jsonl": b"{}"}, "cannot be read as a dataset"),
        ({"README.md": b"---\nconfigs:\n- config_name: x\n  data_files: /etc/hostname\n---\n"}, "a/b"),
        ({"README.md": b"---\nconfigs:\n- config_name: x\n  data_files: ../../../secret.txt\n---\n"}, "a/b"),
        ({"../outside.jsonl": b"x"}, r"lists a file '\.\./outside\.jsonl', outside of itself"),
        ({"/outside.jsonl": b"x"}, "outside of itself"),
    ],
)
def test_a_dataset_that_is_not_as_it_should_be_is_refused(
    served: Hub, content: dict[str, bytes], sentence: str
) -> None:
    served.datasets["a/b"] = content
    with pytest.raises(ValueError, match=sentence):
        texts(dataset="a/b")


def test_no_file_outside_of_a_dataset_is_read(served: Hub, here: Path) -> None:
    (here / "secret.txt").write_text("secret")
    for path in (f"{here}/secret.txt", f"{'../' * 20}{str(here)[1:]}/secret.txt"):
        card = f"---\nconfigs:\n- config_name: x\n  data_files: {path}\n---\n".encode()
        served.datasets[f"a/b{len(path)}"] = {"README.md": card}
        with pytest.raises(ValueError, match="which is not in it"):
            texts(dataset=f"a/b{len(path)}")


def test_a_dataset_too_large_to_fetch_whole_wants_a_limit(served: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hf_datasets, "MOST_FETCHED", 1000)
    with pytest.raises(ValueError, match=r"has [\d,]+ bytes in 4 files; .* Set download.max_documents"):
        texts()
    assert served.files_asked() == []
    assert next(iter(documents.documents(section(max_documents=1))[0]))


def test_rows_without_text_are_skipped_and_counted_and_lines_end_as_in_text_files(served: Hub) -> None:
    served.datasets["a/b"] = {"train.parquet": parquet([None, "one\r\ntwo\r", None, "three"])}  # type: ignore[list-item]
    left_out: list[str] = []
    found, _ = documents.documents(section(dataset="a/b"), tell=left_out.append)
    assert [(name, joined(content)) for name, content in found] == [("b/2", "one\ntwo\n"), ("b/4", "three")]
    assert left_out == ["row: null in 'text'"] * 2
    served.datasets["a/c"] = {"train.parquet": parquet([None] * 3)}  # type: ignore[list-item]
    with pytest.raises(ValueError, match=r"'text' is null in all 3 rows .the last is Row 3 of a/c"):
        texts(dataset="a/c")


def test_a_folder_of_pointers_of_git_lfs_says_how_to_fetch_them(served: Hub, here: Path) -> None:
    write_text(here / "set/train.parquet", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n")
    with pytest.raises(ValueError, match=r"train\.parquet is a pointer of git-lfs, .* Run `git lfs pull`"):
        texts(dataset="./set")


# Under DVC


@pytest.mark.slow
def test_the_stage_reads_the_hub_that_hf_endpoint_names_and_repeats_without_it(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.set("download", source="hub", max_documents=20)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    with Hub({STORIES: TINY_STORIES}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        assert project.dvc("repro", "download") == ["download"]
        assert len(served.files_asked()) == 4
    before = project.results()
    assert project.dvc("repro", "-f", "download") == ["download"]  # the hub is gone
    assert project.results() == before

"""Every hash that a model or a sample names is followed to a file, and a difference is seen."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import params
from tinygpt.checkpoints.model_folder import hashes
from tinygpt.errors import explain
from tinygpt.evaluation import history
from tinygpt.experiments import lineage
from tinygpt.experiments.artifacts import gather
from tinygpt.experiments.runs import EVALUATION, Run
from tinygpt.files.checksums import digest, seal, sha256
from tinygpt.files.paths import Paths
from tinygpt.files.text import read_json, write_json, write_text
from tinygpt.tokenizer.base import Tokenizer


@pytest.fixture
def pipeline(tmp_path: Path, model_folder: Path, characters: Tokenizer) -> Paths:
    """A pipeline's folder, whose model was made from what lies there."""
    paths = Paths(tmp_path)
    characters.save(paths.tokenizer)
    for split in ("train", "validation"):
        write_text(paths.text(split), split)
    values = params().model_dump()
    named = {
        "text": {split: sha256(paths.text(split)) for split in ("train", "validation")},
        "tokenizer": sha256(paths.tokenizer / "tokenizer.json"),
        "params": digest({name: values[name] for name in ("seed", "model", "train")}),
    }
    shutil.copytree(model_folder, paths.model)
    write_json(paths.model / "lineage.json", named)
    seal(paths.model)
    return paths


def verdicts(paths: Paths, **changes: object) -> dict[str, str]:
    return {link.what: link.verdict for link in lineage.follow(paths.model, params(**changes), paths)}


def test_a_model_beside_what_it_was_made_from_is_the_same_throughout(pipeline: Paths) -> None:
    assert verdicts(pipeline) == dict.fromkeys(
        ["model", "tokenizer", "train text", "validation text", "parameters"], "the same"
    )


def test_each_difference_is_seen_where_it_is(pipeline: Paths) -> None:
    write_text(pipeline.text("train"), "another text")
    pipeline.text("validation").unlink()
    found = verdicts(pipeline, train__steps=7)
    assert found["train text"] == "another"
    assert found["validation text"] == "not there"
    assert found["parameters"] == "another"
    assert found["tokenizer"] == "the same"


def test_parameters_that_do_not_reach_training_make_no_difference(pipeline: Paths) -> None:
    assert verdicts(pipeline, sample__temperature=0.1)["parameters"] == "the same"


def test_dvc_lock_is_followed_too(pipeline: Paths) -> None:
    lock = "stages:\n  train:\n    outs:\n    - path: data/model\n      md5: {}\n"
    write_text(pipeline.folder / "dvc.lock", lock.format(lineage.folder_md5(pipeline.model)))
    assert verdicts(pipeline)["model in dvc.lock"] == "the same"
    write_text(pipeline.folder / "dvc.lock", lock.format("0" * 32 + ".dir"))
    assert verdicts(pipeline)["model in dvc.lock"] == "another"
    for unreadable in ("<<<<<<< HEAD\nstages:\n", "", "- 1\n", "stages: 3\n"):
        write_text(pipeline.folder / "dvc.lock", unreadable)
        with pytest.raises(ValueError, match=r"dvc.lock cannot be read. Finish the merge, or `git checkout HEAD"):
            verdicts(pipeline)


def test_a_model_from_elsewhere_claims_no_parameters(pipeline: Paths) -> None:
    claimed = hashes(pipeline.model) | {"params": ""}
    links = lineage.follow_hashes(claimed, pipeline.model, params(), pipeline)
    assert "parameters" not in {link.what for link in links}


def test_samples_name_the_model_that_wrote_them(pipeline: Paths) -> None:
    named = hashes(pipeline.model)
    line = json.dumps({"text": "x\u2028\x85", "hashes": named}, ensure_ascii=False)  # which str.splitlines() would cut
    write_text(pipeline.samples / "samples.jsonl", f"{line}\n{line}\n")
    (found,) = lineage.sample_hashes(pipeline.samples / "samples.jsonl")
    links = list(lineage.follow_hashes(found, pipeline.model, params(), pipeline))
    assert {link.verdict for link in links} == {"the same"}
    sample = lineage.sample_of(pipeline.model, pipeline)
    assert sample is not None
    assert sample["text"] == "x\u2028\x85"
    for wrong in ("{}", '{"hashes": {}}', '{"hashes": "x"}', '{"hashes": {"model": "a"'):
        write_text(pipeline.samples / "samples.jsonl", f"{line}\n{wrong}\n")
        for read in (lineage.sample_hashes, lambda _: lineage.sample_of(pipeline.model, pipeline)):
            with pytest.raises(ValueError, match="line 2 is not a sample"):
                read(pipeline.samples / "samples.jsonl")


def test_an_evaluation_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "data/evaluation").mkdir(parents=True)
    write_json(tmp_path / EVALUATION, {"bits_per_byte": 2.0, "yardsticks": {"xz": 2.4}})
    with pytest.raises(ValueError, match=r"earlier version of TinyGPT.* Run `dvc repro` there"):
        gather(Run(str(tmp_path), "", 1, {}, 2.0, 3.3, 1, 1, 1, 1))
    monkeypatch.setattr(lineage, "locked_md5", lambda *_: lineage.folder_md5(tmp_path / "data/evaluation"))
    with pytest.raises(ValueError, match="earlier version of TinyGPT"):
        lineage.evaluation_of(tmp_path / "data/evaluation", Paths(tmp_path))


def test_a_corpus_of_an_earlier_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "yardsticks.json").write_text("{}")
    with pytest.raises(FileNotFoundError) as problem:
        read_json(tmp_path / "baselines.json")
    assert "earlier version of TinyGPT. `dvc repro` remakes it" in str(explain(problem.value))


def test_an_evaluation_of_an_earlier_version_is_not_compared_with(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(history, "hidden", lambda name: tmp_path / name)
    (tmp_path / "evaluations.jsonl").write_text('{"bits_per_byte": 2.0, "bytes": 9, "yardsticks": {}}\n')
    assert history.append({"bits_per_byte": 2.0, "bytes": 9, "baselines": {}}) is None
    assert history.append({"bits_per_byte": 2.1, "bytes": 9, "baselines": {}}) is not None

"""finetune/ under DVC: it goes on from data/model, says what was gained and forgotten, and ends in the same bytes."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.checkpoints.test_hf_model import write
from tests.project import STAGES, Project
from tinygpt.checkpoints.model_folder import hashes, load
from tinygpt.experiments import compare, runs
from tinygpt.experiments.artifacts import gather
from tinygpt.web import models

pytestmark = pytest.mark.slow

DOMAIN = "Force is the change of momentum in time.\nF = m * a, where m is the mass and a the acceleration.\n\n" * 60


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose two pipelines have run."""
    project = Project(tmp_path_factory.mktemp("tuned"))
    (project.folder / "finetune/own").mkdir()
    (project.folder / "finetune/own/physics.txt").write_text(DOMAIN, encoding="utf-8")
    file = project.folder / "finetune/params.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["download"]["path"] = "finetune/own"
    values["train"].update(steps=40, learning_rate=0.01, warmup_steps=2)
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    project.commit()
    assert project.dvc("repro") == STAGES  # and not those of finetune/
    assert project.dvc("repro", "finetune/dvc.yaml") == [f"finetune/dvc.yaml:{stage}" for stage in STAGES]
    project.commit()
    return project


@pytest.fixture
def project(tuned: Project) -> Iterator[Project]:
    tuned_bytes = made(tuned)
    yield tuned
    tuned.restore()
    shutil.rmtree(tuned.folder / "finetune/data")  # which DVC does not keep
    for name, content in tuned_bytes.items():
        (tuned.folder / name).parent.mkdir(parents=True, exist_ok=True)
        (tuned.folder / name).write_bytes(content)
    tuned.forget_experiments()


def read(project: Project, name: str) -> Any:
    return json.loads((project.folder / "finetune/data" / name).read_text(encoding="utf-8"))


def made(project: Project) -> dict[str, bytes]:
    """Every byte of finetune/data, and its lock."""
    files = [*(project.folder / "finetune/data").rglob("*"), project.folder / "finetune/dvc.lock"]
    return {str(file.relative_to(project.folder)): file.read_bytes() for file in files if file.is_file()}


def test_fine_tuning_keeps_shape_and_tokenizer_and_gains_on_its_text(project: Project) -> None:
    base, tokenizer = load(project.folder / "data/model")
    model, kept = load(project.folder / "finetune/data/model")
    assert model.config == base.config
    assert kept.to_json() == tokenizer.to_json()
    told = read(project, "evaluation/metrics.json")["fine_tuning"]
    assert told["its_text"]["after"] == read(project, "evaluation/metrics.json")["bits_per_byte"]
    assert told["its_text"]["after"] < 0.75 * told["its_text"]["before"]
    assert told["base_text"].keys() == {"before", "after"}
    before = json.loads((project.folder / "data/evaluation/metrics.json").read_text(encoding="utf-8"))
    assert told["base_text"]["before"] == pytest.approx(before["bits_per_byte"])
    drawn = project.run("dvc", "plots", "show", "finetune/data/training/validation.tsv", "-x", "step", "-y", "loss")
    assert "failed to load" not in drawn  # docs/finetune.md has this command
    assert "validation.tsv" in (project.folder / "dvc_plots/index.html").read_text(encoding="utf-8")


def test_samples_stand_side_by_side_with_the_same_seeds(project: Project) -> None:
    folder = project.folder / "finetune/data/samples"
    page = (folder / "samples.md").read_text(encoding="utf-8")
    assert page.count("Before fine-tuning:") == page.count("After:") == 1
    before, after = (
        json.loads((folder / name).read_text(encoding="utf-8").splitlines()[0])
        for name in ("before.jsonl", "samples.jsonl")
    )
    assert (before["prompt"], before["seed"]) == (after["prompt"], after["seed"])
    assert before["hashes"]["model"] == hashes(project.folder / "data/model")["model"]
    assert after["hashes"]["model"] == hashes(project.folder / "finetune/data/model")["model"]
    assert (project.folder / "finetune/data/evaluation/figures/fine_tuning.png").stat().st_size > 5000


def test_a_forced_rerun_gives_the_same_bytes(project: Project) -> None:
    before = made(project)
    ran = project.dvc("repro", "-f", "finetune/dvc.yaml")  # and with it what makes its base
    assert {f"finetune/dvc.yaml:{stage}" for stage in STAGES} < set(ran)
    assert made(project) == before


def test_another_base_reruns_what_depends_on_it_and_nothing_else(project: Project) -> None:
    project.set("train", steps=21)
    assert project.dvc("repro") == ["train", "evaluate", "sample"]
    # the tokenizer lies in the model's folder, which has changed, though the tokenizer has not
    ran = project.dvc("repro", "finetune/dvc.yaml")
    assert [stage.partition(":")[2] for stage in ran] == ["tokenize", "train", "evaluate", "sample"]


def test_lora_is_an_experiment_away_and_peft_opens_what_it_learned(project: Project, tmp_path: Path) -> None:
    project.run("dvc", "exp", "run", "-S", "finetune/params.yaml:train.lora_rank=4", "finetune/dvc.yaml")
    model, _ = load(project.folder / "finetune/data/model")
    base, _ = load(project.folder / "data/model")
    assert all(
        name.endswith("weight") and ("attention" in name or "mlp" in name) and "norm" not in name
        for (name, ours), theirs in zip(model.named_parameters(), base.parameters(), strict=True)
        if not ours.equal(theirs)
    )
    project.run("tinygpt", "export", "peft", str(tmp_path / "adapter"), "--model", "finetune/data/model")
    assert (tmp_path / "adapter/adapter_model.safetensors").is_file()


def test_its_experiments_are_compared_as_what_they_are_and_not_as_their_base(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(project.folder)
    here = runs.of_folder(Path("finetune"))
    assert here.settings["train.init_from"] == "data/model"
    assert here.settings["base"] != runs.of_folder(Path()).settings.get("base")
    project.run(
        "dvc", "exp", "run", "-n", "slow", "-S", "finetune/params.yaml:train.learning_rate=1e-3", "finetune/dvc.yaml"
    )
    (slow,) = runs.of_experiments("slow")
    assert compare.differing([here, slow]) == {"train.learning_rate": [0.01, 0.001]}
    assert slow.bits_per_byte == read(project, "evaluation/metrics.json")["bits_per_byte"] != here.bits_per_byte
    assert [one.identity for one in compare.named("HEAD:finetune", [])] == [here.identity]
    with pytest.raises(ValueError, match=r"Commit the results of `dvc repro stages/dvc\.yaml`"):
        compare.named("HEAD:stages", [])
    assert gather(slow).evaluation == read(project, "evaluation/metrics.json")
    assert {"data/training/train.tsv", "data/samples/samples.jsonl"} <= set(gather(slow).missing)  # not its base's
    assert models.experiments() == []  # their models are not in the cache


def test_info_follows_the_base(project: Project) -> None:
    told = project.run("tinygpt", "info", "finetune/data/model", "--folder", "finetune")
    assert next(line for line in told.splitlines() if "base model" in line).count("the same") == 1


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_that_transformers_wrote_is_fine_tuned_with_its_own_tokenizer(project: Project, kind: str) -> None:
    write(project.folder / "data/theirs", kind)
    words = [
        word
        for name in ("tokenize.from", "train.init_from")
        for word in ("-S", f"finetune/params.yaml:{name}=data/theirs")
    ]
    words += ["-S", "finetune/params.yaml:model.context_length=16"]
    project.run("dvc", "exp", "run", *words, "finetune/dvc.yaml")
    theirs, tokenizer = load(project.folder / "data/theirs")
    model, kept = load(project.folder / "finetune/data/model")
    assert kept.encode(DOMAIN[:300]) == tokenizer.encode(DOMAIN[:300])
    assert (model.config.context_length, model.config.n_embd) == (16, theirs.config.n_embd)
    told = read(project, "evaluation/metrics.json")["fine_tuning"]
    assert told["its_text"]["after"] < 0.9 * told["its_text"]["before"]

"""dvc.yaml tells the truth: deps are the modules that a stage imports, outputs lie where the code puts them."""

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tinygpt import config
from tinygpt.files.paths import Paths

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))
STAGES: dict[str, dict[str, Any]] = PIPELINE["stages"]
# They validate, word and print, and can change no result: no stage depends on them.
NO_DEPENDENCY = {f"tinygpt/{name}.py" for name in ("config", "errors", "hf_errors", "console", "yaml_files")}


def declared(deps: list[str]) -> set[str]:
    """The .py files that a stage's deps name, those in the folders that they name included."""
    code = [dep for dep in deps if dep.startswith(("stages", "tinygpt"))]
    files = {file.relative_to(ROOT).as_posix() for dep in code for file in (ROOT / dep).rglob("*.py")}
    return files | {dep for dep in code if dep.endswith(".py")}


def as_file(module: str) -> str | None:
    """`tinygpt.model.gpt` → `tinygpt/model/gpt.py`, where that is ours."""
    path = Path(*module.split("."))
    found = [file for file in (path.with_suffix(".py"), path / "__init__.py") if (ROOT / file).is_file()]
    return found[0].as_posix() if found else None


def imported(file: str) -> set[str]:
    """Our files that a file imports anywhere in it, inside functions too; not those for type checkers alone."""
    names: set[str] = set()
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    never = [node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    skipped = {inner for node in never for statement in node.body for inner in ast.walk(statement)}
    for node in (node for node in ast.walk(tree) if node not in skipped):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    packages = {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 1)}
    return {file for name in names | packages if name and (file := as_file(name) or "")}


def closure(file: str) -> set[str]:
    found, waiting = {file}, [file]
    while waiting:
        new = imported(waiting.pop()) - found - NO_DEPENDENCY
        found |= new
        waiting += new
    return found


PIPELINES = {
    f"{folder}{name}": stage
    for folder in ("", "finetune/", "chat/", "scratch/")
    for name, stage in yaml.safe_load((ROOT / folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"].items()
}


def entry(stage: dict[str, Any]) -> str:
    """The module that a stage runs."""
    return str(stage["cmd"].split()[2])  # of `python -m stages.train finetune`


@pytest.mark.parametrize("stage", PIPELINES)
def test_deps_are_exactly_the_modules_that_the_stage_imports(stage: str) -> None:
    assert declared(PIPELINES[stage]["deps"]) == closure(str(as_file(entry(PIPELINES[stage]))))


@pytest.mark.parametrize("stage", PIPELINES)
def test_deps_name_a_folder_where_the_stage_uses_all_of_it(stage: str) -> None:
    deps = PIPELINES[stage]["deps"]
    files = [Path(dep) for dep in deps if dep.startswith("tinygpt/") and dep.endswith(".py")]
    used = declared(deps)
    for folder in {file.parent for file in files} - {Path("tinygpt")}:
        assert not {file.relative_to(ROOT).as_posix() for file in (ROOT / folder).rglob("*.py")} <= used, folder


@pytest.mark.parametrize("stage", PIPELINES)
def test_nothing_is_loaded_that_deps_do_not_name(stage: str) -> None:
    module = entry(PIPELINES[stage])
    loops = {f"tinygpt/generation/cpu/{name}.py" for name in ("functions", "loops", "vectors")}
    late = {  # imported where it is run, and where no compiled loops are kept
        "tinygpt.scratch.train": {"stages/__init__.py"},
        **dict.fromkeys(("stages.evaluate", "stages.sample"), loops),
    }.get(module, set())
    code = f"import {module}, sys, json; print(json.dumps(list(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {
        file for name in json.loads(run.stdout) if name.startswith(("tinygpt", "stages")) and (file := as_file(name))
    }
    assert loaded - NO_DEPENDENCY == declared(PIPELINES[stage]["deps"]) - late


@pytest.mark.parametrize("file", sorted(NO_DEPENDENCY))
def test_what_no_stage_depends_on_has_nothing_to_compute_with_and_writes_no_file(file: str) -> None:
    assert imported(file) <= NO_DEPENDENCY | {"tinygpt/__init__.py"}
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not {"torch", "np", "numpy"} & names
    assert not {"write_text", "write_bytes", "mkdir", "replace_file", "unlink"} & attributes


def test_loading_a_model_to_write_with_it_imports_no_optimizer_and_no_parquet() -> None:
    code = "import tinygpt, sys; tinygpt.load; tinygpt.generate; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "tinygpt.checkpoints.model_folder" in run.stdout.split()
    assert not [name for name in run.stdout.split() if name.startswith(("tinygpt.training", "pyarrow"))]


def test_each_stage_is_a_script_of_its_name() -> None:
    assert [stage["cmd"] for stage in STAGES.values()] == [f"python -m stages.{name}" for name in STAGES]
    assert list(STAGES) == ["download", "tokenize", "train", "evaluate", "sample"]


def test_outputs_lie_where_the_code_puts_them() -> None:
    paths = Paths()
    outs = {out for stage in STAGES.values() for out in stage["outs"]}
    metrics = {path for stage in STAGES.values() for metric in stage.get("metrics", []) for path in metric}
    assert outs == {
        *map(str, (paths.corpus, paths.tokenizer, paths.tokens, paths.model, paths.samples)),
        *(str(paths.training / name) for name in ("train.tsv", "validation.tsv", "health.tsv", "last.safetensors")),
        *(str(paths.evaluation / name) for name in ("figures", "by_position.tsv", "by_compute.tsv")),
    }
    assert metrics == {str(folder / "metrics.json") for folder in (paths.training, paths.evaluation)}


def test_params_that_change_no_result_are_tracked_by_no_stage() -> None:
    tracked = {name.split(".")[0] for stage in STAGES.values() for name in stage["params"]}
    assert tracked == set(config.Params.model_fields) - {"runtime"}


@pytest.mark.parametrize("folder", ["finetune", "chat"])
def test_a_pipeline_that_fine_tunes_names_the_modules_outputs_and_parameters_of_the_top_level(folder: str) -> None:
    for name, ours in STAGES.items():
        theirs = PIPELINES[f"{folder}/{name}"]
        code = [[dep for dep in side["deps"] if dep.startswith(("stages", "tinygpt"))] for side in (ours, theirs)]
        assert code[0] == code[1]
        assert theirs["outs"] == [{f"{folder}/{out}": {"cache": False}} for out in ours["outs"]]
        assert theirs["params"] == [{f"{folder}/params.yaml": ours["params"]}]


@pytest.mark.parametrize("folder", ["finetune", "chat"])
def test_a_pipeline_that_fine_tunes_has_the_parameters_of_the_top_level_in_their_order(folder: str) -> None:
    ours, theirs = (
        yaml.safe_load((ROOT / place / "params.yaml").read_text(encoding="utf-8")) for place in ("", folder)
    )
    assert keys(ours) == keys(theirs)
    assert (theirs["tokenize"]["from"], theirs["train"]["init_from"]) == ("data/model", "data/model")


def keys(values: Any) -> Any:
    """The names in nested dictionaries, in order."""
    return [(name, keys(value)) for name, value in values.items()] if isinstance(values, dict) else None


def test_git_ignores_what_dvc_keeps() -> None:
    outs = [
        f"{folder}{out}" for folder in ("", "finetune/", "chat/") for stage in STAGES.values() for out in stage["outs"]
    ]
    run = subprocess.run(
        ["git", "check-ignore", "--no-index", *outs], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert set(run.stdout.split()) == set(outs)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_refuses_wrong_parameters_before_any_work(stage: str, tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8").replace("  steps: ", "  stepps: ")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    command = [sys.executable, "-m", f"stages.{stage}", str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "train.stepps is not a parameter; did you mean steps?" in run.stderr
    assert "Traceback" not in run.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["params.yaml"]

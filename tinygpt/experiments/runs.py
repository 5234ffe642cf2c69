"""An evaluated run, from a folder, a git revision or a DVC experiment: its settings, seed and numbers.

`of_folder`, `of_revision` and `of_experiments` read dvc.lock, which records the parameters, text and code of each
output, and the two metrics.json; `of_results` reads a results file. Two runs with equal `settings` differ only in the
seed. compare.py compares them.
"""

import fnmatch
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from tinygpt import yaml_files
from tinygpt.experiments.git import git
from tinygpt.files.paths import Paths
from tinygpt.files.text import lines

EVALUATION, TRAINING = ((folder / "metrics.json").as_posix() for folder in (Paths().evaluation, Paths().training))
LOCK = "dvc.lock"
CODE = {"train": "all", "evaluate": "tinygpt/evaluation"}  # stage → the dependencies that can change a number
SECTIONS = {
    "tokenize": ("tokenize",),
    "train": ("model", "train"),
}  # stage → the sections of its parameters that can change a loss


@dataclass(frozen=True)
class Run:
    """One trained and evaluated model."""

    name: str
    commit: str  # of the experiment or the revision; "" for a folder
    seed: int
    settings: dict[str, Any]  # "section.key" → value; "code" and "text" → hash of the code and the corpus
    bits_per_byte: float
    loss: float  # nats per token
    tokens: int  # trained on
    flops: int
    steps: int
    parameters: int
    tasks: dict[str, float] = field(default_factory=dict)  # name → score, in [0, 1]; empty if not measured
    pipeline: str = ""  # of an experiment or a revision: the folder of its dvc.yaml, with a slash; "" for the top

    @property
    def identity(self) -> str:
        """Equal for two runs that have the same result."""
        return json.dumps([self.seed, self.settings], sort_keys=True)

    def to_json(self) -> str:
        """A line of a results file."""
        return json.dumps(asdict(self), ensure_ascii=False)


def of_results(file: Path) -> list[Run]:
    """The runs of a results file, one JSON object per line. Raises ValueError for a line that is not a run."""
    found = []
    for number, line in enumerate(lines(file.read_text(encoding="utf-8")), 1):
        try:
            found.append(Run(**json.loads(line)))
        except (ValueError, TypeError):
            raise ValueError(f"{file}, line {number} is not a run; `make ablations` writes such files.") from None
    return found


def of_folder(folder: Path) -> Run:
    """The run in a pipeline's folder. Raises FileNotFoundError if there is none."""

    def read(name: str) -> str | None:
        path = folder / name
        return path.read_bytes().decode("utf-8") if path.is_file() else None

    return _assemble(read, str(folder), "")


def of_revision(revision: str, name: str = "", pipeline: str = "") -> Run:
    """The run committed at a revision of the current git repository.

    pipeline: the folder of its dvc.yaml, with a slash at the end; "" for the top. Raises FileNotFoundError without such
    a run, and PermissionError if git refuses the repository.
    """
    commit = git("rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    if not commit:
        raise FileNotFoundError(f"git knows no revision {revision!r}.")
    place = f"{commit}:./{pipeline}"
    return _assemble(lambda path: git("show", place + path) or None, name or revision, commit, pipeline)


def of_experiments(pattern: str = "*", baseline: str = "*") -> list[Run]:
    """The DVC experiments whose names match `pattern`, e.g. `muon-*`, and whose base commits match `baseline`.

    Experiments without a complete run are skipped; one whose name equals `pattern` raises ValueError or OSError.
    """
    found = []
    for name, ref in experiment_refs(pattern, baseline):
        try:
            found.append(of_revision(ref, name, pipeline_of(ref)))
        except (ValueError, OSError):
            if name == pattern:
                raise
    return found


def pipeline_of(experiment: str) -> str:
    """The pipeline that an experiment ran, as for `of_revision`: the one whose dvc.lock it changed."""
    changed = git("diff", "--name-only", "--relative", f"{experiment}^", experiment).splitlines()
    folders = [path.removesuffix(LOCK) for path in changed if PurePosixPath(path).name == LOCK]
    return "" if not folders or "" in folders else folders[0]


def experiment_refs(pattern: str = "*", baseline: str = "*") -> list[tuple[str, str]]:
    """The same experiments as (name, git ref), the oldest first; empty without a repository."""
    found = []
    try:
        refs = git("for-each-ref", "--sort=creatordate", "--format=%(refname)", "refs/exps").splitlines()
    except FileNotFoundError:
        return []
    for ref in refs:
        _, _, *middle, name = ref.split("/")  # refs/exps/<2 digits>/<38 digits of the baseline>/<name>
        if len(middle) == 2 and fnmatch.fnmatchcase(name, pattern) and fnmatch.fnmatchcase("".join(middle), baseline):
            found.append((name, ref))
    return found


def distinct(runs: list[Run]) -> list[Run]:
    """The runs without duplicates: equal settings and seed are one run, wherever it is stored."""
    found: dict[str, Run] = {}
    for run in runs:
        found.setdefault(run.identity, run)
    return list(found.values())


def digest(files: dict[str, str]) -> str:
    """A short hash of code. files: path → MD5."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:12]


def code_here(folder: Path = Path()) -> str:
    """The `code` setting of a run that would start now in a project's folder."""
    stages = yaml.safe_load((folder / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    names = [dep for stage in CODE for dep in stages[stage]["deps"] if _counts(stage, dep)]
    return digest({name: _md5(folder / name) for name in names})


def _md5(path: Path) -> str:
    """DVC's MD5 of a file or a folder, as in dvc.lock."""
    if path.is_file():
        return hashlib.md5(path.read_bytes()).hexdigest()
    names = sorted(file.relative_to(path).as_posix() for file in path.rglob("*") if file.is_file())
    files = [{"md5": _md5(path / name), "relpath": name} for name in names if "__pycache__" not in name.split("/")]
    return hashlib.md5(json.dumps(files, sort_keys=True).encode()).hexdigest() + ".dir"


def commit_here() -> str:
    """The current commit, on which new experiments are based."""
    return git("rev-parse", "HEAD").strip()


def _assemble(read: Callable[[str], str | None], name: str, commit: str, pipeline: str = "") -> Run:
    """A run from its files. Raises ValueError for results that dvc.lock does not record."""
    texts = {path: read(path) for path in (LOCK, TRAINING, EVALUATION)}
    for path, text in texts.items():
        if text is None and not commit:
            raise FileNotFoundError(f"{name} has no {path}. Run `dvc repro` there first.")
        if text is None:
            repro = f"dvc repro {pipeline}dvc.yaml" if pipeline else "dvc repro"
            files = " ".join(pipeline + each for each in texts)
            raise FileNotFoundError(
                f"{name} has no {path}. Commit the results of `{repro}`: `git add {files} && git commit`."
            )
    try:
        stages = yaml_files.read_value(texts[LOCK] or "")["stages"]
        made = {out["path"]: out["md5"] for stage in stages.values() for out in stage.get("outs", ())}
        read_by = {
            stage: {dep["path"]: dep["md5"] for dep in stages[stage]["deps"]} for stage in (*SECTIONS, "evaluate")
        }
        prefix = next(path for path in made if path.endswith("data/model")).removesuffix("data/model")  # or "finetune/"
        parameters = {stage: stages[stage]["params"][f"{prefix}params.yaml"] for stage in SECTIONS}
        code = {path: md5 for stage in CODE for path, md5 in read_by[stage].items() if _counts(stage, path)}
        settings = flat(parameters) | {"text": made[f"{prefix}data/corpus"][:12], "code": digest(code)}
        if settings.get("train.init_from") in read_by["train"]:
            settings["base"] = read_by["train"][settings["train.init_from"]][:12]
        evaluation, training = (json.loads(texts[path] or "") for path in (EVALUATION, TRAINING))
        hashes = {path: hashlib.md5((texts[path] or "").encode()).hexdigest() for path in (EVALUATION, TRAINING)}
        behind = [stage for stage, deps in read_by.items() if any(made.get(d, md5) != md5 for d, md5 in deps.items())]
        changed = [path for path, md5 in hashes.items() if md5 != made[prefix + path]]
        run = Run(
            name=name,
            commit=commit,
            seed=parameters["train"]["seed"],
            settings=settings,
            bits_per_byte=evaluation["bits_per_byte"],
            loss=evaluation["loss"],
            tokens=training["tokens"],
            flops=training["flops"],
            steps=parameters["train"]["train"]["steps"],
            parameters=training["parameters"],
            tasks={name: task["score"] for name, task in evaluation.get("tasks", {}).items()},
            pipeline=pipeline,
        )
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise ValueError(f"{name} has no complete run in {LOCK} and its metrics. Run `dvc repro` there.") from None
    if behind:
        raise ValueError(f"{name}: `{behind[0]}` is out of date with its inputs. Run `dvc repro` there.")
    if changed:
        raise ValueError(f"{name}: {changed[0]} does not match {LOCK}. Run `dvc repro` there, or commit both.")
    return run


def check_names(evaluation: dict[str, Any], whose: str) -> None:
    """Raise ValueError for an evaluation of an earlier version, which has other names."""
    if "yardsticks" in evaluation:
        raise ValueError(
            f"{whose}: {EVALUATION} is from an earlier version of TinyGPT, which called baselines yardsticks. "
            "Run `dvc repro` there to rewrite it."
        )


def flat(parameters: dict[str, Any]) -> dict[str, Any]:
    """The stages' parameters in dvc.lock → {"section.key": value}, for those that can change a loss."""
    return {
        f"{section}.{key}": value
        for stage, sections in SECTIONS.items()
        for section in sections
        for key, value in parameters[stage][section].items()
    }


def parse(words: str) -> dict[str, Any]:
    """`train.optimizer=muon model.n_layer=3` → {key: value}, parsed like params.yaml. ValueError for anything else."""
    pairs = [word.partition("=") for word in words.split()]
    wrong = next((key + mark for key, mark, _ in pairs if not key or not mark), None)
    if wrong is not None:
        raise ValueError(f"{wrong!r} is not a setting; write section.key=value, e.g. train.optimizer=muon.")
    return {key: yaml_files.read_value(value) for key, _, value in pairs}


def _counts(stage: str, path: str) -> bool:
    """Whether a stage's dependency is code that can change a number."""
    return CODE[stage] in ("all", path) and path.split("/", maxsplit=1)[0] in ("stages", "tinygpt")

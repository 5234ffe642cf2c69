"""What is shipped, and how it feels to import: quick without torch, typed, whole, and at home outside any checkout."""

import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import get_type_hints

import pytest
import yaml

import tinygpt
from tests.conftest import ROOT

HEAVY = {"torch", "numpy", "pydantic", "psutil", "tqdm", "yaml", "jinja2", "matplotlib"}
HEAVY |= {"tiktoken", "tokenizers", "safetensors"}
SCRIPT = """
import tinygpt

model, tokenizer = tinygpt.load("model")
reveal_type(tokenizer.encode("ROMEO:"))
reveal_type(tinygpt.generate(model, tokenizer, "ROMEO:", max_new_tokens=3, temperature=0, top_k=3, stop="\\n"))
reveal_type(model.config.n_layer)
reveal_type(tinygpt.__version__)


def width(gpt: tinygpt.GPT, tokens: tinygpt.Tokenizer) -> int:
    return gpt.config.n_embd * tokens.vocab_size


width(model, tokenizer)
tinygpt.laod("model")
"""


@pytest.mark.parametrize(
    ("words", "needs"),
    [
        (["-c", "import tinygpt"], "tinygpt"),
        (["-c", "import tinygpt; dir(tinygpt); tinygpt.__version__"], "importlib.metadata"),
        (["-m", "tinygpt", "--help"], "typer"),
        (["-m", "tinygpt", "generate", "--help"], "typer"),
        (["-m", "tinygpt", "--version"], "typer"),
    ],
)
def test_importing_asking_for_help_and_for_the_version_load_nothing_heavy(words: list[str], needs: str) -> None:
    command = [sys.executable, "-X", "importtime", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert needs in loaded
    own = {"pydantic"} if "generate" in words else set()  # typer's, which reads a command's options with it
    assert ({name.partition(".")[0] for name in loaded} & HEAVY) - own == set()


def test_every_public_name_is_there_and_known_to_dir() -> None:
    assert set(tinygpt.__all__) | {"__version__", "model"} <= set(dir(tinygpt))
    assert {"Any", "importlib", "_HOMES"} & set(dir(tinygpt)) == set()
    for name in tinygpt.__all__:
        thing = getattr(tinygpt, name)
        assert thing.__name__ == name
        assert thing.__module__.startswith("tinygpt.")
        assert isinstance(thing, type) or get_type_hints(thing)
    with pytest.raises(AttributeError, match="has no attribute 'laod'"):
        _ = tinygpt.laod  # type: ignore[attr-defined]


def test_the_version_stands_in_one_place_and_papers_agree_with_it() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert tinygpt.__version__ == version
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\n## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = [file.name for file in (ROOT / "tinygpt").rglob("*.py") if f'"{version}"' in file.read_text("utf-8")]
    assert found == []


def test_the_workflow_tries_every_python_that_is_claimed_and_may_only_read() -> None:
    text = (ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    claimed = {kind.rpartition(" ")[2] for kind in project["classifiers"] if re.search(r":: 3\.\d+$", kind)}
    assert {match[1] for match in re.finditer(r'python(?:-version)?: "([\d.]+)"', text)} == claimed
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        used = [step["uses"] for step in job["steps"] if "uses" in step]
        assert used
        assert all(re.fullmatch(r"actions/[\w-]+@v\d+", action) for action in used)
        assert "permissions" not in job
    assert any(step.get("run") == "bash .ci/run" for job in workflow["jobs"].values() for step in job["steps"])
    assert "://" not in text  # no address of a registry


def tracked(folder: str = ".") -> set[str]:
    """The project's files, as git would take them."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", folder]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in names if (ROOT / name).is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist, and with the wheel made of it."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, capture_output=True, check=True, cwd=folder)
    return folder


@pytest.mark.slow
def test_the_wheel_holds_the_package_whole_and_nothing_else(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        same = [archive.read(name) == (ROOT / name).read_bytes() for name in names]
    assert names == tracked("tinygpt")
    assert all(same)
    assert {
        "tinygpt/py.typed",
        "tinygpt/report/macros.html",
        "tinygpt/report/report.html",
        "tinygpt/web/static/page.css",
        "tinygpt/scratch/gpt.py",
    } <= names
    assert any(name.startswith("tinygpt/exercises/lesson_") for name in names)


@pytest.mark.slow
def test_the_sdist_holds_the_project_without_what_it_made(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    left_out = ("data/", ".ci/", ".github/", ".dvc/", ".dvcignore", "dvc.lock")
    assert names == {name for name in tracked() if not name.startswith(left_out)}
    assert {"tests/model/test_gpt.py", "params.yaml", "LICENSE", "CHANGELOG.md"} <= names


@pytest.fixture(scope="module")
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The `bin` of an environment in which the wheel is installed; what it depends on is lent by this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (wheel,) = built.glob("*.whl")
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(folder), *install], check=True, capture_output=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder / "bin"


def run(*command: object, cwd: Path, code: int = 0) -> str:
    """What a command prints, in a folder of no project and with nothing of this one in its path."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "DVC_ROOT")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_an_installed_wheel_is_at_home_outside_any_checkout(
    installed: Path, model_folder: Path, tmp_path: Path
) -> None:
    where = run(installed / "python", "-c", "import tinygpt; print(tinygpt.__file__)", cwd=tmp_path)
    assert where.startswith(str(installed.parent))
    assert run(installed / "tinygpt", "--version", cwd=tmp_path) == f"tinygpt {tinygpt.__version__}\n"
    assert "generate" in run(installed / "tinygpt", "--help", cwd=tmp_path)
    words = ["generate", "ROMEO:", "--max-new-tokens", "9"]
    written = run(installed / "tinygpt", *words, "--model", model_folder, cwd=tmp_path)
    assert written.startswith("ROMEO:")
    code = "import sys; from tinygpt import generate, load; model, tokenizer = load(sys.argv[1]); "
    code += "print(generate(model, tokenizer, 'ROMEO:', max_new_tokens=9)[0].text)"
    assert run(installed / "python", "-c", code, model_folder, cwd=tmp_path) == written
    assert "SURPRISAL" in run(installed / "tinygpt", "inspect", "O Romeo", "--model", model_folder, cwd=tmp_path)
    assert "exercises/01" in run(installed / "tinygpt", "exercise", "1", cwd=tmp_path)
    assert "There is no model in data/model" in run(installed / "tinygpt", "generate", "x", cwd=tmp_path, code=1)


@pytest.mark.slow
def test_a_script_that_uses_it_passes_mypy_strict_and_a_wrong_name_does_not(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT, encoding="utf-8")
    command = ["-m", "mypy", "--strict", "--python-executable", installed / "python", "--cache-dir", tmp_path / "cache"]
    told = run(sys.executable, *command, "script.py", cwd=tmp_path, code=1).splitlines()
    notes = [line.partition("note: ")[2] for line in told if "note: " in line]
    assert notes == [
        'Revealed type is "list[int]"',
        'Revealed type is "list[tinygpt.generation.generate.Completion]"',
        'Revealed type is "int"',
        'Revealed type is "str"',
    ]
    assert [line.partition("error: ")[2] for line in told if "error: " in line] == [
        'Module has no attribute "laod"  [attr-defined]'
    ]

"""A copy of the project, small, in a git repository of its own, for tests that run it under DVC."""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.conftest import ROOT, TEXT

# fp32, so that the tests see the same numbers on every machine: `auto` is bf16 where the hardware multiplies it
SMALL = {
    "download": {"source": "files"},
    "tokenize": {"vocab_size": 300},
    "model": {"n_layer": 1, "n_head": 2, "n_embd": 32, "context_length": 32},
    "train": {
        "steps": 20,
        "batch_size": 4,
        "warmup_steps": 2,
        "eval_every": 10,
        "eval_tokens": 512,
        "precision": "fp32",
    },
    "sample": {"prompts": ["ROMEO:"], "num_samples": 1, "max_new_tokens": 12},
    "runtime": {"checkpoint_every": 4},
}


PIPELINES = ("", "finetune/", "chat/", "scratch/")
OUTPUTS = tuple(f"{pipeline}data/" for pipeline in PIPELINES)
STAGES = ["download", "tokenize", "train", "evaluate", "sample"]


class Project:
    """A copy of this project in a repository of its own, with small parameters and a text in data/own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines():
            made = name.startswith(OUTPUTS) and not name.startswith("data/own")
            if (ROOT / name).is_file() and not made and not name.endswith("dvc.lock"):
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes((ROOT / name).read_bytes())
        for file in (folder / pipeline / "params.yaml" for pipeline in PIPELINES):
            values = yaml.safe_load(file.read_text(encoding="utf-8"))
            for section, changes in SMALL.items():
                values[section].update(changes)
            file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        (folder / "data/own/book.txt").write_text(TEXT, encoding="utf-8")
        for name in (".dvc/plots.html", ".dvc/config.local"):  # made by `make`
            shutil.copy(ROOT / name, folder / name)
        self.run("git", "init", "-q", "-b", "main")
        self.run("git", "config", "user.email", "test@example.org")
        self.run("git", "config", "user.name", "test")
        self.commit()

    @classmethod
    def at(cls, folder: Path) -> "Project":
        """The project that already lies in a folder: a copy, or a clone."""
        project = cls.__new__(cls)
        project.folder = folder
        return project

    def commit(self) -> None:
        self.run("git", "add", "-A")
        self.run("git", "commit", "-q", "-m", "x")

    def run(self, *command: str, code: int = 0) -> str:
        """What a command prints, on both streams; fails where its exit status is not `code`.

        It prints to files: DVC's workers live on, and a pipe that they hold would be waited for until they end.
        """
        env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC", "GIT_"))}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            done = subprocess.run(command, cwd=self.folder, env=env, stdout=out, stderr=err, check=False)
            out.seek(0)
            err.seek(0)
            printed = (out.read() + err.read()).decode()
        assert done.returncode == code, printed
        return printed

    def end_workers(self) -> None:
        """Kill its queue's workers and what they run: of two, one may wait for ever for a word that the other cleaned
        away when it ended.
        """
        for worker in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if "queue-worker" in worker.cmdline() and Path(worker.cwd()).is_relative_to(self.folder):
                    family = [worker, *worker.children(recursive=True)]
                    for process in family:
                        process.kill()
                    psutil.wait_procs(family, timeout=10)
        for lock in (self.folder / ".git/refs").rglob("*.lock"):  # of a reference that a killed one was writing
            lock.unlink(missing_ok=True)

    def dvc(self, *words: str, code: int = 0) -> list[str]:
        """The stages that a dvc command ran, in the order of the pipeline; where two could be next DVC takes either."""
        printed = self.run("dvc", *words, code=code)
        lines = printed.replace("Running stage ", "\nRunning stage ").splitlines()
        ran = [line.split("'")[1] for line in lines if line.startswith("Running stage")]
        return sorted(ran, key=lambda stage: STAGES.index(stage.rpartition(":")[2]))

    def results(self) -> dict[str, bytes]:
        """Every byte that the pipeline made, and the lock."""
        data = [file for file in (self.folder / "data").rglob("*") if file.is_file() and ".git" not in file.name]
        return {str(file.relative_to(self.folder)): file.read_bytes() for file in [*data, self.folder / "dvc.lock"]}

    def set(self, section: str, **values: Any) -> None:
        """Change values of a section of params.yaml."""
        file = self.folder / "params.yaml"
        params = yaml.safe_load(file.read_text(encoding="utf-8"))
        params[section].update(values)
        # the comment gives the file another size: git may overlook a change that keeps size and time
        file.write_text(yaml.safe_dump(params, sort_keys=False) + "# changed by a test\n", encoding="utf-8")

    def restore(self) -> None:
        """Put back what was committed; forget runs in progress, and the done ones that DVC would take results from."""
        self.end_workers()
        self.run("git", "checkout", "-q", "-f", "main")
        self.run("git", "clean", "-q", "-f", "-d")
        self.run("dvc", "checkout", "-q", "--force")
        for forgotten in (".tinygpt/runs", ".dvc/cache/runs"):
            shutil.rmtree(self.folder / forgotten, ignore_errors=True)

    def forget_experiments(self) -> None:
        """So that no test finds another's."""
        for ref in self.run("git", "for-each-ref", "--format=%(refname)", "refs/exps").split():
            self.run("git", "update-ref", "-d", ref)


if __name__ == "__main__":  # python -m tests.project FOLDER: one to try things in
    made = Path(sys.argv[1]).resolve()
    made.mkdir(parents=True)
    project = Project(made)
    project.dvc("repro")
    project.commit()

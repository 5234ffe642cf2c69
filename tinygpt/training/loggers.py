"""Experiment loggers (`runtime.logger`): wandb.

`check(name)` before any work; then `with opened(name, fingerprint, metadata, warn) as logger:` and `logger.note(state)`
after each step. A logger changes no result: it reads the curves and writes none; where it fails, at any moment, that is
said once, and training goes on without it. Nothing leaves the machine unless its user has set wandb up, with
`wandb login` or WANDB_MODE=online; until then all is written to .tinygpt/wandb. Left out: the text, the weights, and
what wandb collects of itself: code, git, the machine and its load.
"""

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any

from tinygpt.files.paths import hidden
from tinygpt.training.state import State

Warn = Callable[[str], object]


class Silent:
    """A logger that does nothing."""

    def note(self, state: State) -> None:
        """Take the newest rows of the run's curves."""

    def close(self, code: int) -> None:
        """End the run with this exit status."""


class Wandb(Silent):
    """Rows go to a run of wandb's that is named by the fingerprint, so that a training that goes on goes on there."""

    def __init__(self, fingerprint: str, metadata: dict[str, Any], warn: Warn) -> None:
        self.warn, self.run = warn, None
        with self.harmless():
            self.run = start(fingerprint, metadata, warn)

    def note(self, state: State) -> None:
        curves = {"train": state.train_rows, "validation": state.validation_rows, "health": state.health_rows}
        for step in (0, 1) if state.step == 1 else (state.step,):  # step 0: the validation loss before any learning
            new = {name: row for name, rows in curves.items() for row in rows[-2:] if row["step"] == step}
            values = {
                f"{name}/{key}": value for name, row in new.items() for key, value in row.items() if key != "step"
            }
            with self.harmless():
                if self.run is not None:
                    self.run.log({"step": step, **values})

    def close(self, code: int) -> None:
        with self.harmless():
            if self.run is not None:
                self.run.finish(exit_code=code)

    @contextlib.contextmanager
    def harmless(self) -> Iterator[None]:
        """Whatever goes wrong in the block is told, and is the last that is heard of the logger."""
        try:
            yield
        except Exception as problem:  # whatever a logger raises, it must not end a training
            self.run = None
            why = " ".join(str(problem).split())[:200]
            self.warn(f"runtime.logger: wandb failed ({type(problem).__name__}: {why}); training goes on without it")


def start(fingerprint: str, metadata: dict[str, Any], warn: Warn) -> Any:
    """Begin a run of wandb's, or go on with it; offline where nobody has logged in, and never asking to."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # or the package would report its own mishaps
    import wandb

    mode: Any = None if os.environ.get("WANDB_MODE") or wandb.login(prompt=False) else "offline"
    if mode:
        warn(
            f"runtime.logger: nobody is logged in to wandb, so it writes to {hidden('wandb')}; `wandb sync` sends that"
        )
    hidden("wandb").mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {"console": "off", "silent": True, "init_timeout": 30}
    settings |= dict.fromkeys(("disable_git", "disable_code", "x_disable_stats", "x_disable_meta"), True)
    run = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "tinygpt"),
        id=fingerprint,
        resume="allow",
        dir=hidden("wandb").parent,
        mode=mode,
        config=metadata,
        settings=wandb.Settings(**settings),
    )
    run.define_metric("*", step_metric="step")  # steps taken again after a kill give the same values, at the same place
    return run


def check(name: str | None) -> None:
    """ValueError, with the next step, for a logger that is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ValueError(
            f"runtime.logger is {name}, which is not installed. Run `pip install -c requirements.lock -e '.[{name}]'`, "
            "or set runtime.logger to null."
        )


@contextlib.contextmanager
def opened(name: str | None, fingerprint: str, metadata: dict[str, Any], warn: Warn) -> Iterator[Silent]:
    """The logger of this name, None being none; closed with the block. metadata: what it should know of the run."""
    logger = Silent() if name is None else Wandb(fingerprint, metadata, warn)
    code = 1
    try:
        yield logger
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
        raise
    finally:
        logger.close(code)

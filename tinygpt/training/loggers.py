"""Experiment loggers (`runtime.logger`): wandb.

`check(name)` before any work; then `with opened(name, fingerprint, metadata, warn) as logger:` and `logger.note(state)`
after each step. A logger only reads the curves, so it changes no result; if it fails, that is reported once and
training continues without it. Nothing is uploaded unless the user has run `wandb login` or set WANDB_MODE=online; else
everything is written to .tinygpt/wandb. Left out: the text, the weights, and wandb's own data on code, git and machine.
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
        """Log the newest rows of the run's curves."""

    def close(self, code: int) -> None:
        """End the run with this exit status."""


class Wandb(Silent):
    """Logs to a wandb run whose id is the fingerprint, so that a resumed training continues it."""

    def __init__(self, fingerprint: str, metadata: dict[str, Any], warn: Warn) -> None:
        self.warn, self.run = warn, None
        with self.harmless():
            self.run = start(fingerprint, metadata, warn)

    def note(self, state: State) -> None:
        curves = {"train": state.train_rows, "validation": state.validation_rows, "health": state.health_rows}
        for step in (0, 1) if state.step == 1 else (state.step,):  # step 0: the first validation loss
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
        """Report any exception of the block, and log nothing more."""
        try:
            yield
        except Exception as problem:  # no failure of a logger may end the training
            self.run = None
            why = " ".join(str(problem).split())[:200]
            self.warn(f"runtime.logger: wandb failed ({type(problem).__name__}: {why}); training goes on without it")


def start(fingerprint: str, metadata: dict[str, Any], warn: Warn) -> Any:
    """Start or resume a wandb run; offline if nobody is logged in, without asking for a login."""
    os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # wandb would upload its own errors
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
    run.define_metric("*", step_metric="step")  # steps repeated after a kill give the same values
    return run


def check(name: str | None) -> None:
    """ValueError, which says how to install it, for a logger that is not installed."""
    if name is not None and importlib.util.find_spec(name) is None:
        raise ValueError(
            f"runtime.logger is {name}, which is not installed. Run `pip install -c requirements.lock -e '.[{name}]'`, "
            "or set runtime.logger to null."
        )


@contextlib.contextmanager
def opened(name: str | None, fingerprint: str, metadata: dict[str, Any], warn: Warn) -> Iterator[Silent]:
    """The logger of this name, which the end of the block closes. name: None for no logger. metadata: of the run."""
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

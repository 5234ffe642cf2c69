"""The five scripts of the pipeline, in order: download, tokenize, train, evaluate, sample.

`dvc repro` runs them; by hand: `python -m stages.train [folder]`, where folder contains another pipeline's params.yaml.
`run` validates the parameters before any work and prints expected errors as sentences.
"""

import signal
import sys
from collections.abc import Callable
from pathlib import Path

from tinygpt import config, console
from tinygpt.errors import explain
from tinygpt.files.paths import Paths

Stage = Callable[[config.Params, Paths], None]


def run(stage: Stage) -> None:
    """Run a stage on the pipeline named on the command line; an expected error prints a sentence and exits with 1."""
    paths = Paths(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    try:
        with console.prepared(ignore_write_errors=True):
            stage(config.load(paths.params), paths)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        text = explain(problem)
        if text is None:
            raise  # unexpected: show the traceback
        sys.exit(f"\n{Path(sys.argv[0]).stem}: {text}")

"""The five scripts of the pipeline, in order: download, tokenize, train, evaluate, sample.

Each is run by `dvc repro`, or by hand as `python -m stages.train [folder]`, where folder holds another pipeline's
params.yaml. Here is what they share: parameters checked before any work, problems told as sentences, progress bars.
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
    """Run a stage on the pipeline that the command line names; leave with a sentence and code 1 where it cannot."""
    paths = Paths(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
    try:
        with console.prepared(ignore_write_errors=True):
            stage(config.load(paths.params), paths)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        text = explain(problem)
        if text is None:
            raise  # not foreseen: whoever mends it wants the traceback
        sys.exit(f"\n{Path(sys.argv[0]).stem}: {text}")

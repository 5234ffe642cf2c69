"""Train a GPT on the tokens → data/model (the weights with the lowest validation loss), data/training (the curves and
the weights after the last step).

A killed or interrupted run resumes when started again, and gives the same bytes: its checkpoints are in .tinygpt/runs,
which DVC does not clear. Under torchrun, several processes train together and the first one writes.
"""

import contextlib
from functools import partial

from stages import run
from tinygpt.config import Params
from tinygpt.files.paths import Paths, hidden
from tinygpt.training import distributed, loggers
from tinygpt.training.run import announce, prepare, resume, save, start, train
from tinygpt.training.run_folder import RunFolder, fingerprint

tell = partial(print, flush=True)


def main(params: Params, paths: Paths) -> None:
    prepared, first = prepare(params, paths), distributed.is_first()
    saves = RunFolder(hidden("runs") / fingerprint(prepared.lineage, prepared.machine), params.runtime.keep)
    logger_name = params.runtime.logger if first else None
    with (
        saves if first else contextlib.nullcontext(),
        loggers.opened(logger_name, saves.folder.name, prepared.tracked, tell) as logger,
    ):
        state = start(prepared)
        resume(saves, state, tell)
        for line in announce(prepared, state):
            tell(line)
        train(prepared, state, saves, logger.note, tell)
        if first:
            save(prepared, state)
            saves.finish()
    print(
        f"best validation loss {state.best_loss:.4f} nats per token, at step {state.best_step} of {params.train.steps}"
    )


if __name__ == "__main__":
    with distributed.joined():
        run(main)

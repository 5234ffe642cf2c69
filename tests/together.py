"""Small trainings for test_distributed.py: alone, or as `torchrun -m tests.together <folder>`, where each process
writes what it ended with."""

import copy
import json
import math
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.small_training import Data, advance, batch, settings, start
from tinygpt.data.dataset import TokenDataset, open_tokens
from tinygpt.training import distributed
from tinygpt.training.loop import DivergedError, train, train_step
from tinygpt.training.passes import Passes
from tinygpt.training.state import State, weights

CASES: dict[str, dict[str, Any]] = {
    "muon": {"batch_size": 6, "eval_tokens": 320},  # four batches of validation windows, the last one short
    "adamw, accumulated": {"optimizer": "adamw", "batch_size": 6, "accumulation": 4, "gradient_clip": 0.1},
    "one sequence each": {"batch_size": 1, "accumulation": 3},
}


def trained(data: Data, case: str, stop: int = 6) -> State:
    """A training of six steps; with `stop`, one that was stopped there and resumed."""
    chosen = settings(**CASES[case])
    state = start(data, chosen)
    advance(train(state, chosen, data, 3, "fp32"), stop)
    if stop < 6:
        kept = state.tensors(), copy.deepcopy(state.metadata())
        state = start(data, chosen)
        state.restore(*kept)
        advance(train(state, chosen, data, 3, "fp32"), 6 - stop)
    return state


def diverged(data: Data) -> str:
    """What a process is told where only the last one's weights are spoilt."""
    state = start(data, settings())
    if distributed.rank() == distributed.size() - 1:
        with torch.no_grad():
            state.model.norm.weight[0] = math.inf
    try:
        train_step(state, Passes(state, "fp32"), batch(data, 4), settings())
    except DivergedError as problem:
        return str(problem)
    return "nothing"


def main(folder: Path) -> None:
    with distributed.joined():
        data = {split: TokenDataset(open_tokens(folder / f"{split}.npy"), 16) for split in ("train", "validation")}
        metadata: dict[str, Any] = {}
        for case in CASES:
            state = trained(data, case)
            metadata[case] = {"rows": state.train_rows, "looks": state.validation_rows}
            save_file(weights(state.model), folder / f"{case} {distributed.rank()}")
        save_file(weights(trained(data, "muon", stop=3).model), folder / f"resumed {distributed.rank()}")
        advance(train(start(data, settings(batch_size=3), dropout=0.1), settings(batch_size=3), data, 3, "fp32"), 6)
        metadata["seed"] = torch.initial_seed()
        metadata["diverged"] = diverged(data)
        (folder / f"metadata {distributed.rank()}").write_text(json.dumps(metadata), encoding="utf-8")
        print("the first process prints")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

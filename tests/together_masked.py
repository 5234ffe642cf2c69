"""Small trainings on conversations for test_masked_training.py: alone, or as `torchrun -m tests.together_masked
<folder>`, where each process writes what it ended with."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.conftest import CPU, gpt, params
from tests.small_conversations import drawn, packed, tokenizer
from tests.small_training import advance
from tinygpt.data.dataset import Batch, Examples
from tinygpt.model.loss import IGNORED
from tinygpt.training import distributed
from tinygpt.training.loop import train
from tinygpt.training.passes import Passes
from tinygpt.training.state import State, initial_state, weights

CONTEXT, STEPS = 64, 6
CASES: dict[str, dict[str, Any]] = {
    "muon": {"batch_size": 4},
    "adamw, accumulated": {"optimizer": "adamw", "batch_size": 2, "accumulation": 3, "gradient_clip": 0.1},
    "one sequence at a time": {"batch_size": 1, "accumulation": 2, "average": 0.5},
    "lora": {"batch_size": 2, "lora_rank": 2, "init_from": "base"},
    "documents see each other": {"batch_size": 2, "document_mask": False},
}


def settings(**changes: Any) -> Any:
    changes = {"eval_tokens": 10 * CONTEXT} | changes
    return params(model__context_length=CONTEXT, **{f"train__{key}": value for key, value in changes.items()}).train


def data() -> dict[str, Examples]:
    """Conversations, of which some are longer than the context."""
    return {"train": packed(drawn(60, seed=1, turns=6, words=4), CONTEXT), "validation": packed(drawn(20, 2), CONTEXT)}


def start(chosen: Any, **shape: Any) -> State:
    """A model before its first step, with weights that are not those of `initialise`."""
    base = gpt(tokenizer().vocab_size, context_length=CONTEXT, **shape)
    return initial_state(base.config, chosen, 3, CPU, "fp32", base.state_dict())


def steps(state: State, chosen: Any, count: int) -> None:
    separator = tokenizer().end_of_text if chosen.document_mask else None
    advance(train(state, chosen, data(), 3, "fp32", separator), count)


def trained(case: str, stop: int = STEPS) -> State:
    """A training of six steps; with `stop`, one that was stopped there and resumed."""
    chosen = settings(**CASES[case])
    state = start(chosen)
    steps(state, chosen, stop)
    if stop < STEPS:
        kept = state.tensors(), copy.deepcopy(state.metadata())
        state = start(chosen)
        state.check(*kept)
        state.restore(*kept)
        steps(state, chosen, STEPS - stop)
    return state


def uneven() -> Batch:
    """Four rows, of which the first counts in full, the second by one token, and the others not at all."""
    inputs, targets = packed(drawn(20, seed=5), CONTEXT).__getitems__([0, 1, 2, 3])
    counted = (targets[1] != IGNORED).nonzero().flatten()
    targets[1, counted[1:]] = IGNORED
    targets[2:] = IGNORED
    return inputs, targets


def gradients(batch: Batch, at_once: int, chosen: Any | None = None) -> tuple[float, list[torch.Tensor]]:
    """The loss of a batch, and its gradient: the tensors of the parameters that learn."""
    state = start(chosen or settings())
    state.optimizers.zero_grad()
    loss, _ = Passes(state, "fp32", tokenizer().end_of_text).accumulate(batch, at_once)
    found = [parameter.grad for parameter in state.parameters.values() if parameter.requires_grad]
    return float(loss), [gradient for gradient in found if gradient is not None]


def main(folder: Path) -> None:
    with distributed.joined():
        rank, metadata = distributed.rank(), dict[str, Any]()
        for case in CASES:
            state = trained(case)
            metadata[case] = {"rows": state.train_rows, "validations": state.validation_rows}
            save_file(weights(state.model), folder / f"{case} {rank}")
        loss, found = gradients((uneven()[0][rank::2], uneven()[1][rank::2]), 1)
        metadata["uneven"] = loss
        save_file({f"{i}": gradient for i, gradient in enumerate(found)}, folder / f"uneven {rank}")
        (folder / f"metadata {rank}").write_text(json.dumps(metadata), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

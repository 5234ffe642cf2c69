"""A reference's loss on the whole held-out text, in bits per byte: `python reference_loss.py nanogpt TEXT`.

benchmark/references.py runs this inside a copy of the reference, whose modules it imports; TinyGPT is not imported.
Windows of the model's context are adjacent, as in TinyGPT's evaluation, so that every token is predicted once.
"""

import importlib
import json
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def nanogpt(held_out: str) -> tuple[list[int], int, Callable[[Tensor, Tensor], float]]:
    """(ids, context length, function from inputs and targets to summed nats) of the checkpoint written by train.py."""
    module = importlib.import_module("model")
    saved = torch.load("out-shakespeare-char/ckpt.pt", map_location="cpu")
    model = module.GPT(module.GPTConfig(**saved["model_args"])).eval()
    weights = {name.removeprefix("_orig_mod."): weight for name, weight in saved["model"].items()}  # where compiled
    model.load_state_dict(weights)
    characters = sorted(set(Path("data/shakespeare_char/input.txt").read_text(encoding="utf-8")))
    ids = {character: i for i, character in enumerate(characters)}
    count = saved["model_args"]["block_size"]
    return [ids[character] for character in held_out], count, lambda x, y: model(x, y)[1].item() * y.numel()


def nanochat(held_out: str) -> tuple[list[int], int, Callable[[Tensor, Tensor], float]]:
    """The same for the last checkpoint of scripts.base_train; the text follows <|bos|>."""
    manager: Any = importlib.import_module("nanochat.checkpoint_manager")
    folder = Path(os.environ["NANOCHAT_BASE_DIR"]) / "base_checkpoints/d4"
    step = manager.find_last_step(str(folder))
    model, tokenizer, metadata = manager.build_model(str(folder), step, torch.device("cpu"), "eval")
    ids = [tokenizer.get_bos_token_id(), *tokenizer.encode(held_out)]
    return ids, metadata["model_config"]["sequence_len"], lambda x, y: model(x, y, loss_reduction="sum").item()


@torch.no_grad()
def summed_nats(ids: list[int], context: int, nats: Callable[[Tensor, Tensor], float]) -> float:
    """The summed loss of every id except the first, over adjacent windows; the last may be shorter."""
    inputs, targets = torch.tensor(ids[:-1]), torch.tensor(ids[1:])
    return sum(nats(x[None], y[None]) for x, y in zip(inputs.split(context), targets.split(context), strict=True))


def main(reference: str, text: Path) -> None:
    whole = text.read_text(encoding="utf-8")
    held_out = whole[int(len(whole) * 0.9) :]
    ids, context, nats = {"nanogpt": nanogpt, "nanochat": nanochat}[reference](held_out)
    missed = len(held_out[0].encode()) if reference == "nanogpt" else 0  # the first character is not predicted
    bits = summed_nats(ids, context, nats) / math.log(2)
    print(json.dumps(bits / (len(held_out.encode()) - missed)))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

"""One system in `benchmark.beside`: reads tasks as lines of JSON, answers each with its tokens a second.

`python -m benchmark.worker nanoGPT FOLDER cpu`, where FOLDER holds the models that `write_model` wrote and a copy
of nanoGPT. A task is made ready and warmed up when it is first asked for, and kept. Training takes a fixed batch of
random tokens, so that only the step counts; decoding takes a prompt of one token to the end of the context.
"""

import importlib
import io
import itertools
import json
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch

from benchmark.common import parameters
from tinygpt import config
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.data.dataset import Batch
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.training import compilation
from tinygpt.training.loop import train_step
from tinygpt.training.passes import Passes
from tinygpt.training.state import initial_state

Task = tuple[
    str, str, str, str | int
]  # train | decode, a size, gpt2 | qwen3, precision of training or sequences at once
Ready = Callable[[], int]  # does one piece of the task, and says how many tokens that was

SMALL, LARGE = {"n_layer": 4, "n_head": 4, "n_embd": 128}, {"n_layer": 6, "n_head": 6, "n_embd": 384}
SIZES: dict[str, dict[str, int]] = {  # by parameters; the first two are trained, the others decode
    "0.8M": SMALL | {"context_length": 64, "vocab_size": 65},
    "10.7M": LARGE | {"context_length": 256, "vocab_size": 65},
    "0.9M": SMALL | {"context_length": 128, "vocab_size": 512},
    "10.9M": LARGE | {"context_length": 256, "vocab_size": 512},
}
BATCHES = {"0.8M": 12, "10.7M": 16}  # sequences in a training step
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3": {"model.qk_norm": True},  # the default shape
    "gpt2": {
        "model.norm": "layernorm",
        "model.position": "learned",
        "model.mlp": "gelu",  # by tanh, as transformers and llama.cpp have it
        "model.qk_norm": False,
        "model.bias": True,
        "model.tie_embeddings": True,
    },
}
TRAINING = {"train.optimizer": "adamw", "train.learning_rate": 1e-3, "train.steps": 1_000_000}
WARMING = 3  # times that a piece is done on a GPU before it counts: training is compiled first, then recorded
LOGGED = 10  # steps between two of nanoGPT's logged losses, for which it waits for a GPU (ours does each step)
SECONDS = 1.5  # that a piece is repeated for, at least


def configured(shape: str, size: str, changes: dict[str, Any] | None = None) -> tuple[GPTConfig, config.Train]:
    """Our model's configuration and how it is trained."""
    sizes = {f"model.{name}": value for name, value in SIZES[size].items() if name != "vocab_size"}
    params = config.check(parameters(SHAPES[shape] | sizes | TRAINING | (changes or {})))
    return GPTConfig(vocab_size=SIZES[size]["vocab_size"], **params.model.model_dump()), params.train


def write_model(folder: Path, shape: str, size: str) -> None:
    """A model folder with random weights, as transformers opens it too."""
    tokenizer = CharTokenizer((chr(0x4E00 + i) for i in range(SIZES[size]["vocab_size"] - 1)), "error")  # any will do
    model_config, _ = configured(shape, size)
    torch.manual_seed(1)
    weights = {name: torch.randn(weight.shape) * 0.02 for name, weight in GPT(model_config).named_parameters()}
    save_model(folder, model_config, weights, tokenizer, {"tokenizer": "any", "text": {}, "params": "random"})


class TinyGPT:
    """Ours: the step of tinygpt.training.loop, and tinygpt.generation.generate."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        hardware.make_deterministic()  # as every stage does

    def train(self, size: str, precision: str) -> Ready:
        hardware.keep_freed_memory()  # as stages/train.py does
        recipe = {"model.bias": False, "model.mlp": "gelu_exact", "train.batch_size": BATCHES[size]}  # as nanoGPT's
        model_config, settings = configured("gpt2", size, recipe)
        state = initial_state(model_config, settings, 1, self.device, precision)
        if self.device.type == "cuda":
            compilation.compile_blocks(state.model)
        x, y = batch(size, self.device)
        passes = Passes(state, precision)

        def step() -> int:
            train_step(state, passes, (x, y), settings)
            return x.numel()

        return step

    def decode(self, shape: str, size: str, sequences: int) -> Ready:
        model, _ = load(self.folder / f"{shape}-{size}", self.device)
        count, greedy = model.config.context_length - 1, [Sampling(temperature=0.0)] * sequences

        def piece() -> int:
            prompts, seeds = [[1]] * sequences, list(range(sequences))
            steps = generate_ids(model, prompts, greedy, seeds, count, end_of_text=-1)  # none ends it
            return sum(len(step) for step in steps)

        return piece


class NanoGPT:
    """nanoGPT's model, optimizer and `generate`; its step is the one of its train.py, in fp32 on a CPU, as there."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        sys.path.insert(0, str(folder / "nanoGPT"))
        self.module: Any = importlib.import_module("model")
        self.device = device
        torch.backends.cuda.matmul.allow_tf32 = True  # as its train.py
        torch.backends.cudnn.allow_tf32 = True

    def build(self, size: str, bias: bool) -> Any:
        sizes = dict(SIZES[size])
        shape = self.module.GPTConfig(block_size=sizes.pop("context_length"), bias=bias, **sizes)
        return self.module.GPT(shape).to(self.device)

    def train(self, size: str, precision: str) -> Ready:
        on_gpu = self.device.type == "cuda"
        model = self.build(size, bias=False)
        optimizer = model.configure_optimizers(0.1, 1e-3, (0.9, 0.99), self.device.type)
        run = torch.compile(model) if on_gpu else model
        x, y = batch(size, self.device)
        steps = itertools.count()

        def step() -> int:
            with hardware.autocast(self.device, precision if on_gpu else "fp32"):
                _, loss = run(x, y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if next(steps) % LOGGED == 0:
                loss.item()
            return x.numel()

        return step

    def decode(self, shape: str, size: str, sequences: int) -> Ready:
        model = self.build(size, bias=True).eval()
        prompt = torch.ones(sequences, 1, dtype=torch.long, device=self.device)
        count = SIZES[size]["context_length"] - 1

        def piece() -> int:
            return sequences * (model.generate(prompt, count).shape[1] - 1)

        return piece


class Transformers:
    """`generate` of transformers, with its cache, on our model folder."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device

    def decode(self, shape: str, size: str, sequences: int) -> Ready:
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        quiet: Any = logging.disable_progress_bar
        quiet()
        folder = self.folder / f"{shape}-{size}"
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        model.to(self.device).eval()
        model.generation_config.eos_token_id = None  # go on to the end of the context
        prompt = torch.ones(sequences, 1, dtype=torch.long, device=self.device)
        count = SIZES[size]["context_length"] - 1
        words = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "do_sample": False, "use_cache": True}

        def piece() -> int:
            return sequences * (model.generate(prompt, max_new_tokens=count, **words).shape[1] - 1)

        return piece


def batch(size: str, device: torch.device) -> Batch:
    """Random tokens to train on, always the same: inputs and targets, int64 (B, T)."""
    shape = (BATCHES[size], SIZES[size]["context_length"] + 1)
    tokens = torch.randint(SIZES[size]["vocab_size"], shape, generator=torch.Generator().manual_seed(1)).to(device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def speed(piece: Ready, device: torch.device) -> float:
    """Tokens a second, over as many pieces as fill SECONDS, to the end of the last one."""
    begin, tokens = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        tokens += piece()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - begin)


def main(system: str, folder: Path, device: torch.device) -> None:
    kinds: dict[str, Any] = {"TinyGPT": TinyGPT, "nanoGPT": NanoGPT, "transformers": Transformers}
    answers, sys.stdout = sys.stdout, io.StringIO()  # what the references print is no answer
    worker = kinds[system](folder, device)

    @cache
    def ready(kind: str, size: str, shape: str, detail: str | int) -> Ready:
        piece = worker.train(size, detail) if kind == "train" else worker.decode(shape, size, detail)
        for _ in range(WARMING if device.type == "cuda" else 1):
            piece()
        return cast(Ready, piece)

    for line in sys.stdin:
        print(speed(ready(*json.loads(line)), device), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), torch.device(sys.argv[3]))

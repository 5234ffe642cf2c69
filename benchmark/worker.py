"""Measure one system for `benchmark.beside`: reads tasks as lines of JSON, prints tokens per second of each.

`python -m benchmark.worker nanoGPT FOLDER cpu`, where FOLDER contains the models of `write_model` and a copy of
nanoGPT. A task is prepared and warmed up once, and kept. Training uses a fixed batch of random tokens, so that only the
step is timed; decoding continues a prompt of one token to the end of the context.
"""

import importlib
import io
import itertools
import json
import os
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, cast

import torch

from benchmark.common import parameters
from tinygpt import config
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.data.dataset import Batch
from tinygpt.export import gguf
from tinygpt.generation.generate import generate_ids
from tinygpt.generation.sampling import Sampling
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT, GPTConfig
from tinygpt.model.quantization import WeightType
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.training import compilation
from tinygpt.training.loop import train_step
from tinygpt.training.passes import Passes
from tinygpt.training.state import initial_state

Task = tuple[
    str, str, str, str | int
]  # train | decode, a size, gpt2 | qwen3, precision of training or sequences at once
Ready = Callable[[], int]  # does one unit of the task (a step, or one decoding), and returns its number of tokens

SMALL, LARGE = {"n_layer": 4, "n_head": 4, "n_embd": 128}, {"n_layer": 6, "n_head": 6, "n_embd": 384}
SIZES: dict[str, dict[str, int]] = {  # by number of parameters; the first two for training, the others for decoding
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
        "model.mlp": "gelu",  # tanh approximation, as in transformers and llama.cpp
        "model.qk_norm": False,
        "model.bias": True,
        "model.tie_embeddings": True,
    },
}
TRAINING = {"train.optimizer": "adamw", "train.learning_rate": 1e-3, "train.steps": 1_000_000}
WARMING = 3  # warm-up units on a GPU: training is compiled, then captured as a CUDA graph
LOGGED = 10  # steps between two of nanoGPT's logged losses, each of which synchronises with the GPU (ours: each step)
SECONDS = 1.5  # minimum time of a measurement


def configured(shape: str, size: str, changes: dict[str, Any] | None = None) -> tuple[GPTConfig, config.Train]:
    """TinyGPT's model configuration and training settings."""
    sizes = {f"model.{name}": value for name, value in SIZES[size].items() if name != "vocab_size"}
    params = config.check(parameters(SHAPES[shape] | sizes | TRAINING | (changes or {})))
    return GPTConfig(vocab_size=SIZES[size]["vocab_size"], **params.model.model_dump()), params.train


def write_model(folder: Path, shape: str, size: str) -> None:
    """Write a model folder with random weights, which transformers opens as well."""
    tokenizer = CharTokenizer((chr(0x4E00 + i) for i in range(SIZES[size]["vocab_size"] - 1)), "error")  # any will do
    model_config, _ = configured(shape, size)
    torch.manual_seed(1)
    weights = {name: torch.randn(weight.shape) * 0.02 for name, weight in GPT(model_config).named_parameters()}
    save_model(folder, model_config, weights, tokenizer, {"tokenizer": "any", "text": {}, "params": "random"})


class TinyGPT:
    """TinyGPT: the step of tinygpt.training.loop, and tinygpt.generation.generate."""

    def __init__(self, folder: Path, device: torch.device, weights: WeightType = "fp32") -> None:
        self.folder, self.device, self.weights = folder, device, weights
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
        model, _ = load(self.folder / f"{shape}-{size}", self.device, self.weights)
        count, greedy = model.config.context_length - 1, [Sampling(temperature=0.0)] * sequences

        def decoding() -> int:
            prompts, seeds = [[1]] * sequences, list(range(sequences))
            steps = generate_ids(model, prompts, greedy, seeds, count, stop_tokens=())  # no token ends it
            return sum(len(step) for step in steps)

        return decoding


class NanoGPT:
    """nanoGPT's model, optimizer and `generate`; the step is that of its train.py, in fp32 on a CPU."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        sys.path.insert(0, str(folder / "nanoGPT"))
        self.module: Any = importlib.import_module("model")
        self.device = device
        torch.backends.cuda.matmul.allow_tf32 = True  # as in its train.py
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

        def decoding() -> int:
            return sequences * (model.generate(prompt, count).shape[1] - 1)

        return decoding


class Transformers:
    """`generate` of transformers, with its KV cache, on TinyGPT's model folder."""

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
        options = {"attention_mask": torch.ones_like(prompt), "pad_token_id": 0, "do_sample": False, "use_cache": True}

        def decoding() -> int:
            return sequences * (model.generate(prompt, max_new_tokens=count, **options).shape[1] - 1)

        return decoding


class LlamaCpp:
    """llama.cpp's server, prebuilt, on the same weights: greedy, one sequence."""

    def __init__(self, folder: Path, device: torch.device, number_type: gguf.NumberType = "f32") -> None:
        self.folder, self.number_type = folder, number_type

    def decode(self, shape: str, size: str, sequences: int) -> Ready:
        from benchmark.llama_cpp import post, serve

        file = self.folder / f"{shape}-{size}-{self.number_type}.gguf"
        context = SIZES[size]["context_length"]
        gguf.write(self.folder / f"{shape}-{size}", file, self.number_type)
        server = serve(file, context, torch.get_num_threads())
        wanted = {"prompt": [1], "n_predict": context - 1, "temperature": 0, "samplers": ["temperature"]}

        def piece() -> int:
            answer = post(server, "/completion", wanted | {"ignore_eos": True, "cache_prompt": False})
            return int(answer["tokens_predicted"])

        return piece


def batch(size: str, device: torch.device) -> Batch:
    """A fixed batch of random tokens: inputs and targets, int64 (B, T)."""
    shape = (BATCHES[size], SIZES[size]["context_length"] + 1)
    tokens = torch.randint(SIZES[size]["vocab_size"], shape, generator=torch.Generator().manual_seed(1)).to(device)
    return tokens[:, :-1].contiguous(), tokens[:, 1:].contiguous()


def speed(unit: Ready, device: torch.device) -> float:
    """Tokens per second, repeating a unit for at least SECONDS, to the end of the last one."""
    begin, tokens = time.perf_counter(), 0
    while time.perf_counter() - begin < SECONDS:
        tokens += unit()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return tokens / (time.perf_counter() - begin)


def main(system: str, folder: Path, device: torch.device) -> None:
    kinds: dict[str, Any] = {
        "TinyGPT": TinyGPT,
        "TinyGPT int8": partial(TinyGPT, weights="int8"),
        "nanoGPT": NanoGPT,
        "transformers": Transformers,
        "llama.cpp": LlamaCpp,
        "llama.cpp q8_0": partial(LlamaCpp, number_type="q8_0"),
    }
    answers, sys.stdout = sys.stdout, io.StringIO()  # discard what the references print
    worker = kinds[system](folder, device)

    @cache
    def ready(kind: str, size: str, shape: str, detail: str | int) -> Ready:
        unit = worker.train(size, detail) if kind == "train" else worker.decode(shape, size, detail)
        for _ in range(WARMING if device.type == "cuda" else 1):
            unit()
        return cast(Ready, unit)

    for line in sys.stdin:
        print(speed(ready(*json.loads(line)), device), file=answers, flush=True)
    os._exit(0)  # the destructor of llama.cpp's server may wait for ever


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), torch.device(sys.argv[3]))

"""The training loop of the reference implementation: `python -m tinygpt.scratch.train scratch`, as in
scratch/dvc.yaml.

It reads the tokens from the tokenize stage and writes the same curves and model folder as stages/train.py, so that
evaluation, sampling and every command can use its model. `train` is the loop. Left out: resuming, fine-tuning, devices
other than the CPU, and precisions other than fp32.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call

from tinygpt.checkpoints.model_folder import lineage, save_model, save_weights
from tinygpt.config import Params, Train
from tinygpt.console import progress
from tinygpt.data.dataset import Batch, TokenDataset, open_tokens, training_batches
from tinygpt.errors import ConfigError
from tinygpt.files.paths import Paths
from tinygpt.files.text import write_json, write_table
from tinygpt.model import hardware
from tinygpt.model.gpt import GPTConfig, count_parameters
from tinygpt.scratch.gpt import GPT
from tinygpt.scratch.loss import cross_entropy
from tinygpt.scratch.training import average_weights, build, schedule, train_step
from tinygpt.tokenizer.folder import load
from tinygpt.training.results import metrics

Weights = dict[str, Tensor]
SUPPORTED = {  # parameter → allowed values
    "init_from": (None,),
    "lora_rank": (0,),
    "device": ("auto", "cpu"),
    "precision": ("auto", "fp32"),
    "compile": ("auto", False),
}


@dataclass
class History:
    """Curves and weights of a run; `best` are the weights with the lowest validation loss."""

    train_rows: list[dict[str, float]] = field(default_factory=list)  # one per step
    validation_rows: list[dict[str, float]] = field(default_factory=list)  # one per validation
    best: Weights = field(default_factory=dict)
    last: Weights = field(default_factory=dict)  # after the last step; their running mean if train.average is on
    best_step: int = 0
    best_loss: float = math.inf  # nats per token


def train(
    model: GPT,
    settings: Train,
    data: dict[str, TokenDataset],
    seed: int,
    advance: Callable[[], object] = lambda: None,
) -> History:
    """Train from the model's current weights for all steps of `settings`; `advance` is called after each step.

    data: the windows of `train` and `validation`. ValueError if loss or gradient norm is not finite.
    """
    size = settings.batch_size * settings.accumulation
    batches = training_batches(data["train"], size, seed=seed, start=0, stop=settings.steps)
    optimizers, newest = build(model, settings), dict(model.named_parameters())
    average = {name: parameter.detach().clone() for name, parameter in newest.items()} if settings.average else {}
    history = History()

    def validate(step: int) -> None:
        weights = average or {name: parameter.detach() for name, parameter in newest.items()}
        windows = data["validation"].evaluation(settings.batch_size, settings.eval_tokens)
        loss = mean_loss(model, weights, windows)
        history.validation_rows.append({"step": step, "loss": loss})
        history.last = {name: weight.clone() for name, weight in weights.items()}
        if loss < history.best_loss:
            history.best, history.best_step, history.best_loss = history.last, step, loss

    torch.manual_seed(seed)  # for dropout; batches have their own generator
    validate(0)  # of the initial weights: about ln V
    for step, (inputs, targets) in enumerate(batches):
        model.train()
        loss, norm = train_step(model, optimizers, inputs, targets, settings, step)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise ValueError(
                f"Training diverged at step {step}: the loss is {loss}, the gradient norm {norm}. "
                "Set train.learning_rate lower."
            )
        rate = settings.learning_rate * schedule(step, settings)
        history.train_rows.append({"step": step + 1, "loss": loss, "learning_rate": rate, "gradient_norm": norm})
        if settings.average:
            average_weights(average, newest, step + 1, settings.average)
        if (step + 1) % settings.eval_every == 0 or step + 1 == settings.steps:
            validate(step + 1)
        advance()
    return history


@torch.no_grad()
def mean_loss(model: GPT, weights: Weights, windows: Iterable[Batch]) -> float:
    """The mean cross-entropy over all predicted tokens of the model with these weights, nats per token.

    windows: inputs and targets, int64 (B, T) each.
    """
    model.eval()
    total, count = 0.0, 0
    for inputs, targets in windows:
        logits = functional_call(model, weights, (inputs,))  # (B, T, V)
        total += cross_entropy(logits, targets, "sum").item()
        count += targets.numel()
    return total / count


def check(params: Params, paths: Paths) -> None:
    """ConfigError, which lists all, for parameters that the reference implementation does not support."""
    values = params.train.model_dump()
    problems = [
        f"train.{name} is {values[name]!r}; the reference implementation takes {' or '.join(map(repr, allowed))}. "
        "`dvc repro` at the top level supports the others."
        for name, allowed in SUPPORTED.items()
        if values[name] not in allowed
    ]
    if problems:
        raise ConfigError(paths.params, problems)


def main(params: Params, paths: Paths) -> None:
    check(params, paths)
    settings, tokenizer = params.train, load(paths.tokenizer)
    splits, T = ("train", "validation"), params.model.context_length
    if any(paths.mask(split).exists() for split in splits):
        raise ValueError(
            "The reference implementation trains on texts, not on conversations. chat/dvc.yaml trains on those; their "
            "loss is in scratch/chat.py."
        )
    data = {split: TokenDataset(open_tokens(paths.ids(split)), T, split) for split in splits}
    config = GPTConfig(vocab_size=tokenizer.vocab_size, **params.model.model_dump())
    hardware.make_deterministic()
    model = GPT(config)
    model.initialise(torch.Generator().manual_seed(params.seed))
    with progress(settings.steps, "step", "training", params.runtime.progress) as bar:
        history = train(model, settings, data, params.seed, bar.update)
    write_table(paths.training / "train.tsv", history.train_rows)
    write_table(paths.training / "validation.tsv", history.validation_rows)
    write_json(paths.training / "metrics.json", metrics(history, settings, config, count_parameters(model)))
    save_weights(paths.training / "last.safetensors", history.last, config)
    save_model(paths.model, config, history.best, tokenizer, lineage(params, paths))
    print(
        f"best validation loss {history.best_loss:.4f} nats per token, at step {history.best_step} of {settings.steps}"
    )


if __name__ == "__main__":
    from stages import run  # found in the repository root, where dvc.yaml runs this

    run(main)

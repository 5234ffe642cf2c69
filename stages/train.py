"""Train a GPT on the tokens → data/model (the weights of the lowest validation loss), data/training (the curves, and
what would be kept after the last step).

Killed or interrupted, it goes on where it was when started again, to the same bytes: the run in progress is kept in
.tinygpt/runs, which DVC does not clear. Started by torchrun, several processes train together; the first one writes.
"""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages import interruptible, run
from tinygpt.checkpoints import base_model, locate
from tinygpt.checkpoints.model_folder import save_model, save_weights
from tinygpt.config import Params, Train
from tinygpt.console import progress, thousands
from tinygpt.data.dataset import TokenDataset, open_tokens
from tinygpt.files.checksums import digest
from tinygpt.files.paths import Paths, hidden
from tinygpt.files.text import read_json
from tinygpt.model import hardware
from tinygpt.model.gpt import GPTConfig, count_parameters, training_flops_per_token
from tinygpt.tokenizer.folder import load
from tinygpt.training import compilation, distributed, forecast, loggers, lora
from tinygpt.training import loop as training
from tinygpt.training.results import write_curves
from tinygpt.training.run_folder import Run, fingerprint
from tinygpt.training.state import State, initial_state
from tinygpt.training.timings import Clock


def main(params: Params, paths: Paths) -> None:
    distributed.check(params.train)
    loggers.check(params.runtime.logger)
    settings, tokenizer = params.train, load(paths.tokenizer)
    data = {split: open_tokens(paths.ids(split)) for split in ("train", "validation")}
    locate.check_base(params, paths)
    locate.check_writable(params, tokenizer)
    base, origin = (
        base_model.open_base(settings.init_from, tokenizer, params.model) if settings.init_from else (None, {})
    )
    config = base.config if base else GPTConfig(vocab_size=tokenizer.vocab_size, **params.model.model_dump())
    for split, tokens in data.items():
        TokenDataset(tokens, config.context_length, split)  # refuses a text that is too short
    device = distributed.own(hardware.pick_device(settings.device))
    precision = hardware.pick_precision(settings.precision, device)
    hardware.make_deterministic()
    hardware.keep_freed_memory()
    compiled, why = choose_compiling(settings, config, device, precision)
    machine = hardware.describe(device, precision, compiled)
    if distributed.size() > 1:
        machine = f"{distributed.size()} × {machine}"
    tracked = {name: params.model_dump()[name] for name in ("seed", "model", "train")}
    lineage = read_json(paths.tokens / "lineage.json") | {"params": digest(tracked), **tracked}
    lineage |= {"base": origin} if base else {}
    saves = Run(hidden("runs") / fingerprint(lineage, machine), params.runtime.keep)
    name = params.runtime.logger if distributed.is_first() else None
    with (
        saves if distributed.is_first() else contextlib.nullcontext(),
        loggers.opened(name, saves.folder.name, tracked, print) as logger,
    ):
        weights_of_base = base.state_dict() if base else None
        state = initial_state(config, settings, params.seed, device, precision, weights_of_base)
        resume(saves, state)
        announce(state, settings, data, precision, machine, compiled)
        print(why, flush=True)
        if compiled:
            compilation.compile_blocks(state.model)
        train(state, params, data, precision, saves, paths, logger.note)
        if distributed.is_first():
            save_weights(paths.training / "last.safetensors", plain(state.kept(), settings), config)
            save_model(paths.model, config, plain(state.best, settings), tokenizer, lineage, lora.learned(state.best))
            saves.finish()
    print(f"best validation loss {state.best_loss:.4f} nats per token, at step {state.best_step} of {settings.steps}")


def plain(learned: dict[str, Tensor], settings: Train) -> dict[str, Tensor]:
    """The weights of a plain model, whether they were learned as such or as changes of low rank."""
    return lora.merged(learned, settings.lora_rank, settings.lora_alpha) if settings.lora_rank else learned


def choose_compiling(settings: Train, config: GPTConfig, device: torch.device, precision: str) -> tuple[bool, str]:
    """Whether to compile, and why, in a line."""
    sequences = settings.batch_size * settings.accumulation // distributed.size()  # of a step, in this process
    flops = settings.steps * sequences * config.context_length * training_flops_per_token(config)
    return compilation.choose(settings.compile, flops, device, precision)


def resume(saves: Run, state: State) -> None:
    """Go on from the newest save that is whole, and say so. All read it, once the first process has locked the run."""
    distributed.meet()
    saved = saves.latest(state.check)
    for problem in saves.damaged:
        print(problem)
    if saved:
        state.restore(*saved)
        print(f"going on after step {state.step}, from {saves.folder}")
    if distributed.largest(int(state.step != distributed.largest(state.step) or not saves.folder.is_dir())):
        raise ValueError(f"The processes do not see the same {saves.folder}; give them a folder that they share.")
    others = [folder for folder in saves.folder.parent.iterdir() if folder.is_dir() and folder != saves.folder]
    if others:
        print(
            f"{len(others)} other unfinished run(s) in {saves.folder.parent}; delete those that you will not go on with"
        )


def announce(state: State, settings: Train, data: dict[str, Any], precision: str, machine: str, compiled: bool) -> None:
    """Say what the run will cost, before it starts: first what can be counted, then what must be timed, which is done
    before anything is compiled.
    """
    cost = forecast.count(state, settings, len(data["train"]), precision)
    print(
        f"{thousands(cost.parameters)} parameters{learning(state)}, "
        f"{thousands(cost.tokens)} tokens ({cost.epochs:.1f} times the text), "
        f"{thousands(cost.flops)} FLOPs; about {thousands(cost.memory)}B of memory"
        + (" in each process" if distributed.size() > 1 else ""),
        flush=True,
    )
    seconds, share = forecast.seconds_left(state, settings, len(data["validation"]), precision)
    print(f"about {duration(seconds)}{' (timed before compiling)' if compiled else ''} on {machine}")
    if note := hardware.busy(share):
        print(note)
    for name in ("warmup_steps", "eval_every"):
        if getattr(settings, name) > settings.steps:
            print(f"train.{name} is {getattr(settings, name)}, longer than the run: cut to its {settings.steps} steps")


def duration(seconds: float) -> str:
    """For people: seconds up to a minute and a half, then minutes."""
    whole = max(1, round(seconds))
    return f"{whole} second{'s' * (whole > 1)}" if seconds < 90 else f"{seconds / 60:.1f} minutes"


def learning(state: State) -> str:
    """How many of the parameters learn, where not all do."""
    learned = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    return f" of which {thousands(learned)} learn" if learned < count_parameters(state.model) else ""


def train(
    state: State,
    params: Params,
    data: dict[str, np.ndarray],
    precision: str,
    saves: Run,
    paths: Paths,
    note: Callable[[State], None],
) -> None:
    """Take all steps, with progress shown, curves written, the state saved as it goes, and `note` told of each."""
    settings, start, begin = params.train, state.step, time.perf_counter()
    writes, show = distributed.is_first(), distributed.is_first() and params.runtime.progress
    clock = Clock(saves.folder / "times.tsv", start)
    with interruptible() as interrupted, progress(settings.steps, "step", "training", show) as bar:
        bar.update(start)
        for _ in training.train(state, settings, data, params.seed, precision):
            speed = (state.step - start) / (time.perf_counter() - begin)  # steps a second
            bar.update()
            note(state)
            if show:
                bar.set_postfix_str(report(state, settings, speed), refresh=False)
            if writes and state.validation_rows[-1]["step"] == state.step:
                clock.note(state.step)
                bar.write(f"step {state.step}/{settings.steps}  {report(state, settings, speed)}")
                write_curves(paths.training, state, settings)
            stop = int(distributed.largest(interrupted()))  # a signal to one process stops all after the same step
            if writes and (stop or state.step % params.runtime.checkpoint_every == 0):
                clock.note(state.step)
                saves.save(state.step, state.tensors(), state.facts())
            if stop:
                print(
                    f"\nstopped after step {state.step}; all is saved: run the same command again to go on", flush=True
                )
                distributed.meet()  # torchrun ends all as soon as one has ended: not before the first has saved
                sys.exit(128 + stop)
    if writes:
        write_curves(paths.training, state, settings)
        clock.keep(paths.training / "train.tsv")


def report(state: State, settings: Train, speed: float) -> str:
    """The latest numbers in a line. speed: steps a second."""
    recent: list[dict[str, Any]] = state.train_rows[-50:]
    loss = sum(row["loss"] for row in recent) / len(recent)
    tokens = speed * settings.batch_size * settings.accumulation * state.model.config.context_length
    minutes, seconds = divmod(round((settings.steps - state.step) / speed), 60)
    return (
        f"loss {loss:.3f}  validation {state.validation_rows[-1]['loss']:.3f}  "
        f"{thousands(tokens)} tokens/s  {minutes}:{seconds:02} left"
    )


if __name__ == "__main__":
    with distributed.joined():
        run(main)

"""A training run from start to end: prepare, resume, announce, train, and save the state on the way.

`prepared = prepare(params, paths)`, then `state = start(prepared)`, `resume(saves, state, tell)`, `announce(prepared,
state)`, `train(prepared, state, saves, …)` and `save(prepared, state)`; stages/train.py calls them in this order.
Messages go to `tell`, or are returned.
"""

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch import Tensor

from tinygpt.checkpoints import base_model, locate
from tinygpt.checkpoints.model_folder import TRACKED, lineage, save_model, save_weights
from tinygpt.config import Params, Train
from tinygpt.console import duration, progress, thousands
from tinygpt.data.dataset import Examples
from tinygpt.data.packing import open_examples
from tinygpt.files.paths import Paths, hidden
from tinygpt.model import hardware
from tinygpt.model.gpt import GPT, GPTConfig, count_parameters, training_flops_per_token
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.folder import load
from tinygpt.training import compilation, distributed, forecast, loggers, loop, lora
from tinygpt.training.results import Clock, write_curves
from tinygpt.training.run_folder import RunFolder
from tinygpt.training.state import State, initial_state


@dataclass(frozen=True)
class Prepared:
    """Everything that a run needs to start, validated."""

    params: Params
    paths: Paths
    config: GPTConfig
    tokenizer: Tokenizer
    data: dict[str, Examples]  # split → its examples
    base: GPT | None  # fine-tuning starts from it
    device: torch.device
    precision: str
    compiled: bool
    why: str  # the reason for `compiled`
    machine: str  # a description
    lineage: dict[str, Any]

    @property
    def settings(self) -> Train:
        return self.params.train

    @property
    def separator(self) -> int | None:
        """The id that begins a conversation, if those in one sequence are trained apart from each other."""
        return self.data["train"].separator if self.settings.document_mask else None

    @property
    def new_tokens(self) -> list[int]:
        """The ids by which the vocabulary grew beyond the base model's."""
        found: list[int] = self.lineage.get("base", {}).get("new_tokens", [])
        return found

    @property
    def tracked(self) -> dict[str, Any]:
        """The parameters that the result depends on."""
        return {name: self.lineage[name] for name in TRACKED}


def prepare(params: Params, paths: Paths) -> Prepared:
    """Check the parameters, open the tokens and the base model, choose device and precision.

    ValueError or FileNotFoundError for any problem, before any work.
    """
    distributed.check(params.train)
    loggers.check(params.runtime.logger)
    settings, tokenizer = params.train, load(paths.tokenizer)
    locate.check_base(params, paths)
    locate.check_writable(params, tokenizer)
    base, origin = (
        base_model.open_base(settings.init_from, tokenizer, params.model) if settings.init_from else (None, {})
    )
    config = base.config if base else GPTConfig(vocab_size=tokenizer.vocab_size, **params.model.model_dump())
    data = {
        split: open_examples(paths.ids(split), paths.mask(split), config.context_length, tokenizer)
        for split in ("train", "validation")
    }
    device = distributed.local_device(hardware.pick_device(settings.device))
    precision = hardware.pick_precision(settings.precision, device)
    hardware.make_deterministic()
    hardware.keep_freed_memory()
    compiled, why = choose_compiling(settings, config, device, precision)
    machine = hardware.describe(device, precision, compiled)
    if distributed.size() > 1:
        machine = f"{distributed.size()} × {machine}"
    traced = lineage(params, paths) | ({"base": origin} if base else {})
    return Prepared(params, paths, config, tokenizer, data, base, device, precision, compiled, why, machine, traced)


def choose_compiling(settings: Train, config: GPTConfig, device: torch.device, precision: str) -> tuple[bool, str]:
    """Whether to compile, and the reason in one line."""
    sequences = settings.batch_size * settings.accumulation // distributed.size()  # per step, in this process
    flops = settings.steps * sequences * config.context_length * training_flops_per_token(config)
    return compilation.choose(settings.compile, flops, device, precision)


def start(run: Prepared) -> State:
    """The state before the first step."""
    weights = run.base.state_dict() if run.base else None
    seed, grown = run.params.seed, run.new_tokens
    return initial_state(run.config, run.settings, seed, run.device, run.precision, weights, grown)


def resume(saves: RunFolder, state: State, tell: Callable[[str], object]) -> None:
    """Resume from the newest undamaged save, and say so. All processes read it, after the first has locked the run."""
    distributed.barrier()
    saved = saves.latest(state.check)
    for problem in saves.damaged:
        tell(problem)
    if saved:
        state.restore(*saved)
        tell(f"going on after step {state.step}, from {saves.folder}")
    if distributed.largest(int(state.step != distributed.largest(state.step) or not saves.folder.is_dir())):
        raise ValueError(f"The processes do not see the same {saves.folder}; use a folder that all of them share.")
    others = [folder for folder in saves.folder.parent.iterdir() if folder.is_dir() and folder != saves.folder]
    if others:
        tell(f"{len(others)} other unfinished run(s) in {saves.folder.parent}; delete those that you will not resume")


def announce(run: Prepared, state: State) -> Iterator[str]:
    """Yield lines on the cost of the run: first what can be counted, then what must be timed, before compiling."""
    settings = run.settings
    cost = forecast.count(state, settings, run.data["train"].tokens, run.precision, run.separator)
    yield (
        f"{thousands(cost.parameters)} parameters{learning(state)}, "
        f"{thousands(cost.tokens)} tokens ({cost.epochs:.1f} times the text), "
        f"{thousands(cost.flops)} FLOPs; about {thousands(cost.memory)}B of memory"
        + (" in each process" if distributed.size() > 1 else "")
    )
    for split, examples in run.data.items():
        if examples.left_out:
            yield (
                f"{split}: {examples.left_out:,} tokens of answers are left out; with their questions they are longer "
                f"than the context of {run.config.context_length}"
            )
    seconds, share = forecast.seconds_left(state, settings, run.data["validation"].tokens, run.precision, run.separator)
    yield f"about {duration(seconds)}{' (timed before compiling)' if run.compiled else ''} on {run.machine}"
    if note := hardware.busy(share):
        yield note
    for name in ("warmup_steps", "eval_every"):
        if getattr(settings, name) > settings.steps:
            yield f"train.{name} is {getattr(settings, name)}, longer than the run: cut to its {settings.steps} steps"
    yield run.why


def learning(state: State) -> str:
    """The number of trainable parameters, if not all are."""
    learned = sum(parameter.numel() for parameter in state.model.parameters() if parameter.requires_grad)
    return f" of which {thousands(learned)} learn" if learned < count_parameters(state.model) else ""


def train(
    run: Prepared, state: State, saves: RunFolder, note: Callable[[State], None], tell: Callable[[str], object]
) -> None:
    """Take all steps: show progress, write curves, save the state regularly, and call `note` after each step.

    After a signal the process ends as soon as the current step is finished and saved.
    """
    params, settings, curves = run.params, run.settings, run.paths.training
    first, begin, writes = state.step, time.perf_counter(), distributed.is_first()
    show = writes and params.runtime.progress
    clock = Clock(saves.folder / "times.tsv", first)
    if run.compiled:
        compilation.keep_in(hidden("inductor"))
        compilation.compile_blocks(state.model)
    with interruptible() as interrupted, progress(settings.steps, "step", "training", show) as bar:
        bar.update(first)
        for _ in loop.train(state, settings, run.data, params.seed, run.precision, run.separator):
            speed = (state.step - first) / (time.perf_counter() - begin)  # steps a second
            bar.update()
            note(state)
            if show:
                bar.set_postfix_str(report(state, settings, speed), refresh=False)
            if writes and state.validation_rows[-1]["step"] == state.step:
                clock.note(state.step)
                bar.write(f"step {state.step}/{settings.steps}  {report(state, settings, speed)}")
                write_curves(curves, state, settings)
            stop = int(distributed.largest(interrupted()))  # a signal to one process stops all after the same step
            if writes and (stop or state.step % params.runtime.checkpoint_every == 0):
                clock.note(state.step)
                saves.save(state.step, state.tensors(), state.metadata())
            if stop:
                tell(f"\nstopped after step {state.step}; all is saved: run the same command again to go on")
                distributed.barrier()  # torchrun ends all processes when one ends, so the first must have saved
                sys.exit(128 + stop)
    if writes:
        write_curves(curves, state, settings)
        clock.keep(curves / "train.tsv")


def report(state: State, settings: Train, speed: float) -> str:
    """The latest numbers in one line. speed: steps a second."""
    recent: list[dict[str, Any]] = state.train_rows[-50:]
    loss = sum(row["loss"] for row in recent) / len(recent)
    tokens = speed * settings.batch_size * settings.accumulation * state.model.config.context_length
    minutes, seconds = divmod(round((settings.steps - state.step) / speed), 60)
    return (
        f"loss {loss:.3f}  validation {state.validation_rows[-1]['loss']:.3f}  "
        f"{thousands(tokens)} tokens/s  {minutes}:{seconds:02} left"
    )


def save(run: Prepared, state: State) -> None:
    """Write the model folder with the best weights, and last.safetensors with those after the last step."""

    def plain(weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a plain model: LoRA's changes are merged."""
        settings = run.settings
        if not settings.lora_rank:
            return weights
        return lora.merged(weights, settings.lora_rank, settings.lora_alpha, run.new_tokens)

    save_weights(run.paths.training / "last.safetensors", plain(state.kept()), run.config)
    save_model(run.paths.model, run.config, plain(state.best), run.tokenizer, run.lineage, lora.learned(state.best))


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], int]]:
    """Defer Ctrl-C, SIGTERM and a closed terminal: yields a function that returns the received signal's number, or 0.

    A second Ctrl-C or SIGTERM kills the process. An ignored SIGHUP (nohup) stays ignored.
    """
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    hangup = getattr(signal, "SIGHUP", None)  # of a closed terminal; Windows has none
    if hangup and signal.getsignal(hangup) != signal.SIG_IGN:
        handlers[hangup] = signal.getsignal(hangup)

    def on_signal(number: int, _: FrameType | None) -> None:
        received.append(number)
        if number != hangup:  # shell and system both send SIGHUP, so a second one must not kill
            signal.signal(number, signal.SIG_DFL)

    for number in handlers:
        signal.signal(number, on_signal)
    try:
        yield lambda: received[0] if received else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

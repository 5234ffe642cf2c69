"""The commands that use a trained model: `tinygpt generate`, `chat`, `web`, `serve`, `export`.

Imports inside the functions keep `tinygpt --help` fast.
"""

import itertools
import os
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tinygpt.cli.options import refuse
from tinygpt.console import ticking, typed, working

if TYPE_CHECKING:
    import torch

    from tinygpt.model.quantization import WeightType
    from tinygpt.web.models import ModelRegistry

Model = Annotated[Path, typer.Option(help="A model folder.")]
Length = Annotated[int, typer.Option(min=1, help="Maximum number of new tokens.")]
# Copies of config.SAMPLING's help, compared by a test: importing config would load pydantic and slow `--help` down.
Temperature = Annotated[float, typer.Option(help="0: greedy; 1: the model's own distribution.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens up to this probability; 1: all.")]
MinP = Annotated[float, typer.Option(help="Drop tokens below this fraction of the highest.")]
Penalty = Annotated[float, typer.Option(help="Above 1: make tokens already seen less likely.")]
Weights = Annotated[
    Literal["fp32", "int8"],
    typer.Option(help="int8: a quarter of the memory, and on a CPU more tokens a second, almost as good."),
]
Models = Annotated[list[Path] | None, typer.Option(help="A model folder to list first; repeatable.")]
Host = Annotated[str, typer.Option(help="The address to listen on; any but 127.0.0.1 needs a password.")]
PasswordFile = Annotated[
    Path | None, typer.Option(help="A file whose first line is the password; or set TINYGPT_PASSWORD.")
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="The device to run on.")]


def generate(
    prompt: Annotated[str, typer.Argument(help="The text to continue; \\n is a newline, - reads standard input.")] = "",
    model: Model = Path("data/model"),
    max_new_tokens: Length = 200,
    num_samples: Annotated[int, typer.Option(min=1, max=1024, help="Number of continuations.")] = 1,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Sample i uses seed + i.")] = 1337,
    stream: Annotated[bool, typer.Option("--stream", help="Print tokens as they are generated (one sample).")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line, with settings and hashes.")
    ] = False,
    weights: Weights = "fp32",
    device: Device = "auto",
) -> None:
    """Continue PROMPT with a trained model. A base model completes text; it does not answer questions."""
    if stream and (as_json or num_samples > 1):
        raise ValueError("--stream prints one sample as it is generated; leave out --json and --num-samples.")
    text = typed(prompt)
    with working(f"opening {model}"):
        from tinygpt.checkpoints import model_folder as checkpoint
        from tinygpt.console import json_line
        from tinygpt.generation import generate as generation
        from tinygpt.generation.generate import for_terminal
        from tinygpt.generation.sampling import Sampling
        from tinygpt.model import hardware

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        gpt, tokenizer = checkpoint.load(model, hardware.pick_device(device, "--device"), weights)
    _compile_decoder(next(gpt.parameters()).device, weights)
    settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, **asdict(sampling)}
    if stream:
        _print_stream(text, generation.stream(gpt, tokenizer, text, **settings))
        return
    with working("generating", num_samples * max_new_tokens, "token") as bar:
        completions = generation.generate(gpt, tokenizer, text, num_samples=num_samples, advance=bar.update, **settings)
    if as_json:
        from tinygpt.generation.samples import record

        hashes = checkpoint.hashes(model, weights)
        for completion in completions:
            print(json_line(record(completion, sampling, max_new_tokens, hashes)))
        return
    for number, completion in enumerate(completions):
        print(("\n" + "—" * 20 + "\n" if number else "") + for_terminal(completion.text, sys.stdout))


def _print_stream(prompt: str, chunks: Iterable[str]) -> None:
    """Print a prompt and its continuation, chunk by chunk."""
    from tinygpt.generation.generate import for_terminal

    for chunk in itertools.chain([prompt], chunks):
        sys.stdout.write(for_terminal(chunk, sys.stdout))
        sys.stdout.flush()
    print()


def chat(
    model: Model = Path("data/model"),
    max_new_tokens: Length = 200,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Seed of each reply; /retry uses the next one.")] = 1337,
    system: Annotated[str, typer.Option(help="Who the model is, such as 'You are JULIET.'; needs a chat model.")] = "",
    weights: Weights = "fp32",
    device: Device = "auto",
) -> None:
    """Talk with a trained model: a chat model answers messages, a base model completes a text. See /help."""
    with working(f"opening {model}"):
        from tinygpt.chat.repl import Repl, greeting, reader
        from tinygpt.chat.session import MessageChat, open_chat
        from tinygpt.checkpoints import model_folder as checkpoint
        from tinygpt.generation.sampling import Sampling
        from tinygpt.model import hardware

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        gpt, tokenizer = checkpoint.load(model, hardware.pick_device(device, "--device"), weights)
    if system and not tokenizer.has_roles:
        raise ValueError(f"{model} completes text; --system needs a chat model, which `dvc repro chat/dvc.yaml` makes.")
    _compile_decoder(next(gpt.parameters()).device, weights)
    session = open_chat(gpt, tokenizer, checkpoint.hashes(model, weights), sampling, max_new_tokens, seed)
    if isinstance(session, MessageChat):
        session.system = system.strip()
    repl = Repl(session, reader(sys.stdin, sys.stdout, sys.stderr), sys.stdout, sys.stderr)
    repl.note(greeting(gpt, str(model), tokenizer.has_roles))
    repl.run()


def _compile_decoder(device: "torch.device", weights: "WeightType") -> None:
    """Compile the loops of a CPU's decoder if that is still to be done on this machine, and say so."""
    from tinygpt.generation.cpu.decoder import is_ready, prepare

    if not is_ready(device, weights):
        with ticking("compiling the decoder, once on this machine"):
            prepare(weights)


def export(
    context: typer.Context,
    kind: Annotated[
        Literal["hf", "gguf", "peft"],
        typer.Argument(help="hf: a folder to publish; gguf: a file for llama.cpp; peft: the LoRA adapter alone."),
    ],
    target: Annotated[Path, typer.Argument(help="The path to write; it must not exist yet.")],
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("data/model"),
    folder: Annotated[
        Path, typer.Option(help="The pipeline that trained the model; the card quotes its metrics and samples.")
    ] = Path(),
    number_type: Annotated[
        Literal["f32", "q8_0"],
        typer.Option("--type", help="The weights of gguf: f32, or q8_0: int8, a quarter of the size."),
    ] = "f32",
) -> None:
    """Export a model: a transformers folder with a model card, a GGUF file for llama.cpp, or a LoRA adapter."""
    if kind != "gguf":
        refuse(context, ("number_type",), f"applies only to gguf; leave it out of {kind}")
    if kind != "hf":
        refuse(
            context, ("folder",), f"applies only to hf, whose card shows the score and samples; leave it out of {kind}"
        )
    with working(f"writing {target}"):
        from tinygpt.export import gguf, hf
        from tinygpt.files.paths import Paths

        hf.check_free(target)
        hf.check_trained_here(model)
        if kind == "gguf":
            gguf.write(model, target, number_type)
            messages = [f"{target} is written. Try it: llama-completion -m {shlex.quote(str(target))} -p 'ROMEO:'"]
        elif kind == "peft":
            hf.write_adapter(model, target)
            messages = [f"{target} is written. peft's AutoPeftModelForCausalLM.from_pretrained opens it with its base."]
        else:
            messages = hf.write(Paths(folder), model, target)
            messages.append(f"{target} is written. Read its README.md and add a licence before you publish it.")
    print("\n".join(messages))


def web(
    model: Models = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 picks a free one.")] = 7860,
    password_file: PasswordFile = None,
    weights: Weights = "fp32",
    device: Device = "auto",
) -> None:
    """Serve a web page to generate text and inspect token probabilities, surprisal and attention."""
    password = _password(host, password_file)
    # The page needs no proxy, and some proxies make Gradio fail at startup.
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "*")
    try:
        from tinygpt.web import app
    except ModuleNotFoundError as missing:
        raise _web_extra("The page", missing) from None
    from tinygpt.web.service import Service

    service = Service(_registry(model, weights, device))
    app.run(service, host, port, password, lambda url: print(f"TinyGPT is at {url} (Ctrl-C ends it).", flush=True))


def serve(
    model: Models = None,
    host: Host = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on; 0 picks a free one.")] = 8000,
    password_file: PasswordFile = None,
    weights: Weights = "fp32",
    device: Device = "auto",
) -> None:
    """Serve models to OpenAI's clients: /v1/chat/completions and /v1/completions. The password is the API key."""
    password = _password(host, password_file)
    try:
        from tinygpt.web.openai_api import app
    except ModuleNotFoundError as missing:
        raise _web_extra("The server", missing) from None
    registry = _registry(model, weights, device)
    app.run(registry, host, port, password, lambda url: print(f"The API is at {url}/v1 (Ctrl-C ends it).", flush=True))


def _password(host: str, file: Path | None) -> str | None:
    """The password for a server on this host, if there is one. ValueError if one is needed, or the host is unknown."""
    from tinygpt.web.middleware import check_host, check_password, is_loopback, read_password

    password = read_password(file) if file else os.environ.get("TINYGPT_PASSWORD")
    check_host(host)
    check_password(password, is_loopback(host))
    return password


def _web_extra(what: str, missing: ModuleNotFoundError) -> ValueError:
    """The error for a package of the extra `web` that is not installed."""
    return ValueError(f"{what} needs {missing.name}. Install it: pip install -c requirements.lock -e '.[web]'")


def _registry(
    model: list[Path] | None, weights: "WeightType", device: Literal["auto", "cpu", "cuda", "mps"]
) -> "ModelRegistry":
    """The models to serve, once the decoder is compiled."""
    from tinygpt.model import hardware
    from tinygpt.web.models import ModelRegistry

    chosen = hardware.pick_device(device, "--device")
    _compile_decoder(chosen, weights)
    return ModelRegistry(model or [], chosen, weights)

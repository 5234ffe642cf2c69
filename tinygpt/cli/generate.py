"""The commands with which a trained model writes, and is written for others: `tinygpt generate`,
`chat`, `web`, `export`.

Imports are late, so that `tinygpt --help` answers at once.
"""

import itertools
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from tinygpt.cli.options import refuse
from tinygpt.console import typed, working

if TYPE_CHECKING:
    pass

Model = Annotated[Path, typer.Option(help="A model folder.")]
Length = Annotated[int, typer.Option(min=1, help="How far to continue.")]
# as in config.SAMPLING, which a test holds them to: `--help` would wait for pydantic if it were imported
Temperature = Annotated[float, typer.Option(help="0: always the likeliest; 1: the model as it is.")]
TopK = Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")]
TopP = Annotated[float, typer.Option(help="Keep the likeliest tokens of this probability; 1: all.")]
MinP = Annotated[float, typer.Option(help="Drop what is below this share of the likeliest.")]
Penalty = Annotated[float, typer.Option(help="Above 1: make tokens already seen less likely.")]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to run.")]


def generate(
    prompt: Annotated[
        str, typer.Argument(help="The text to continue; \\n is a new line, - reads standard input.")
    ] = "",
    model: Model = Path("data/model"),
    max_new_tokens: Length = 200,
    num_samples: Annotated[int, typer.Option(min=1, max=1024, help="How many continuations.")] = 1,
    temperature: Temperature = 0.8,
    top_k: TopK = 0,
    top_p: TopP = 0.95,
    min_p: MinP = 0.0,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Sample i uses seed + i.")] = 1337,
    stream: Annotated[bool, typer.Option("--stream", help="Print as it is written (one sample).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with settings and hashes.")] = False,
    device: Device = "auto",
) -> None:
    """Continue PROMPT with a trained model. A base model completes text; it does not answer questions."""
    if stream and (as_json or num_samples > 1):
        raise ValueError("--stream prints one sample as it is written; leave out --json and --num-samples.")
    text = typed(prompt)
    with working(f"opening {model}"):
        from tinygpt.checkpoints import model_folder as checkpoint
        from tinygpt.console import json_line
        from tinygpt.generation import generate as generation
        from tinygpt.generation.generate import for_terminal
        from tinygpt.generation.samples import record
        from tinygpt.generation.sampling import Sampling
        from tinygpt.model import hardware

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        gpt, tokenizer = checkpoint.load(model, hardware.pick_device(device, "--device"))
    asked: dict[str, Any] = {"max_new_tokens": max_new_tokens, "seed": seed, **asdict(sampling)}
    if stream:
        _print_stream(text, generation.stream(gpt, tokenizer, text, **asked))
        return
    with working("writing", num_samples * max_new_tokens, "token") as bar:
        made = generation.generate(gpt, tokenizer, text, num_samples=num_samples, advance=bar.update, **asked)
    hashes = checkpoint.hashes(model) if as_json else {}
    for number, completion in enumerate(made):
        if as_json:
            print(json_line(record(completion, sampling, max_new_tokens, hashes)))
        else:
            print(("\n" + "—" * 20 + "\n" if number else "") + for_terminal(completion.text, sys.stdout))


def _print_stream(text: str, pieces: Iterable[str]) -> None:
    """A prompt, and what continues it as it comes."""
    from tinygpt.generation.generate import for_terminal

    for piece in itertools.chain([text], pieces):
        sys.stdout.write(for_terminal(piece, sys.stdout))
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
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Of each answer; /retry takes the next.")] = 1337,
    device: Device = "auto",
) -> None:
    """Write by turns with a trained model. A base model completes text; it does not answer. /help lists commands."""
    with working(f"opening {model}"):
        from tinygpt.chat.repl import Repl, greeting, reader
        from tinygpt.chat.session import Chat
        from tinygpt.checkpoints import model_folder as checkpoint
        from tinygpt.generation.sampling import Sampling
        from tinygpt.model import hardware

        sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
        gpt, tokenizer = checkpoint.load(model, hardware.pick_device(device, "--device"))
    talk = Chat(gpt, tokenizer, checkpoint.hashes(model), sampling, max_new_tokens, seed)
    repl = Repl(talk, reader(sys.stdin, sys.stdout, sys.stderr), sys.stdout, sys.stderr)
    repl.note(greeting(gpt, str(model)))
    repl.run()


def export(
    context: typer.Context,
    kind: Annotated[
        Literal["hf", "gguf", "peft"],
        typer.Argument(help="hf: a folder to publish; gguf: a file for llama.cpp; peft: what LoRA learned, alone."),
    ],
    target: Annotated[Path, typer.Argument(help="Where to; nothing may be there yet.")],
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("data/model"),
    folder: Annotated[Path, typer.Option(help="The pipeline that it comes from, for its score and samples.")] = Path(),
) -> None:
    """Write a model for others: a transformers folder with a card, a GGUF file for llama.cpp, or LoRA's adapter."""
    if kind != "hf":
        refuse(
            context, ("folder",), f"applies only to hf, whose card shows the score and samples; leave it out of {kind}"
        )
    with working(f"writing {target}"):
        from tinygpt.export import gguf, hf
        from tinygpt.files.paths import Paths

        hf.check_free(target)
        hf.check_ours(model)
        if kind == "gguf":
            gguf.write(model, target)
            told = [f"{target} is written; for example: llama-completion -m {shlex.quote(str(target))} -p 'ROMEO:'"]
        elif kind == "peft":
            hf.write_adapter(model, target)
            told = [f"{target} is written; peft's PeftModel.from_pretrained puts it on its base model."]
        else:
            told = hf.write(Paths(folder), model, target)
            told.append(f"{target} is written. Read its README.md, and add a licence, before you publish it.")
    print("\n".join(told))


def web(
    model: Annotated[
        list[Path] | None, typer.Option(help="A model folder to offer first; may be given several times.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; any but 127.0.0.1 needs a password.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Which port; 0 takes any that is free.")] = 7860,
    password_file: Annotated[
        Path | None, typer.Option(help="A file whose first line is the password; or set TINYGPT_PASSWORD.")
    ] = None,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to run.")] = "auto",
) -> None:
    """Open a page for the browser: write, see every token's chances, read a text, look at attention."""
    import os

    from tinygpt.model import hardware
    from tinygpt.web.middleware import check_host, check_password, is_loopback, read_password

    word = os.environ.get("TINYGPT_PASSWORD")
    if password_file:
        word = read_password(password_file)
    check_host(host)
    check_password(word, is_loopback(host))
    os.environ |= dict.fromkeys(("no_proxy", "NO_PROXY"), "*")  # the page needs none, and some break Gradio's start
    try:
        from tinygpt.web import app
    except ModuleNotFoundError as missing:
        raise ValueError(
            f"The page needs {missing.name}. Install it: pip install -c requirements.lock -e '.[web]'"
        ) from None
    from tinygpt.web.models import ModelRegistry
    from tinygpt.web.service import Service

    registry = ModelRegistry(model or [], hardware.pick_device(device, "--device"))
    app.run(
        Service(registry), host, port, word, lambda url: print(f"TinyGPT is at {url} (Ctrl-C ends it).", flush=True)
    )

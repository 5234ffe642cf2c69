"""The commands with which a trained model writes: `tinygpt generate`; and is written: `tinygpt export`.

Imports are late, so that `tinygpt --help` answers at once.
"""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def generate(
    prompt: Annotated[
        str, typer.Argument(help="The text to continue; \\n is a new line, - reads standard input.")
    ] = "",
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("data/model"),
    max_new_tokens: Annotated[int, typer.Option(min=1, help="How far to continue.")] = 200,
    num_samples: Annotated[int, typer.Option(min=1, max=1024, help="How many continuations.")] = 1,
    temperature: Annotated[
        float, typer.Option(help="0 always takes the likeliest; 1 samples from the model as it is.")
    ] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Keep the likeliest tokens that hold this much probability; 1 keeps all.")
    ] = 0.95,
    min_p: Annotated[float, typer.Option(help="Drop tokens less likely than this share of the likeliest.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Above 1: make tokens already seen less likely.")] = 1.0,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="Sample i uses seed + i.")] = 1337,
    stream: Annotated[bool, typer.Option("--stream", help="Print as it is written (one sample).")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line, with settings and hashes.")] = False,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="Where to run.")] = "auto",
) -> None:
    """Continue PROMPT with a trained model. A base model completes text; it does not answer questions."""
    from tinygpt import checkpoint, generation, hardware
    from tinygpt.samples import record
    from tinygpt.sampling import Sampling

    if stream and (as_json or num_samples > 1):
        raise ValueError("--stream prints one sample as it is written; leave out --json and --num-samples.")
    sampling = Sampling(temperature, top_k, top_p, min_p, repetition_penalty)
    text = typed(prompt)
    gpt, tokenizer = checkpoint.load(model, hardware.pick_device(device))
    if stream:
        sys.stdout.write(text)
        for piece in generation.stream(
            gpt, tokenizer, text, max_new_tokens=max_new_tokens, sampling=sampling, seed=seed
        ):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
        return
    made = generation.generate(
        gpt, tokenizer, text, max_new_tokens=max_new_tokens, num_samples=num_samples, sampling=sampling, seed=seed
    )
    hashes = checkpoint.hashes(model) if as_json else {}
    for number, completion in enumerate(made):
        if as_json:
            print(json.dumps(record(completion, sampling, max_new_tokens, hashes), ensure_ascii=False))
        else:
            print(("\n" + "—" * 20 + "\n" if number else "") + completion.text)


def export(
    kind: Annotated[Literal["hf", "gguf"], typer.Argument(help="hf: a folder to publish; gguf: a file for llama.cpp.")],
    target: Annotated[Path, typer.Argument(help="Where to; nothing may be there yet.")],
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("data/model"),
    folder: Annotated[Path, typer.Option(help="The pipeline that it comes from, for its score and samples.")] = Path(),
) -> None:
    """Write a model for others: as a transformers folder with a model card, or as one GGUF file for llama.cpp."""
    from tinygpt import gguf_file, publishing
    from tinygpt.files import Paths

    publishing.check_free(target)
    if kind == "gguf":
        gguf_file.write(model, target)
        print(f"{target} is written; for example: llama-completion -m {target} -p 'ROMEO:'")
        return
    for sentence in publishing.write(Paths(folder), model, target):
        print(sentence)
    print(f"{target} is written. Read its README.md, and add a licence, before you publish it.")


def typed(text: str) -> str:
    """A text as people type it in a shell: \\n is a new line, - stands for standard input."""
    return sys.stdin.read() if text == "-" else text.replace("\\n", "\n")

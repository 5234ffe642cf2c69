"""The `tinygpt` command line, with the commands `check` and `size`; the others are in generate.py and inspect.py.

Imports inside the functions keep `tinygpt --help` fast.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

import tinygpt
from tinygpt import console
from tinygpt.cli import inspect
from tinygpt.cli.generate import chat, export, generate, serve, web
from tinygpt.console import working

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors can be piped and searched with grep
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; an expected error prints one sentence and exits with code 1."""
    try:
        with console.prepared():
            app()
    except (ValueError, OSError, MemoryError, RuntimeError) as problem:
        from tinygpt.errors import explain

        text = explain(problem)
        if text is None:
            raise
        sys.exit(f"tinygpt: {text}")


def show_version(wanted: bool) -> None:
    """Print the version and exit if `wanted`."""
    if wanted:
        print(f"tinygpt {getattr(tinygpt, '__version__', '(not installed)')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """TinyGPT, a workbench for tiny language models."""


def check(
    folder: Annotated[Path, typer.Argument(help="The pipeline's folder, with its params.yaml.")] = Path(),
) -> None:
    """Check params.yaml, the text and this machine before any work."""
    with working("checking"):
        from tinygpt import config
        from tinygpt.checkpoints import locate
        from tinygpt.cli import nested
        from tinygpt.data import train_tokenizer
        from tinygpt.data.corpus import LEAST, check_enough
        from tinygpt.data.sources.documents import check_source
        from tinygpt.data.sources.text_files import check_apart
        from tinygpt.experiments.git import git
        from tinygpt.files.paths import Paths
        from tinygpt.model import hardware
        from tinygpt.training import compilation, loggers

        if Path(".dvc").is_dir():  # DVC calls git, and its own error message would be less clear
            git("rev-parse", "--git-dir")
        params = config.load(Paths(folder).params)
        nested.check(Paths(folder))
        check_apart(params.download.path, folder)
        size = check_source(params.download)
        if params.tokenize.from_ is not None:
            locate.check_not_own(params.tokenize.from_, Paths(folder))
            locate.check(params.tokenize.from_)
        locate.check_base(params, Paths(folder))
        if size is not None:  # bytes: an upper bound on the number of characters, and so on the number of tokens
            check_enough(params.download, size, max(LEAST, params.model.context_length))
        device = hardware.pick_device(params.train.device)
        precision = hardware.pick_precision(params.train.precision, device)
        compilation.check(params.train.compile, device)
        loggers.check(params.runtime.logger)
        if params.tokenize.from_ is None:
            train_tokenizer.check(params.tokenize)
    print(f"{Paths(folder).params} is valid; training would run on {hardware.describe(device, precision)}.")


def size(
    name: Annotated[str, typer.Argument(help="A size from sizes.yaml; by default all are listed.")] = "",
    folder: Annotated[Path, typer.Option(help="The pipeline's folder, with its params.yaml and sizes.yaml.")] = Path(),
) -> None:
    """Print a named size as options for DVC: dvc exp run $(tinygpt size hour)."""
    from tinygpt.cli import presets
    from tinygpt.files.paths import Paths

    known = presets.load(folder / "sizes.yaml")
    if name and name not in known:
        raise ValueError(f"There is no size {name!r} in sizes.yaml; there are {', '.join(known)}.")
    for one in [name] if name else known:
        presets.apply(known[one], Paths(folder).params)  # raises ConfigError for values that are not allowed
        print(
            " ".join(presets.options(known[one])) if name else f"{one}: {' '.join(presets.options(known[one])[1::2])}"
        )


COMMANDS: list[Callable[..., None]] = [  # in the order of the help text
    check,
    size,
    inspect.info,
    generate,
    chat,
    web,
    serve,
    inspect.inspect,
    inspect.compare,
    inspect.exercise,
    inspect.benchmark,
    export,
]
for command in COMMANDS:
    app.command()(command)

"""The commands that examine results: `tinygpt info`, `inspect`, `compare`, `exercise`, `benchmark`.

Imports inside the functions keep `tinygpt --help` fast.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tinygpt.generation.sampling import Sampling
    from tinygpt.inspection.text import Subject
    from tinygpt.model.gpt import GPT
    from tinygpt.tokenizer.base import Tokenizer

from tinygpt.cli.options import must_be_file, must_be_folder, refuse
from tinygpt.console import above, ticking, typed, working


def info(
    path: Annotated[Path, typer.Argument(help="A model folder, or a samples.jsonl.")] = Path("data/model"),
    folder: Annotated[Path, typer.Option(help="The pipeline it should come from.")] = Path(),
) -> None:
    """Describe a model, and compare the hashes in its lineage, or a sample's, with the files present now."""
    lines = []
    with working(f"checking the hashes of {path}"):
        import torch

        from tinygpt import config, thread_waiting
        from tinygpt.checkpoints import hf_names
        from tinygpt.checkpoints.model_folder import load
        from tinygpt.experiments import lineage
        from tinygpt.files.checksums import SUMS
        from tinygpt.files.paths import Paths
        from tinygpt.model.gpt import count_parameters

        paths = Paths(folder)
        params = config.load(paths.params)
        if path.is_file():
            sets = lineage.sample_hashes(path)
            links = [link for named in sets for link in lineage.follow_hashes(named, paths.model, params, paths)]
        else:
            model, _ = load(path)  # also verifies SHA256SUMS
            shape = model.config
            lines = [
                f"{path}: {hf_names.family(shape)}, {count_parameters(model):,} parameters, {shape.n_layer} blocks, "
                f"width {shape.n_embd}, context {shape.context_length}, vocabulary {shape.vocab_size}; "
                + ("undamaged" if (path / SUMS).is_file() else f"no {SUMS}, so damage cannot be detected"),
            ]
            links = list(lineage.follow(path, params, paths)) if (path / "lineage.json").is_file() else []
    print("\n".join(lines), end="\n" * len(lines))
    for link in links:
        print(f"{link.what:18} {link.claimed[:12]}  {link.where}: {link.verdict}")
    print(f"{'threads':18} {torch.get_num_threads()}; thread waiting: {thread_waiting}")


def inspect(
    context: typer.Context,
    text: Annotated[
        str | None, typer.Argument(help="The text to inspect; by default a held-out passage; - reads standard input.")
    ] = None,
    what: Annotated[
        Literal["all", "tokens", "embeddings", "position", "attention", "lens", "next", "surprisal"] | None,
        typer.Option(help="One view; by default all, or attention if --layer or --head is given."),
    ] = None,
    model: Annotated[Path, typer.Option(help="A model folder.")] = Path("data/model"),
    layer: Annotated[int | None, typer.Option(help="Show the attention of this block only, from 1.")] = None,
    head: Annotated[int | None, typer.Option(help="Show the attention of this head only, from 1.")] = None,
    temperature: Annotated[float, typer.Option(help="Sampling setting shown in the view `next`.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Likewise; 0 leaves it out.")] = 20,
    top_p: Annotated[float, typer.Option(help="Likewise; 1 leaves it out.")] = 0.95,
    min_p: Annotated[float, typer.Option(help="Likewise; 0 leaves it out.")] = 0.05,
    write_to: Annotated[
        Path | None, typer.Option("--write", help="Write PNGs into this folder instead of printing.")
    ] = None,
) -> None:
    """Show a trained model's internals on your text or on held-out text."""
    if what not in (None, "all", "attention"):
        refuse(context, ("layer", "head"), f"has no effect with --what {what}; leave one of them out")
    if what not in (None, "all", "next") or (what is None and (layer or head)):
        refuse(context, ("temperature", "top_k", "top_p", "min_p"), "has an effect only with --what next; leave it out")
    must_be_folder(write_to, "--write")
    with working(f"opening {model}"):
        from tinygpt.checkpoints.model_folder import load
        from tinygpt.generation.sampling import Sampling
        from tinygpt.inspection import activations

        settings = Sampling(temperature, top_k, top_p, min_p)
        loaded = load(model)
    blocks = activations.chosen(layer, loaded[0].config.n_layer, "layer")
    heads = activations.chosen(head, loaded[0].config.n_head, "head")
    what = what or ("all" if layer is None and head is None else "attention")
    names = activations.VIEWS if what == "all" else [what]
    _show(_subject(loaded, model, text, names), names, settings, blocks, heads, write_to)


def _subject(loaded: "tuple[GPT, Tokenizer]", folder: Path, text: str | None, names: Sequence[str]) -> "Subject":
    """The user's text, or a held-out passage; prints a note if the text was truncated."""
    from tinygpt.inspection import activations
    from tinygpt.inspection import text as reading

    if text is None:
        with working("reading held-out text"):
            tokens = reading.beside(folder)
            losses = activations.by_position(*loaded, tokens) if "position" in names else None
            subject = reading.held_out(*loaded, tokens, losses)
    else:
        subject = reading.of_text(*loaded, typed(text))
    if subject.left_out:
        context = loaded[0].config.context_length
        print(f"The first {subject.left_out} tokens are left out: the context holds only the last {context}.")
    return subject


def _show(
    subject: "Subject",
    names: Sequence[str],
    settings: "Sampling",
    blocks: Sequence[int],
    heads: Sequence[int],
    write_to: Path | None,
) -> None:
    """Print the views, or write them as figures into a folder."""
    if write_to is not None:
        from tinygpt.inspection import figures

        with working("drawing", len(names), "view") as bar:
            drawn = figures.draw(write_to, names, subject, settings, blocks, heads, bar.update)
        print("\n".join(map(str, drawn)))
        return
    import shutil

    from tinygpt.cli.inspect_text import show
    from tinygpt.console import wants_colour

    colour, width = wants_colour(sys.stdout), shutil.get_terminal_size().columns
    for line in show(names, subject, settings, blocks, heads, colour, width):
        print(line)


def compare(
    context: typer.Context,
    sets: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="A B",
            help="Two sets of runs: settings (train.optimizer=muon) or names of experiments, revisions or folders. "
            "With --html any number; by default this folder. Without sets: a table of all experiments.",
        ),
    ] = None,
    results: Annotated[Path, typer.Option(help="A results file to search in addition to DVC's experiments.")] = Path(
        "benchmark/ablations.jsonl"
    ),
    allow: Annotated[list[str] | None, typer.Option(help="Another setting that may differ; repeatable.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write an HTML report on the runs to this file; it works offline.")
    ] = None,
) -> None:
    """Test whether two sets of runs differ by more than seed noise; without sets, list all experiments.

    Settings select among all known runs: tinygpt compare train.optimizer=muon train.optimizer=adamw. Names are
    separated by commas: tinygpt compare muon-1,muon-2 "adamw-*". A git revision means the run committed there and the
    experiments that start from it with other seeds; main:chat is that of chat/dvc.yaml. --html writes a report.
    """
    must_be_file(html, "--html")
    if html is None and not sets:
        refuse(context, ("allow", "results"), "needs two sets: tinygpt compare A B")
    if html is None and sets and len(sets) != 2:
        raise ValueError("Name two sets of runs: tinygpt compare A B; or write a report: tinygpt compare --html FILE.")
    print("\n".join(_compared(sets or [], results, allow or [], html)))


def _compared(sets: list[str], results: Path, allow: list[str], html: Path | None) -> list[str]:
    """The lines that `compare` prints."""
    if html is None and not sets:
        with working("reading the experiments"):
            from tinygpt.experiments.table import table

            return list(table())
    with working("reading the runs"):
        if html is None:
            from tinygpt.experiments import compare as comparing

            return list(comparing.report(comparing.compare(sets[0], sets[1], results, allow)))
        from tinygpt.report import build

        messages: list[str] = []
        build.make(html, sets or ["."], results, allow, messages.append)
        return messages


def exercise(
    context: typer.Context,
    lesson: Annotated[
        int | None, typer.Argument(help="The number of a lesson; by default all exercises are listed.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Test your solutions.")] = False,
    folder: Annotated[Path, typer.Option(help="The folder for your solutions.")] = Path("exercises"),
) -> None:
    """Copy the exercises of a lesson into your folder, or test your solutions with --check."""
    from tinygpt.exercises import runner

    if lesson is None:
        refuse(context, ("check", "folder"), "needs the number of a lesson: tinygpt exercise 4 --check")
        for number in runner.lessons():
            for name in runner.names(number):
                print(f"{number:2}  {name:20} {runner.title(number, name)}")
        return
    if not check:
        for file, new in runner.copy(lesson, folder):
            print(f"{file}: {runner.title(lesson, file.stem) if new else 'exists already; left unchanged'}")
        print(f"Solve them, then run: tinygpt exercise {lesson} --check")
        return
    wrong = 0
    with working("testing your solutions") as bar:
        for name, problem in runner.check(lesson, folder):
            wrong += problem is not None
            above(bar, f"{'green' if problem is None else 'red':6} {name}: {problem or runner.home(lesson, name)}")
    if wrong:
        raise typer.Exit(1)


def benchmark(
    context: typer.Context,
    folder: Annotated[Path, typer.Argument(help="The pipeline's folder; its params.yaml sets the architecture.")] = (
        Path()
    ),
    sizes: Annotated[str, typer.Option(help="Model sizes, separated by commas: 0.2M, 1.3M, 10M, 30M, 85M.")] = (
        "0.2M,1.3M,10M,30M,85M"
    ),
    budget: Annotated[float, typer.Option(min=1, help="Approximate time limit in seconds.")] = 600,
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], typer.Option(help="The device to run on.")] = "auto",
    precision: Annotated[
        Literal["all", "fp32", "bf16", "fp16"], typer.Option(help="all: every precision with hardware support.")
    ] = "all",
    compile_: Annotated[
        bool | None, typer.Option("--compile/--no-compile", help="By default both; compiled at the fastest batch only.")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Measure the smallest model for half a minute.")] = False,
    write_to: Annotated[Path | None, typer.Option("--write", help="A folder for the table and the figures.")] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="A JSON file for all measurements.")] = None,
) -> None:
    """Benchmark training and decoding on this machine: speed, memory, and the fastest batch sizes."""
    if quick:
        refuse(context, ("sizes", "budget", "compile_"), "has no effect with --quick; leave one of them out")
    with working("starting"):
        from tinygpt import config
        from tinygpt.bench import ladder as bench
        from tinygpt.console import ignore_write_errors
        from tinygpt.files.paths import Paths
        from tinygpt.files.text import write_json

    must_be_file(json_file, "--json")
    must_be_folder(write_to, "--write")
    if json_file is not None or write_to is not None:
        ignore_write_errors()
    params = config.load(Paths(folder).params)
    chosen, seconds, compiled = (["0.2M"], 30.0, False) if quick else (sizes.split(","), budget, compile_)
    names = [name.strip() for name in chosen]
    with ticking("measuring") as bar:
        say, begin = (lambda text: above(bar, text)), bar.set_description_str
        report = bench.run(params, names, seconds, device, precision, compiled, say, begin)
    print("\n" + "\n".join(bench.table(report)))
    if json_file is not None:
        write_json(json_file, report.to_json())
    if write_to is not None:
        bench.write(report, write_to)

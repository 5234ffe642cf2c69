"""Generate docs/api.md from the docstrings: `python -m tools.api`; a test fails if it is stale.

The source is parsed, not imported, so that signatures keep their comments with units and shapes. Left out: names that
begin with _, inherited members, and modules that are not part of the library (commands, stages, web pages).
"""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[1]
MODULES = (
    "tokenizer.base", "tokenizer.char", "tokenizer.folder", "model.gpt", "model.loss",
    "data.encode", "data.dataset", "data.train_tokenizer",
    "checkpoints.locate", "checkpoints.model_folder", "checkpoints.base_model",
    "training.lora", "training.optimizer", "training.state", "training.loop", "training.results",
    "generation.sampling", "generation.generate", "evaluation.metrics", "evaluation.before_after",
)  # fmt: skip
HEAD = """# The library

The Python API, generated from the docstrings by `python -m tools.api`. To load a model and generate text:

    import tinygpt
    model, tokenizer = tinygpt.load("data/model")
    print(tinygpt.generate(model, tokenizer, "ROMEO:", max_new_tokens=100, temperature=0.5, stop="\\n\\n")[0].text)

{offers}

Import everything else from its module, as in `from tinygpt.training.loop import train`. The library is fully typed
(`mypy --strict`).

Letters for sizes: B sequences in a batch, T tokens in a sequence, C = n_embd, H heads, D = head_dim, V = vocab_size.
Losses are in nats per token unless stated otherwise. An invalid value or damaged file raises `ValueError`, a missing
file `FileNotFoundError`; each message is a sentence with the next step.
"""


@dataclass(frozen=True)
class Entry:
    """A public name of a module: its signature and its docstring."""

    name: str  # GPT, or GPT.forward
    header: str  # its definition in the source, with the fields of a dataclass
    text: str
    node: ast.ClassDef | ast.FunctionDef
    parts: list["Entry"] = field(default_factory=list)  # methods


def source_file(module: str) -> Path:
    """`model.gpt` → tinygpt/model/gpt.py."""
    return ROOT / "tinygpt" / f"{module.replace('.', '/')}.py"


def entries(module: str) -> list[Entry]:
    """The public functions and classes of a module, in its order."""
    source = source_file(module).read_text(encoding="utf-8")
    return list(_entries(ast.parse(source).body, source.splitlines(), ""))


def _entries(body: list[ast.stmt], lines: list[str], owner: str) -> Iterator[Entry]:
    for node in body:
        if not isinstance(node, ast.ClassDef | ast.FunctionDef):
            continue
        has_arguments = isinstance(node, ast.FunctionDef) and node.name == "__init__" and len(node.args.args) > 1
        is_public = has_arguments or not node.name.startswith("_")
        text = ast.get_docstring(node) or ""
        if is_public:
            parts = _entries(node.body, lines, f"{node.name}.") if isinstance(node, ast.ClassDef) else ()
            yield Entry(owner + node.name, _header(node, lines), inspect.cleandoc(text), node, list(parts))


def _header(node: ast.ClassDef | ast.FunctionDef, lines: list[str]) -> str:
    """The definition up to its body, with property decorators, and the fields of a class."""
    decorators = [f"@{ast.unparse(one)}" for one in node.decorator_list if "property" in ast.unparse(one)]
    header = textwrap.dedent("\n".join(lines[node.lineno - 1 : node.body[0].lineno - 1]))
    fields = [lines[part.lineno - 1] for part in node.body if isinstance(part, ast.AnnAssign)]
    return "\n".join([*decorators, header.rstrip(), *(fields if isinstance(node, ast.ClassDef) else [])])


def _written(entry: Entry, level: str) -> Iterator[str]:
    yield f"{level} `{entry.name}`\n\n```python\n{entry.header}\n```\n"
    if entry.text:
        yield f"{entry.text}\n"
    for part in entry.parts:
        if part.text or "#" in part.header or part.name.endswith("__init__"):
            yield from _written(part, level + "#")


def page() -> str:
    """The whole page, as Markdown."""
    package = ast.parse((ROOT / "tinygpt/__init__.py").read_text(encoding="utf-8"))
    public = next(
        node.value for node in package.body if isinstance(node, ast.Assign) and "__all__" in ast.unparse(node)
    )
    names = ", ".join(f"`{name}`" for name in ast.literal_eval(public))
    parts = [HEAD.format(offers=textwrap.fill(f"`tinygpt` itself exports {names}, each imported on first use.", 120))]
    parts.append("\n".join(f"- [{name}](#tinygpt{name.replace('.', '')})" for name in MODULES) + "\n")
    for name in MODULES:
        file = source_file(name)
        text = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
        parts.append(f"## `tinygpt.{name}`\n\n{text}\n\n[Source](../{file.relative_to(ROOT)})\n")
        parts += [line for entry in entries(name) for line in _written(entry, "###")]
    return "\n".join(parts)


if __name__ == "__main__":
    (ROOT / "docs/api.md").write_text(page(), encoding="utf-8", newline="\n")
    print(f"{(ROOT / 'docs/api.md').relative_to(Path.cwd())}: {sum(len(entries(name)) for name in MODULES)} names")

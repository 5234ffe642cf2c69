"""Update the generated parts of docs/architecture.md: `python -m tools.architecture`; a test fails if they are stale.

The diagram comes from the imports, read as import-linter does; the tables from the first sentence of each docstring.
"""

import ast
import re
import tomllib
from pathlib import Path

import grimp

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/architecture.md"
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"][0]
LAYERS = [name for name in reversed(CONTRACT["layers"]) if (ROOT / "tinygpt" / name).is_dir()]  # the lowest first


def page() -> str:
    """The page with the parts between its marker comments updated."""
    text = PAGE.read_text(encoding="utf-8")
    for name, generated in (("diagram", diagram()), ("modules", tables())):
        begin, end = f"<!-- {name}: made by python -m tools.architecture -->\n", f"<!-- end of {name} -->\n"
        before, rest = text.split(begin)
        text = before + begin + generated + end + rest.split(end)[1]
    return text


def diagram() -> str:
    """The subpackages and their imports as a Mermaid flowchart, without transitive arrows."""
    graph = grimp.build_graph("tinygpt")
    needs = {name: {other for other in LAYERS if other != name and _imports(graph, name, other)} for name in LAYERS}
    reach: dict[str, set[str]] = {}
    for name in LAYERS:  # lowest first, so the entries of its imports exist
        reach[name] = needs[name].union(*(reach[other] for other in needs[name]))
    lines = ["```mermaid", "flowchart BT"]
    for name in LAYERS:
        direct = [one for one in needs[name] if not any(one in reach[other] for other in needs[name])]
        lines += [f"    {name} --> {one}" for one in sorted(direct, key=LAYERS.index)]
    return "\n".join([*lines, "```", ""])


def _imports(graph: grimp.ImportGraph, importer: str, imported: str) -> bool:
    found = graph.find_modules_that_directly_import  # takes one module
    inside = {f"tinygpt.{imported}", *graph.find_descendants(f"tinygpt.{imported}")}
    return any(one.split(".")[1] == importer for module in inside for one in found(module) if "." in one)


def tables() -> str:
    """A heading, the purpose and the modules of each subpackage."""
    parts = ["### Top of the package\n\n" + _table(ROOT / "tinygpt")]
    for name in LAYERS:
        folder = ROOT / "tinygpt" / name
        parts.append(f"### {name}/\n\n{_first(folder / '__init__.py')}\n\n{_table(folder)}")
        parts += [_below(inner) for inner in sorted(folder.iterdir()) if (inner / "__init__.py").is_file()]
    return "\n".join(part for part in parts if part)


def _below(folder: Path) -> str:
    """The same for a folder in a subpackage, except the ten folders of exercises."""
    if folder.name.startswith("lesson_"):
        return ""
    name = folder.relative_to(ROOT / "tinygpt").as_posix()
    return f"### {name}/\n\n{_first(folder / '__init__.py')}\n\n{_table(folder)}"


def _table(folder: Path) -> str:
    files = sorted(file for file in folder.glob("*.py") if not file.name.startswith("__"))
    rows = [f"| [{file.name}](../{file.relative_to(ROOT).as_posix()}) | {_first(file)} |" for file in files]
    return "\n".join(["| module | |", "|---|---|", *rows, ""])


def _first(file: Path) -> str:
    """The first sentence of a docstring, which ends at a full stop or a colon before code."""
    text = " ".join((ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").split("\n\n")[0].split())
    match = re.match(r".*?[.:](?= [A-Z`]|$)", text)
    return (match[0] if match else text).rstrip(":").rstrip(".").replace("|", "\\|") + "."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8", newline="\n")
    print(PAGE.relative_to(Path.cwd()))

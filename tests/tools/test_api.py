"""docs/api.md is the docstrings as they are now, and these say shapes, errors and what is meant."""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.conftest import ROOT
from tools import api
from tools.api import Entry

SHAPE = re.compile(r"\([^()]*,[^()]*\)|\bscalar\b|\bshapes?\b|\d-D")
ARRAYS = re.compile(r"\b(Tensor|ndarray|NDArray|Batch|Tokens)\b")


def functions(module: str) -> Iterator[tuple[Entry, str]]:
    """Every public function and method, with all that is said of it: what its class says holds for it, too."""
    known = {entry.name: entry for entry in api.entries(module)}
    for entry in known.values():
        if isinstance(entry.node, ast.FunctionDef):
            yield entry, said(entry)
        bases = [known[base] for base in map(ast.unparse, getattr(entry.node, "bases", [])) if base in known]
        for part in entry.parts:
            method = part.name.rpartition(".")[2]
            inherited = [said(other) for base in bases for other in base.parts if other.name.endswith(f".{method}")]
            yield part, said(part) + said(entry) + "".join(inherited)


def said(entry: Entry) -> str:
    return entry.text + "".join(re.findall("#.*", entry.header))


def test_the_page_is_that_of_the_docstrings() -> None:
    written = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    assert written == api.page(), "docs/api.md is stale: python -m tools.api"


@pytest.mark.parametrize("module", api.MODULES)
def test_every_public_name_says_what_it_is(module: str) -> None:
    names = [entry.name for entry in api.entries(module)]
    assert names
    assert [entry.name for entry in api.entries(module) if not entry.text] == []


@pytest.mark.parametrize("module", api.MODULES)
def test_whatever_takes_or_gives_arrays_says_their_shapes(module: str) -> None:
    typed = {f"{module}.{entry.name}": told for entry, told in functions(module) if ARRAYS.search(entry.header)}
    silent = {name for name, told in typed.items() if not SHAPE.search(told)}
    assert silent == set()


@pytest.mark.parametrize("module", api.MODULES)
def test_every_error_that_a_function_raises_is_named(module: str) -> None:
    silent = set()
    for entry, told in functions(module):
        name = f"{module}.{entry.name}"
        raised = [node.exc for node in ast.walk(entry.node) if isinstance(node, ast.Raise) and node.exc]
        names = {ast.unparse(one.func if isinstance(one, ast.Call) else one) for one in raised} - {"AssertionError"}
        silent |= {name for error in names if error not in told}
    assert silent == set()

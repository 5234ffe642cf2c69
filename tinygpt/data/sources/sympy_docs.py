"""A domain to fine-tune on, SymPy's documentation of physics: `for name, text in texts()`, each a list of one string.

The docstrings of sympy.physics (mechanics, optics, quantum mechanics, control systems, units), with examples and
formulas, in source order; one document per module. They come from SymPy's wheel, read as data (pypi.py): modules are
parsed, never run. Left out: code and tests.
"""

import ast
import re
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path

from tinygpt.data.sources import pypi

WHEEL = pypi.Wheel(
    "sympy==1.14.0", "e091cc3e99d2141a0ba2847328f5479b05d94a6635cb96148ccb3f34671bd8f5", "SymPy's pages on physics"
)


def texts() -> Iterator[tuple[str, list[str]]]:
    """Each module's name (`mechanics/joint`) and its docstrings, separated by blank lines.

    The wheel is downloaded before iteration. Raises ValueError or ConnectionError.
    """
    return _read(pypi.fetch(WHEEL))


def docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and functions, in source order, without indentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # invalid escape sequences
        nodes = list(ast.walk(ast.parse(source)))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    described = [node for node in nodes if isinstance(node, kinds) and ast.get_docstring(node)]
    described.sort(key=lambda node: node.body[0].lineno)
    return [ast.get_docstring(node) or "" for node in described]


def _read(wheel: Path) -> Iterator[tuple[str, list[str]]]:
    with zipfile.ZipFile(wheel) as archive:
        for name in sorted(archive.namelist()):
            module = re.fullmatch(r"sympy/physics/(?!.*tests/)(.*)\.py", name)
            found = docstrings(archive.read(name).decode("utf-8")) if module else []
            if module and found:
                yield module[1].removesuffix("/__init__"), ["\n\n".join(found) + "\n"]

"""Make mutants of a Python source: `mutants(source)`.

A mutant has one small change, such as a deleted statement, another operator or a changed number. Mutants are in source
order, each with the lines that a test must run to detect it. Not mutated, because they affect no result or fail at
once: annotations, docstrings, imports and error messages.
"""

import ast
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

SWAPS: dict[type[ast.AST], Any] = {
    **{ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult},
    **{ast.Mod: ast.FloorDiv, ast.Pow: ast.Mult, ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd, ast.MatMult: ast.Mult},
    **{ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq},
    **{ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.And: ast.Or, ast.Or: ast.And},
}
OPPOSITES: dict[type[ast.AST], Any] = {ast.Lt: ast.GtE, ast.LtE: ast.Gt, ast.Gt: ast.LtE, ast.GtE: ast.Lt}
KEPT = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Pass, ast.Nonlocal, ast.Global)  # not deleted
Change = tuple[str, ast.AST, str]  # kind, the replaced node, its new text


@dataclass(frozen=True)
class Mutant:
    """One wrong version."""

    where: str  # the function, as Class.function
    kind: str
    change: str  # before → after
    lines: range  # of the statement; a test that runs none of them cannot detect the change
    source: str  # the whole file

    @property
    def name(self) -> str:
        return f"{self.where}: {self.change}"


def mutants(source: str) -> list[Mutant]:
    """All mutants, without duplicates; equal changes in one function are numbered."""
    text, tree = source.encode(), ast.parse(source)
    modules = {
        name.asname or name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names
    }
    found: dict[bytes, Mutant] = {}
    taken: dict[str, int] = {}
    for path, (kind, node, new) in walk(tree, (), modules):
        start, end = span(text, node)
        start -= kind == "decorator"  # with its @
        elif_ = kind == "statement" and text[start:].startswith(b"elif")
        mutated = text[:start] + (b"else: pass" if elif_ else new.encode()) + text[end:]
        if isinstance(node, ast.expr) and kind not in ("decorator", "slice") and not stands_alone(node, new):
            mutated = text[:start] + f"({new})".encode() + text[end:]
        if (kind != "statement" or parsed(mutated)) and mutated not in found:
            where = ".".join(n.name for n in path if isinstance(n, ast.FunctionDef | ast.ClassDef)) or "(module)"
            change = described(text, mutated, (start, end), path)
            taken[where + change] = count = taken.get(where + change, 0) + 1
            change += f" ({count})" if count > 1 else ""
            found[mutated] = Mutant(where, kind, change, reached(path), mutated.decode())
    return list(found.values())


def walk(node: ast.AST, path: tuple[ast.AST, ...], modules: set[str]) -> Iterator[tuple[tuple[ast.AST, ...], Change]]:
    """Every change to a node or below it, with the nodes that lead there from the whole file to itself."""
    path = (*path, node)
    for change in [*statements(node, path), *expressions(node, modules)]:
        yield path, change
    if isinstance(node, ast.Raise | ast.JoinedStr | ast.Import | ast.ImportFrom) or is_docstring(node):
        return
    if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
        return  # a negative number is one number
    for field, value in ast.iter_fields(node):
        if field not in ("annotation", "returns"):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from walk(child, path, modules)


def is_docstring(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def statements(node: ast.AST, path: tuple[ast.AST, ...]) -> Iterator[Change]:
    """Mutations of a statement: delete it, negate its condition, return None."""
    if isinstance(node, ast.stmt) and not isinstance(node, KEPT) and not is_docstring(node):
        yield "statement", node, "pass"
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        for decorator in node.decorator_list:
            yield "decorator", decorator, ""
    if isinstance(node, ast.If | ast.While | ast.IfExp) and not isinstance(node.test, ast.Compare | ast.UnaryOp):
        yield "condition", node.test, f"not ({ast.unparse(node.test)})"
    if isinstance(node, ast.comprehension):
        for test in node.ifs:
            yield "condition", test, f"not ({ast.unparse(test)})"
    if isinstance(node, ast.AugAssign) and type(node.op) in SWAPS:
        op = SWAPS[type(node.op)]()
        yield "operator", node, ast.unparse(ast.AugAssign(node.target, op, node.value))
    if isinstance(node, ast.Return) and node.value is not None and isinstance(path[-2], ast.If | ast.For | ast.With):
        yield "return", node.value, "None"


def expressions(node: ast.AST, modules: set[str]) -> Iterator[Change]:
    """Mutations of an expression; `modules`: the names of imported modules."""
    match node:
        case ast.BinOp(left, op, right) if type(op) in SWAPS:
            yield "operator", node, ast.unparse(ast.BinOp(left, SWAPS[type(op)](), right))
        case ast.BoolOp(op, values):
            yield "operator", node, ast.unparse(ast.BoolOp(SWAPS[type(op)](), values))
        case ast.UnaryOp(ast.USub(), ast.Constant(int(value))):
            yield "constant", node, repr(1 - value)
        case ast.UnaryOp(_, operand):
            yield "operator", node, ast.unparse(operand)
        case ast.Compare():
            yield from comparisons(node)
        case ast.Constant(bool() | int() | float() | str()):
            yield "constant", node, constant(node.value)
        case ast.Slice(lower, upper, step):
            for rest in (ast.Slice(None, upper, step), ast.Slice(lower, None, step)):
                if ast.dump(rest) != ast.dump(node):
                    yield "slice", node, ast.unparse(rest)
        case ast.Call():
            yield from calls(node, modules)


def comparisons(node: ast.Compare) -> Iterator[Change]:
    """Include or exclude equality, and the opposite comparison."""
    for i, op in enumerate(node.ops):
        for swap in (SWAPS, OPPOSITES):
            if type(op) in swap:
                ops = [*node.ops[:i], swap[type(op)](), *node.ops[i + 1 :]]
                yield "comparison", node, ast.unparse(ast.Compare(node.left, ops, node.comparators))


def constant(value: Any) -> str:
    """Another value of the same type: n + 1, 1.5 × x, the other boolean, or an unused string."""
    if isinstance(value, bool):
        return repr(not value)
    if isinstance(value, str):
        return repr("?" + value)
    return repr(value + 1 if isinstance(value, int) else 1.5 * value or 1.0)


def calls(node: ast.Call, modules: set[str]) -> Iterator[Change]:
    """Drop a keyword argument; make it not in place; replace the call by its argument or owner."""
    for keyword in node.keywords:
        if keyword.arg is not None:
            rest = [other for other in node.keywords if other is not keyword]
            yield "argument", node, ast.unparse(ast.Call(node.func, node.args, rest))
    if isinstance(node.func, ast.Attribute):
        owner, name = node.func.value, node.func.attr
        if name.endswith("_") and not name.endswith("__"):
            function = ast.Attribute(owner, name.rstrip("_"), ast.Load())
            yield "in place", node, ast.unparse(ast.Call(function, node.args, node.keywords))
        if is_no_value(owner, modules):
            if node.args:
                yield "call", node, ast.unparse(node.args[0])
        else:
            yield "call", node, ast.unparse(owner)
    elif node.args and not isinstance(node.args[0], ast.Starred | ast.GeneratorExp):
        yield "call", node, ast.unparse(node.args[0])


def is_no_value(owner: ast.AST, modules: set[str]) -> bool:
    """Whether the owner of a method is a module, a part of one, or self."""
    root = ast.unparse(owner).partition(".")[0]
    return ast.unparse(owner) == "self" or (root in modules and "(" not in ast.unparse(owner))


def span(text: bytes, node: Any) -> tuple[int, int]:
    """The start and end of a node, in bytes."""
    lines = text.splitlines(keepends=True)
    start, end = (sum(map(len, lines[: line - 1])) for line in (node.lineno, node.end_lineno))
    return start + node.col_offset, end + node.end_col_offset


def stands_alone(old: ast.expr, text: str) -> bool:
    """Whether the new text needs no brackets in the old expression's place."""
    new = ast.parse(text, mode="eval").body
    if isinstance(new, ast.BinOp) and isinstance(old, ast.BinOp):
        return not isinstance(old.op, ast.Pow)
    atoms = (ast.Constant, ast.Name, ast.Attribute, ast.Call, ast.Subscript)
    return isinstance(new, atoms) or (isinstance(new, ast.Compare) and isinstance(old, ast.Compare))


def parsed(text: bytes) -> bool:
    """Whether a source is valid Python: deleting a statement may leave an else without its if."""
    try:
        ast.parse(text)
    except SyntaxError:
        return False
    return True


def described(text: bytes, mutated: bytes, place: tuple[int, int], path: tuple[ast.AST, ...]) -> str:
    """before → after, with enough context to recognise the change."""
    start, end = place
    for node in reversed(path):
        if not isinstance(node, ast.expr | ast.stmt | ast.keyword):
            continue
        first, last = span(text, node)
        if last - first > 60 or isinstance(node, ast.FunctionDef | ast.ClassDef):
            break
        start, end = min(first, start), max(last, end)
    before, after = (
        " ".join(part.decode().split()) for part in (text[start:end], mutated[start : end + len(mutated) - len(text)])
    )
    return f"{textwrap.shorten(before, 80, placeholder=' …') if after == 'pass' else before} → {after or 'nothing'}"


def reached(path: tuple[ast.AST, ...]) -> range:
    """The lines of the changed statement; of a compound statement, those of its head."""
    statement: Any = [node for node in path if isinstance(node, ast.stmt)][-1]
    if isinstance(statement, ast.FunctionDef) or not hasattr(statement, "body"):
        return range(statement.lineno, statement.end_lineno + 1)
    return range(statement.lineno, max(statement.body[0].lineno, statement.lineno + 1))

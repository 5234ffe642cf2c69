"""HTML sections and tables for the report (build.py)."""

import html
from collections.abc import Iterable, Iterator, Sequence

MARKED = ' class="differs"'


def section(place: str, title: str, parts: Iterable[str]) -> str:
    content = "\n".join(parts)
    return f'<section id="{place}">\n<h2>{title}</h2>\n{content}\n</section>' if content else ""


def table(head: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], marked: Iterable[str] = ()) -> str:
    """A table whose rows are named; those in `marked` stand out."""

    def lines() -> Iterator[str]:
        for name, cells in rows:
            columns = "".join(f"<td>{html.escape(cell)}</td>" for cell in (name, *cells))
            yield f"<tr{MARKED if name in marked else ''}>{columns}</tr>"

    heads = "".join(f"<th>{html.escape(cell)}</th>" for cell in head)
    return f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(lines())}</tbody></table></div>'

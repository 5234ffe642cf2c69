"""Task scores as text: `table(metrics["tasks"])` → lines, `label(name)` → a task's name to be read."""

from collections.abc import Iterator

Numbers = dict[str, float]  # score, low, high, items; where they apply chance, five_gram, oracle, before
HEADS = ("task", "score", "95% interval", "chance", "5-gram", "oracle", "before")
BESIDE = ("chance", "five_gram", "oracle", "before")  # the last four, as keys of Numbers


def table(tasks: dict[str, Numbers]) -> Iterator[str]:
    """A line for each task, under a line of headings; the base model's column only if there is one."""
    rows = [HEADS, *(_cells(name, numbers) for name, numbers in tasks.items())]
    if not any("before" in numbers for numbers in tasks.values()):
        rows = [row[:-1] for row in rows]
    yield from aligned(rows)


def label(name: str) -> str:
    """`sort_words_exact_match` → sort words, exact match."""
    return name.replace("_exact_match", ", exact match").replace("_", " ")


def percent(share: float | None) -> str:
    """0.125 → 12.5%; – for None."""
    return "–" if share is None else f"{share:.1%}"


def interval(numbers: Numbers) -> str:
    """The 95% interval: 20.9 to 33.0%."""
    return f"{100 * numbers['low']:.1f} to {percent(numbers['high'])}"


def aligned(rows: list[tuple[str, ...]]) -> Iterator[str]:
    """Rows of equally many cells as lines, the first column on the left, the others on the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for name, *cells in rows:
        padded = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([name.ljust(widths[0]), *padded]).rstrip()


def _cells(name: str, numbers: Numbers) -> tuple[str, ...]:
    beside = (percent(numbers.get(key)) for key in BESIDE)
    return (label(name), percent(numbers["score"]), interval(numbers), *beside)

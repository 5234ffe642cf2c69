"""The evaluations on this machine, in .tinygpt/evaluations.jsonl, which neither git nor DVC tracks."""

import json
from typing import Any

from tinygpt.files.paths import hidden
from tinygpt.files.text import write_text

KEPT = 1000  # evaluations


def append(numbers: dict[str, Any]) -> dict[str, Any] | None:
    """Append this evaluation; return the previous one, or None."""
    log = hidden("evaluations.jsonl")
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    write_text(log, "".join(line + "\n" for line in [*lines[1 - KEPT :], json.dumps(numbers)]))
    before: dict[str, Any] = json.loads(lines[-1]) if lines else {}
    return before if "baselines" in before else None  # early versions wrote other keys

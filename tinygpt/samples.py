"""Samples to look at: every prompt continued, and a grid that shows what temperature and top-p do.

`collect` makes the records, one dictionary a sample, each with its seed, its settings and the hashes that trace it;
`as_markdown` lays them out for reading.
"""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from tinygpt.config import Sample
from tinygpt.generation import Completion, generate_batch
from tinygpt.model import GPT
from tinygpt.sampling import Sampling
from tinygpt.tokenizer import Tokenizer

Record = dict[str, Any]
GRID_TOKENS = 60  # enough to hear the difference, short enough to compare


def settings_of(section: Sample) -> Sampling:
    """The `sample` section's way of choosing tokens."""
    return Sampling(
        temperature=section.temperature,
        top_k=section.top_k,
        top_p=section.top_p,
        min_p=section.min_p,
        repetition_penalty=section.repetition_penalty,
    )


def collect(model: GPT, tokenizer: Tokenizer, section: Sample, seed: int, hashes: dict[str, Any]) -> Iterator[Record]:
    """All samples of the section: `num_samples` of each prompt, then one at each pair of the grid."""
    plain, length = settings_of(section), section.max_new_tokens
    prompts = [prompt for prompt in section.prompts for _ in range(section.num_samples)]
    seeds = [seed + i for _ in section.prompts for i in range(section.num_samples)]
    made = generate_batch(model, tokenizer, prompts, [plain] * len(prompts), seeds, length)
    yield from (record(completion, plain, length, hashes) for completion in made)
    length = min(GRID_TOKENS, length)
    pairs = [(temperature, top_p) for temperature in section.grid.temperature for top_p in section.grid.top_p]
    grid = [replace(plain, temperature=temperature, top_p=top_p) for temperature, top_p in pairs]
    made = generate_batch(model, tokenizer, [section.prompts[0]] * len(grid), grid, [seed] * len(grid), length)
    yield from (record(*one, length, hashes) | {"grid": True} for one in zip(made, grid, strict=True))


def record(completion: Completion, settings: Sampling, max_new_tokens: int, hashes: dict[str, Any]) -> Record:
    """One sample as `tinygpt generate --json` prints it and samples.jsonl holds it."""
    return {
        "prompt": completion.prompt,
        "completion": completion.completion,
        "text": completion.text,
        "seed": completion.seed,
        "settings": asdict(settings) | {"max_new_tokens": max_new_tokens},
        "hashes": hashes,
    }


def as_markdown(records: list[Record]) -> str:
    """The samples as a page; model text stands in code blocks, so that it is shown and never interpreted."""
    plain = [sample for sample in records if "grid" not in sample]
    grid = [sample for sample in records if "grid" in sample]
    first, hashes = records[0], records[0]["hashes"]
    lines = [
        "# Samples",
        "",
        f"Model `{hashes['model'][:12]}`, tokenizer `{hashes['tokenizer'][:12]}`; {_shown(first['settings'])}.",
    ]
    lines.append("Each text begins with its prompt. samples.jsonl holds the settings and full hashes.")
    for sample in plain:
        lines += [
            "",
            f"## {' '.join(sample['prompt'].split()) or '(nothing)'} · seed {sample['seed']}",
            "",
            *fenced(sample["text"]),
        ]
    if grid:
        lines += [
            "",
            "# What temperature and top-p do",
            "",
            f"The same prompt and seed ({grid[0]['seed']}), one knob at a time.",
        ]
    for sample in grid:
        knobs = sample["settings"]
        lines += [
            "",
            f"**temperature {knobs['temperature']:g}, top-p {knobs['top_p']:g}**",
            "",
            *fenced(sample["text"]),
        ]
    return "\n".join(lines) + "\n"


def fenced(text: str, language: str = "text") -> list[str]:
    """A code block whose fence is longer than any run of backticks in the text."""
    fence = "```"
    while fence in text:
        fence += "`"
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _shown(settings: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in settings.items())

"""300 mutated params.yaml: each is refused in a sentence that names the key, or is one that can honestly be run."""

import random
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ROOT
from tinygpt import config
from tinygpt.errors import ConfigError
from tinygpt.generation.samples import settings_of
from tinygpt.model.gpt import GPTConfig
from tinygpt.training import optimizer

COUNT = 300
TEXT = (ROOT / "params.yaml").read_text(encoding="utf-8")
JUNK: list[Any] = [
    *(None, True, False, "", "1e-2", "7", "nan", "\ud800", "\x00", "é" * 500),
    *(-1, 0, 1, 2, 3, 0.5, 1.0, -0.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")),
    *(10**18, 2**63, 2**64, 10**400 + 1, -(10**400)),
    *([], [[]], [None], [0.5, "x"], [float("nan")], [10**400, 10**400]),
    *({}, {"a": {"b": [1, {"c": None}]}}, {1: 2}, {None: None}),
]
SYNTAX = [  # YAML in place of a value
    *("[", "]", "{", "}", "'", '"', "|", ">", "&a", "*a", "&a [*a]", "%", "@", "`", "- - -", "a: b: c", "\t- x"),
    *("!!python/name:os.system", "!!bool maybe", "!!int", "!!int [1]", "!!float", "!!float x", "!!timestamp x"),
    *(
        "!!binary é",
        "!!set {a}",
        "!!null x",
        "!!map x",
        "!!seq x",
        "!unknown x",
        "2020-01-01",
        "\x07",
        "--- 1",
        "... 1",
    ),
    *("1" * 5000, "0x", "0o9", "0b11", "+1", "1_000", ".inf", "-.inf", ".nan", "1e999", '"\\ud800"', '"\\x00"'),
    *("? [a]", "{? [a] : 1}", "{? {} : 1}", "{[1]: 2}", "<<: {a: 1}", "{<<: 1}"),
]


def places(values: dict[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The path to every key, sections included."""
    for key, value in values.items():
        yield (*above, key)
        if isinstance(value, dict):
            yield from places(value, (*above, key))


PLACES = list(places(yaml.safe_load(TEXT)))


def parent(values: dict[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    for key in place[:-1]:
        values = values[key]
    return values


def set_to_junk(rng: random.Random, values: dict[str, Any], place: tuple[str, ...]) -> str:
    parent(values, place)[place[-1]] = rng.choice(JUNK)
    return place[-1]


def nudge(rng: random.Random, values: dict[str, Any], place: tuple[str, ...]) -> str:
    """A number a little, or far, from what it was; a text with a letter less."""
    old = parent(values, place)[place[-1]]
    if isinstance(old, int | float) and not isinstance(old, bool):
        old = rng.choice(
            [
                old * 10 ** rng.randint(-30, 30),
                -old,
                old + 1,
                old - 1,
                old * 2,
                old / 3,
                old // 2,
                old * 10**400 + 1 if isinstance(old, int) else old,
            ]
        )
    elif isinstance(old, str):
        old = old[:-1]
    elif isinstance(old, list):
        old = rng.choice([old * 2, old[:1], [old], [*old, None]])
    parent(values, place)[place[-1]] = old
    return place[-1]


def misspell(rng: random.Random, values: dict[str, Any], place: tuple[str, ...]) -> str:
    """The key with a letter changed, dropped or doubled, or as another type."""
    holder, key = parent(values, place), place[-1]
    at = rng.randrange(len(key))
    wrong: Any = rng.choice(
        [
            key[:at] + key[at + 1 :],
            key[:at] + "q" + key[at + 1 :],
            key[:at] + key[at] + key[at:],
            key.upper(),
            7,
            None,
            True,
            0.5,
            "",
            "é\n",
            "\ud800",
        ]
    )
    holder[wrong] = holder.pop(key)
    return key


def remove(rng: random.Random, values: dict[str, Any], place: tuple[str, ...]) -> str:
    parent(values, place).pop(place[-1])
    return place[-1]


def move(rng: random.Random, values: dict[str, Any], place: tuple[str, ...]) -> str:
    """The key in another section."""
    moved = parent(values, place).pop(place[-1])
    values[rng.choice([name for name in ("train", "model", "sample", "runtime") if name in values])][
        place[-1] + "_"
    ] = moved
    return place[-1]


Change = Callable[[random.Random, dict[str, Any], tuple[str, ...]], str]
CHANGES: list[Change] = [set_to_junk, set_to_junk, nudge, nudge, misspell, remove, move]


def changed_value(rng: random.Random) -> tuple[bytes, list[str]]:
    """One value or key of the parameters changed, and what the refusal must name."""
    values = yaml.safe_load(TEXT)
    key = rng.choice(CHANGES)(rng, values, rng.choice(PLACES))
    return yaml.safe_dump(values, sort_keys=False).encode("utf-8", "surrogatepass"), [key, "\\ud800"]


def changed_text(rng: random.Random) -> tuple[bytes, list[str]]:
    """Syntax in place of a value, or a key twice; such a refusal names the key or the line."""
    lines = TEXT.splitlines()
    at = rng.choice([number for number, line in enumerate(lines) if ":" in line and not line.startswith("#")])
    key = lines[at].split(":")[0].strip()
    if rng.random() < 0.2:
        lines.insert(at, lines[at])
    else:
        lines[at] = lines[at].split(":")[0] + ": " + rng.choice(SYNTAX)
    return "\n".join(lines).encode("utf-8", "surrogatepass"), [key, "line", "position"]


def changed_bytes(rng: random.Random) -> tuple[bytes, list[str]]:
    """Cut short, random bytes put in, another encoding, or no text at all; the refusal says where, or what to do."""
    data = bytearray(TEXT.encode())
    at = rng.randrange(len(data))
    kind = rng.randrange(6)
    if kind == 0:
        data = data[:at]
    elif kind == 1:
        data[at : at + 3] = rng.randbytes(rng.randint(1, 40))
    elif kind == 2:
        data = bytearray(TEXT.encode(rng.choice(["utf-16", "utf-32", "utf-8-sig"])))
    elif kind == 3:
        data = bytearray(rng.randbytes(rng.randint(0, 2000)))
    elif kind == 4:
        data[at] ^= 1 << rng.randrange(8)
    else:
        data = bytearray(rng.choice(["[", "{a: ", "- ", "&a [", "!!x "]) * rng.randint(1, 3000), "utf-8")
    return bytes(data), ["."]


def mutant(seed: int) -> tuple[bytes, list[str]]:
    """A mutated file; of what the last item holds, its refusal must name something."""
    rng = random.Random(seed)
    return rng.choice([changed_value, changed_value, changed_text, changed_bytes])(rng)


def use(params: config.Params) -> None:
    """What the stages do with parameters before any work."""
    shape = GPTConfig(vocab_size=300, **params.model.model_dump())
    assert shape.hidden >= 1
    assert shape.head_width >= 1
    for step in (0, params.train.warmup_steps, params.train.steps - 1):
        assert 0 <= optimizer.schedule(min(step, params.train.steps - 1), params.train) <= 1
    settings_of(params.sample)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """For each seed: "run", "refused", or what went wrong."""
    file = tmp_path_factory.mktemp("params") / "params.yaml"
    return [(seed, outcome(file, seed)) for seed in range(COUNT)]


def outcome(file: Path, seed: int) -> str:
    content, names = mutant(seed)
    file.write_bytes(content)
    return told(lambda: config.load(file), names)


def told(read: Callable[[], config.Params], names: list[str]) -> str:
    """What becomes of parameters: "run", "refused" in words that hold one of `names`, or what went wrong."""
    try:
        use(read())
    except (ConfigError, FileNotFoundError) as refusal:
        text = str(refusal)
        text.encode()  # it can be printed
        named = any(name in text for name in names) and len(text) < 8000
        return "refused" if named else f"refused without naming any of {names}: {text}"
    except Exception:  # whatever it is, a person would see a traceback
        return traceback.format_exc(limit=-3)
    return "run"


def test_300_mutated_parameter_files_end_in_a_sentence_or_can_be_run(outcomes: list[tuple[int, str]]) -> None:
    assert [(seed, found) for seed, found in outcomes if found not in ("run", "refused")] == []


def test_the_mutations_are_of_both_kinds(outcomes: list[tuple[int, str]]) -> None:
    refused = sum(found == "refused" for _, found in outcomes)
    assert len(outcomes) == COUNT
    assert COUNT * 0.6 < refused < COUNT * 0.98


@pytest.mark.parametrize("text", SYNTAX)
def test_no_yaml_in_place_of_a_value_ends_in_a_traceback(tmp_path: Path, text: str) -> None:
    file = tmp_path / "params.yaml"
    file.write_bytes(TEXT.replace("seed: 1337", f"seed: {text}", 1).encode("utf-8", "surrogatepass"))
    assert told(lambda: config.load(file), ["seed", "line", "position"]) in ("run", "refused")


@pytest.mark.parametrize("value", JUNK, ids=lambda value: repr(value)[:20])
def test_no_value_anywhere_ends_in_a_traceback(value: Any) -> None:
    for place in PLACES:
        values = yaml.safe_load(TEXT)
        parent(values, place)[place[-1]] = value
        assert told(partial(config.check, values), [place[-1]]) in ("run", "refused")

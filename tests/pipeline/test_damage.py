"""500 damaged copies of a run's save and of a model folder: none is loaded silently, none executed, none takes memory.

The same 500 again, with SHA256SUMS renewed by whoever did the damage, and, for model folders, without any: then each is
refused in a sentence, or is a model that works (a weight, or a text that nobody computes with, has another value).
"""

import json
import pickle
import random
import resource
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from tests.conftest import CPU, GPT2, TEXT, gpt_config, params
from tinygpt.checkpoints.model_folder import hashes, load, save_model
from tinygpt.data import train_tokenizer
from tinygpt.data.dataset import TokenDataset
from tinygpt.files.checksums import SUMS, seal, verify
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.training.loop import train
from tinygpt.training.run import resume
from tinygpt.training.run_folder import RunFolder
from tinygpt.training.state import State, initial_state

COUNT = 500
HEADROOM = 400 * 2**20  # bytes of address space that 500 loads may add; a damaged header may claim a million times that
LINEAGE = {"text": {"train": "t", "validation": "v"}, "tokenizer": "k", "params": "p"}
STEPS = ("step-000000002", "step-000000004")


class Original(NamedTuple):
    """A folder to damage copies of; where it is a run's, the newer of its two saves is damaged."""

    folder: Path
    state: State | None  # of a run: as it was before any step

    def damaged_part(self, copy: Path) -> Path:
        return copy / STEPS[1] if self.state else copy


def trained(seed: int, **changes: Any) -> tuple[State, State, Tokenizer, Any]:
    """A fresh state, the same on its way, and what it takes to go on."""
    settings = params(train__steps=4, train__eval_every=2, train__optimizer=changes.pop("optimizer", "muon")).train
    words = train_tokenizer.build(
        params(tokenize__kind=changes.pop("kind", "char"), tokenize__vocab_size=300).tokenize, [TEXT]
    )
    ids = np.array(words.encode(TEXT), dtype=np.uint16)
    states = [initial_state(gpt_config(words.vocab_size, **changes), settings, seed, CPU, "fp32") for _ in range(2)]
    data = {"train": TokenDataset(ids, 16), "validation": TokenDataset(ids[:200], 16)}
    steps = train(states[1], settings, data, seed, "fp32")
    return states[0], states[1], words, steps


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Original]:
    """Two models and two runs, of which each pair differs in all that it can."""
    made = []
    for seed, changes in enumerate([{}, {**GPT2, "n_layer": 1, "kind": "bpe", "optimizer": "adamw"}]):
        fresh, state, words, steps = trained(seed, **changes)
        folder = tmp_path_factory.mktemp(f"original{seed}")
        with RunFolder(folder / "run", keep=2) as run:
            for _ in steps:
                if state.step % 2 == 0:
                    run.save(state.step, state.tensors(), state.metadata())
        save_model(folder / "model", state.model.config, state.best, words, LINEAGE)
        (folder / "run/holder.json").unlink()
        made += [Original(folder / "model", None), Original(folder / "run", fresh)]
    return made


@pytest.fixture(autouse=True)
def little_memory() -> Iterator[None]:
    """Make taking much memory an error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + HEADROOM, hard))
    yield
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


class Evil:
    """Its pickle makes a file when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.marker,)


def test_the_evil_pickle_is_evil(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Evil(tmp_path / "marker")))  # noqa: S301 (so that the tests below can fail)
    assert (tmp_path / "marker").exists()


class Damage(NamedTuple):
    """What is done to a copy: a random source, the copy's folder, the folder of another, where the pickle writes."""

    rng: random.Random
    folder: Path
    other: Path
    marker: Path

    def pick(self, suffix: str = "") -> Path:
        """One of the files of the copy."""
        return self.rng.choice(sorted(file for file in self.folder.iterdir() if file.name.endswith(suffix)))


def cut_short(damage: Damage) -> None:
    file = damage.pick()
    data = file.read_bytes()
    file.write_bytes(data[: damage.rng.choice([0, 1, 7, 8, 9, len(data) - 1, damage.rng.randrange(len(data))])])


def flip_a_bit(damage: Damage) -> None:
    """Anywhere in a file; every other time among its first 2000 bytes, where headers are."""
    file = damage.pick()
    data = bytearray(file.read_bytes())
    data[damage.rng.randrange(min(len(data), damage.rng.choice([2000, 10**9])))] ^= 1 << damage.rng.randrange(8)
    file.write_bytes(data)


def lie_about_the_header(damage: Damage) -> None:
    file = damage.pick(".safetensors")
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    lie = damage.rng.choice([0, 1, length - 1, length + 1, length * 2, len(data), 10**8, 2**40, 2**63, 2**64 - 1])
    file.write_bytes(lie.to_bytes(8, "little") + data[8:])


def lie_in_the_header(damage: Damage) -> None:
    """A tensor's shape, dtype or place is another, or it is gone, or there twice."""
    file = damage.pick(".safetensors")
    data = file.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    name = damage.rng.choice([name for name in sorted(header) if name != "__metadata__"])
    entry, key = header[name], damage.rng.choice(["dtype", "shape", "data_offsets", "name", "twin"])
    if key == "name":
        header[damage.rng.choice(["x", "", "../../x", "model", "rows.train"])] = header.pop(name)
    elif key == "twin":
        header["twin"] = entry
    elif key == "dtype":
        entry[key] = damage.rng.choice(["F64", "F16", "I32", "U8", "F8_E4M3", "F4", "BOOL", "C64", "x", 1, None])
    else:
        entry[key] = damage.rng.choice(
            [[], [0], [2**40, 2**40], [-1, 5], entry[key][::-1], [1, *entry[key]], "x", None]
        )
    new = json.dumps(header).encode()
    file.write_bytes(len(new).to_bytes(8, "little") + new + data[8 + length :])


def retype_json(damage: Damage) -> None:
    """A key, at any depth, is removed, or another, or its value of another type or size."""
    file = damage.pick(".json")
    values = json.loads(file.read_text(encoding="utf-8"))
    holder = values
    while True:
        key = damage.rng.choice(sorted(holder) if isinstance(holder, dict) else range(len(holder)))
        if not isinstance(holder[key], dict | list) or not holder[key] or damage.rng.random() < 0.4:
            break
        holder = holder[key]
    junk: list[Any] = [
        *(None, True, "", "x", "x" * 10**6, [], {}, [[]]),
        *(-1, 0, 1, 3, 2**31, 2**63, 10**400, 0.5, 1e308, float("nan"), float("inf")),
    ]
    match damage.rng.randrange(4):
        case 0:
            del holder[key]
        case 1 if isinstance(holder, dict):
            holder[str(key) + "_"] = holder.pop(key)
        case _:
            holder[key] = damage.rng.choice(junk)
    file.write_text(json.dumps(values), encoding="utf-8")


def claim_a_giant(damage: Damage) -> None:
    """Numbers in JSON that would take all memory, were they believed; or JSON without end."""
    file = damage.pick(".json")
    text = file.read_text(encoding="utf-8")
    values = json.loads(text)
    sizes = [key for key, value in values.items() if isinstance(value, int) and not isinstance(value, bool)]
    if sizes and damage.rng.random() < 0.8:
        for key in damage.rng.sample(sizes, damage.rng.randint(1, min(3, len(sizes)))):
            values[key] = damage.rng.choice([10**5, 10**7, 10**9, 10**12, 2**62])
        text = json.dumps(values)
    else:
        text = damage.rng.choice(["[" * 10**5, '{"a":' * 10**5, "9" * 10**5, "[" + "0," * 10**5 + "0]"])
    file.write_text(text, encoding="utf-8")


def swap(damage: Damage) -> None:
    """A file of another run, or another model."""
    file = damage.pick()
    shutil.copy(damage.other / file.name, file)


def put_in_a_pickle(damage: Damage) -> None:
    file, evil = damage.pick(), Evil(damage.marker)
    if damage.rng.random() < 0.5:
        torch.save(evil, file)
    else:
        file.write_bytes(pickle.dumps(evil, protocol=damage.rng.randint(0, 5)))


def remove(damage: Damage) -> None:
    damage.pick().unlink()


def add(damage: Damage) -> None:
    (damage.folder / damage.rng.choice(["pytorch_model.bin", "modeling.py", "a"])).write_bytes(
        pickle.dumps(Evil(damage.marker))
    )


def make_a_folder_of_it(damage: Damage) -> None:
    file = damage.pick()
    file.unlink()
    file.mkdir()


DAMAGES = [
    *(cut_short, flip_a_bit, flip_a_bit, lie_about_the_header, lie_in_the_header, lie_in_the_header),
    *(retype_json, retype_json, claim_a_giant, swap, put_in_a_pickle, remove, add, make_a_folder_of_it),
]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {file.name: file.read_bytes() if file.is_file() else None for file in folder.iterdir()}


class Copy(NamedTuple):
    """A damaged copy."""

    what: str  # in words
    original: Original
    folder: Path
    marker: Path


def damaged(originals: list[Original], scratch: Path, seed: int) -> Copy:
    """A copy of one of the originals, damaged in one way that changes a byte."""
    rng = random.Random(seed)
    chosen = rng.randrange(len(originals))
    original, other = originals[chosen], originals[chosen - 2]
    copy, marker = scratch / "copy", scratch / "marker"
    for _ in range(100):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(original.folder, copy)
        part, kind = original.damaged_part(copy), rng.choice(DAMAGES)
        kind(Damage(rng, part, other.damaged_part(other.folder), marker))
        if contents(part) != contents(original.damaged_part(original.folder)):
            return Copy(f"seed {seed}, {kind.__name__}, {original.folder.name} {chosen // 2}", original, copy, marker)
    raise AssertionError("no damage in 100 tries")


def opened(copy: Copy) -> str:
    """What becomes of a copy: "loaded", "refused", or what is wrong with that."""
    try:
        found = open_run(copy) if copy.original.state else open_model(copy)
    except (ValueError, OSError) as problem:
        found = "refused" if str(copy.folder) in str(problem) else f"refused without the folder's name: {problem!r}"
    except BaseException:
        found = traceback.format_exc(limit=-4)
    return found if not copy.marker.exists() else "executed"


def open_model(copy: Copy) -> str:
    """Load a model, and all that is said of it, and use it."""
    model, words = load(copy.folder)
    hashes(copy.folder)
    assert model(torch.tensor([[0, words.end_of_text]])).shape == (1, 2, words.vocab_size)
    return "loaded"


def open_run(copy: Copy) -> str:
    """Go on with a run: from the damaged save, or from the one before it where the damaged one is named."""
    assert copy.original.state is not None
    config, members = copy.original.state.model.config, copy.original.state.optimizers.members
    settings = params(train__optimizer="muon" if len(members) == 2 else "adamw").train
    state = initial_state(config, settings, 0, CPU, "fp32")
    with RunFolder(copy.folder, keep=2) as run:
        resume(run, state, print)
    if state.step == 2:
        named = len(run.damaged) == 1 and STEPS[1] in run.damaged[0]
        return "refused" if named else f"passed over without a word: {run.damaged}"
    assert state.step == 4
    return "loaded"


def test_the_undamaged_ones_load(originals: list[Original], tmp_path: Path) -> None:
    for original in originals:
        copy = Copy(
            "undamaged", original, Path(shutil.copytree(original.folder, tmp_path / "copy")), tmp_path / "marker"
        )
        assert opened(copy) == "loaded"
        shutil.rmtree(tmp_path / "copy")


def test_none_of_500_damaged_copies_is_loaded_or_executed(originals: list[Original], tmp_path: Path) -> None:
    wrong = []
    for seed in range(COUNT):
        copy = damaged(originals, tmp_path, seed)
        if not copy.original.state and not (copy.folder / SUMS).exists():
            continue  # checked below, as a stranger's
        if (found := opened(copy)) != "refused":
            wrong.append(f"{copy.what}: {found}")
    assert wrong == []


@pytest.mark.slow
@pytest.mark.parametrize("renew", [True, False], ids=["renewed", "removed"])
def test_with_sums_renewed_or_removed_the_damage_is_refused_or_harmless(
    originals: list[Original], tmp_path: Path, renew: bool
) -> None:
    outcomes, wrong = {"refused": 0, "loaded": 0}, []
    for seed in range(COUNT):
        copy = damaged(originals, tmp_path, seed)
        if copy.original.state and not renew:
            continue  # a save without sums is refused, which the test above shows
        part = copy.original.damaged_part(copy.folder)
        shutil.rmtree(part / SUMS) if (part / SUMS).is_dir() else (part / SUMS).unlink(missing_ok=True)
        if renew and all(file.is_file() for file in part.iterdir()):
            seal(part)
        found = opened(copy)
        if found in outcomes:
            outcomes[found] += 1
        else:
            wrong.append(f"{copy.what}: {found}")
    assert wrong == []
    assert outcomes["refused"] > outcomes["loaded"] > 0  # bits of weights, lineage that names other hashes


def test_no_flipped_bit_and_no_missing_end_of_the_sums_goes_unseen(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    seal(tmp_path)
    whole = (tmp_path / SUMS).read_bytes()
    damages = [whole[:end] for end in range(len(whole))]
    damages += [
        whole[:at] + bytes([whole[at] ^ 1 << bit]) + whole[at + 1 :] for at in range(len(whole)) for bit in range(8)
    ]
    for data in damages:
        (tmp_path / SUMS).write_bytes(data)
        with pytest.raises(ValueError, match="is damaged"):
            verify(tmp_path)

"""The reference projects of the race, each run according to its documentation in a copy of its checkout.

`NanoGPT(checkout, text, folder).run(repeat)` and `NanoChat(…).run(repeat)` → a `Result`. Data preparation and tokenizer
training are not timed, for the references and for TinyGPT. benchmark/reference_loss.py measures the final loss on the
whole held-out text; the curve is the reference's own estimate.
"""

import json
import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmark.common import ROOT, copied, python, watch

Curve = list[tuple[float, float]]  # seconds since the process was started, bits per byte of held-out text

NANOGPT_RECIPES = {  # from its README; prints losses every 250 steps
    "cpu": "config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
    "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 --lr_decay_iters=2000 "
    "--dropout=0.0",
    "cuda": "config/train_shakespeare_char.py",
}
NANOCHAT_RECIPE = (  # runs/runcpu.sh, smaller
    "--depth=4 --aspect-ratio=32 --head-dim=32 --window-pattern=L --max-seq-len=256 --device-batch-size=16 "
    "--total-batch-size=4096 --num-iterations=300 --eval-every=100 --eval-tokens=32768 --core-metric-every=-1 "
    "--sample-every=-1 --device-type=cpu"
)
NANOCHAT_VOCABULARY = 1024
DOCUMENT = 600  # characters: about as long as nanochat's context, so that little is cropped


@dataclass(frozen=True)
class Result:
    """One training run from scratch."""

    system: str
    run: str
    repeat: int
    whole_seconds: float  # of the process that trains
    step_seconds: float  # of training and validation steps, without startup and saving (for nanochat also without the
    # first step, which compiles; other systems' compilation is included)
    bits_per_byte: float  # at the end, on the whole held-out text
    curve: Curve = field(default_factory=list)
    until_best: bool = False  # count only the time to the best validation loss, since it overfits afterwards

    @property
    def seconds_to_best(self) -> float:
        """The time of the whole process, or until the best validation step."""
        return min(self.curve, key=lambda point: point[1])[0] if self.until_best else self.whole_seconds


def compiled_anew(folder: Path, repeat: int) -> dict[str, str]:
    """Environment variables for an empty compilation cache, as in a new user's first run."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(folder / f"compiled-{repeat}")}


def split(text: str) -> tuple[str, str]:
    """Training and held-out text, split like nanoGPT's: the last tenth of the characters is held out."""
    cut = int(len(text) * 0.9)
    return text[:cut], text[cut:]


def documents(text: str) -> list[str]:
    """The text in documents of at least DOCUMENT characters, split at blank lines (the last may be shorter)."""
    found, current = [], ""
    for part in re.findall(r".*?\n\n|.+$", text, flags=re.DOTALL):
        current += part
        if len(current) >= DOCUMENT:
            found.append(current)
            current = ""
    return found + ([current] if current else [])


def nanogpt_losses(lines: Iterable[tuple[float, str]]) -> Curve:
    """(seconds, held-out loss in nats per character) from what nanoGPT prints."""
    pattern = re.compile(r"step \d+: train loss [\d.]+, val loss ([\d.]+)")
    found = [(seconds, pattern.match(line)) for seconds, line in lines]
    return [(seconds, float(match[1])) for seconds, match in found if match]


def nanochat_losses(lines: Iterable[tuple[float, str]]) -> Curve:
    """(seconds, held-out bits per byte) from what nanochat prints."""
    pattern = re.compile(r"Step \d+ \| Validation bpb: ([\d.]+)")
    found = [(seconds, pattern.match(line)) for seconds, line in lines]
    return [(seconds, float(match[1])) for seconds, match in found if match]


def final_loss(reference: str, folder: Path, text: Path, environment: dict[str, str]) -> float:
    """Bits per byte of the held-out part of `text`, for the model that the reference saved in `folder`."""
    command = python(str(ROOT / "benchmark/reference_loss.py"), reference, str(text.resolve()))
    value: float = json.loads(watch(command, folder, environment).lines[-1][1])
    return value


class NanoGPT:
    """nanoGPT's character-level recipes with AdamW. CPU: 0.8 million parameters, 2000 steps. GPU: 10.7 million
    parameters, compiled, 5000 steps, the last thousands of which overfit.
    """

    name = "nanoGPT"

    def __init__(self, checkout: Path, text: Path, folder: Path, device: str = "cpu") -> None:
        self.folder, self.text, self.device = copied(checkout, folder / "nanoGPT"), text, device
        data = self.folder / "data/shakespeare_char"
        (data / "input.txt").write_bytes(text.read_bytes())  # prepare.py does not download an existing file
        watch(python("prepare.py"), data)

    def run(self, repeat: int) -> Result:
        command = python("train.py", *NANOGPT_RECIPES[self.device].split())
        watched = watch(command, self.folder, compiled_anew(self.folder, repeat))
        held_out = split(self.text.read_text(encoding="utf-8"))[1]
        nats = len(held_out.encode()) / len(held_out) * math.log(2)  # nats per character in one bit per byte
        curve = [(seconds, loss / nats) for seconds, loss in nanogpt_losses(watched.lines)]
        steps = watched.last("iter ") - watched.first("step 0:")
        kind, on_gpu = ("GPU recipe", True) if self.device == "cuda" else ("CPU recipe", False)
        return Result(self.name, kind, repeat, watched.seconds, steps, self.loss(), curve, until_best=on_gpu)

    def loss(self) -> float:
        return final_loss("nanogpt", self.folder, self.text, {"PYTHONPATH": str(self.folder)})


class NanoChat:
    """nanochat at depth 4 and width 128 (1.3 million parameters), compiled, 300 steps of Muon and AdamW."""

    name = "nanochat"

    def __init__(self, checkout: Path, text: Path, folder: Path) -> None:
        self.folder, self.text = copied(checkout, folder / "nanochat"), text
        extras = folder / "nanochat-packages"
        watch(python("-m", "pip", "install", "--quiet", "--no-deps", "--target", str(extras), "rustbpe"), folder)
        (extras / "wandb.py").write_text("")  # imported, but not used without logging
        paths = {"NANOCHAT_BASE_DIR": str(folder / "nanochat-cache"), "PYTHONPATH": f"{self.folder}:{extras}"}
        self.environment = paths | {"NANOCHAT_DTYPE": "float32"}
        shards = folder / "nanochat-cache/base_data_climbmix"
        shards.mkdir(parents=True)
        for number, part in enumerate(split(text.read_text(encoding="utf-8"))):  # the last shard is the held-out one
            pq.write_table(pa.table({"text": documents(part)}), shards / f"shard_{number:05d}.parquet")
        arguments = ("-m", "scripts.tok_train", f"--vocab-size={NANOCHAT_VOCABULARY}")
        watch(python(*arguments), self.folder, self.environment)

    def run(self, repeat: int) -> Result:
        command = python("-m", "scripts.base_train", *NANOCHAT_RECIPE.split())
        watched = watch(command, self.folder, self.environment | compiled_anew(self.folder, repeat))
        steps = watched.last("step 00") - watched.first("step 00000/")  # the first one compiles
        curve = nanochat_losses(watched.lines)
        loss = final_loss("nanochat", self.folder, self.text, self.environment)
        return Result(self.name, "depth 4, width 128", repeat, watched.seconds, steps, loss, curve)

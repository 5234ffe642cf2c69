"""What TinyGPT trains opens elsewhere: every kind of vocabulary and of model, in transformers and in llama.cpp.

Each row is a model folder; each test a column: scores, ids, greedy text, GGUF. Models are small and random.
"""

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from pydoc_data import topics
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file

from tests.checkpoints.test_hf_model import write as write_theirs
from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import ROOT, SHAPES, TEXT, gpt, params
from tests.tokenizer.test_hosted import fetched
from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.data.train_tokenizer import build
from tinygpt.export import gguf, hf
from tinygpt.files.checksums import verify
from tinygpt.files.paths import Paths
from tinygpt.generation.generate import generate
from tinygpt.model.gpt import GPT
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.bpe import BPETokenizer
from tinygpt.training.state import weights

transformers = pytest.importorskip("transformers")

PROMPTS = ["O Romeo, ", "JULIET:\nDeny  thy\n\n"]
STRANGE = [
    "naïve — “quoted” 日本 🎭",
    "a\tb\r\n  c",
    "<0x0A> [UNK]",
    "don't I'LL 1234567",
    " \n \n  x\n\n\n   y /*\n*/",
    "*" * 21,
]
# of sentencepiece two, named by the algorithm; and a stand-in for cl100k_base, which has the real one's pattern
KINDS = ["char", "bpe", "unigram", "pieces", "cl100k_base"]
WITH_COUNTERPART = {name: shape for name, shape in SHAPES.items() if name != "mixed"}
ROWS = [(kind, shape) for kind in KINDS for shape in WITH_COUNTERPART if kind == "bpe" or shape in ("qwen3", "gpt2")]


class Row(NamedTuple):
    folder: Path
    model: GPT
    tokenizer: Tokenizer


def vocabulary(kind: str) -> Tokenizer:
    if kind == "cl100k_base":
        return fetched(kind)
    changes: dict[str, Any] = {"tokenize__kind": kind, "tokenize__vocab_size": 420}
    if kind in ("unigram", "pieces"):
        changes |= {
            "tokenize__kind": "sentencepiece",
            "tokenize__algorithm": "unigram" if kind == "unigram" else "bpe",
        }
    return build(params(**changes).tokenize, [TEXT, *list(topics.topics.values())[:9]])


def save(folder: Path, tokenizer: Tokenizer, **changes: Any) -> Path:
    """A random model, the first that is never in two minds: llama.cpp's scores are about a thousandth off."""
    models = (gpt(tokenizer.vocab_size, seed, context_length=64, **changes) for seed in range(1, 100))
    model = next(model for model in models if all(decided(model, tokenizer, prompt) for prompt in PROMPTS))
    save_model(folder, model.config, weights(model), tokenizer, LINEAGE)
    return folder


def decided(model: GPT, tokenizer: Tokenizer, prompt: str) -> bool:
    """Whether the likeliest token leads by a hundredth all along the greedy text."""
    (made,) = generate(model, tokenizer, prompt, max_new_tokens=20, temperature=0)
    before = tokenizer.encode(prompt)
    with torch.inference_mode():
        first, second = model(torch.tensor([[*before, *made.ids]]))[0, len(before) - 1 :].topk(2).values.unbind(-1)
    return bool((first - second > 0.01).all())


@pytest.fixture(scope="module", params=ROWS, ids="-".join)
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Row:
    kind, shape = request.param
    folder = save(tmp_path_factory.mktemp("matrix") / "model", vocabulary(kind), **SHAPES[shape])
    return Row(folder, *load(folder))


def test_the_rows_cover_every_kind_and_every_shape() -> None:
    assert {kind for kind, _ in ROWS} == set(KINDS)
    shapes = {name: SHAPES[name] for _, name in ROWS}
    found = [gpt(**shape) for shape in shapes.values()]
    assert {hf_names.family(model.config) for model in found} == {"qwen3", "llama", "gpt2"}
    assert {model.config.tie_embeddings for model in found} == {True, False}
    assert any(model.config.kv_heads < model.config.n_head for model in found)


def test_transformers_gives_the_same_scores(row: Row) -> None:
    opened: Any = transformers.AutoModelForCausalLM.from_pretrained(row.folder, output_loading_info=True)
    theirs, report = opened
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert theirs.dtype == torch.float32
    tokens = torch.randint(0, row.tokenizer.vocab_size, (2, 40), generator=torch.Generator().manual_seed(3))
    assert (theirs.eval()(tokens).logits - row.model(tokens)).abs().max() < 1e-4


def test_transformers_gives_the_same_ids(row: Row) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(row.folder)
    for text in [*PROMPTS, TEXT, *STRANGE]:
        ids = row.tokenizer.encode(text)
        assert theirs.encode(text) == ids
        assert theirs.decode(ids) == row.tokenizer.decode(ids)
        assert row.tokenizer.unknown in ids or row.tokenizer.decode(ids) == text
    assert theirs.eos_token_id == row.tokenizer.end_of_text


def test_the_text_generation_pipeline_writes_the_same_greedy_text(row: Row) -> None:
    write: Any = transformers.pipeline("text-generation", str(row.folder))
    for prompt in PROMPTS:
        # Of half a character each side shows another number of �.
        (ours,) = generate(row.model, row.tokenizer, prompt, max_new_tokens=20, temperature=0)
        (theirs,) = write(prompt, max_new_tokens=20, do_sample=False, return_tensors=True)
        written = [token for token in theirs["generated_token_ids"] if token != row.tokenizer.end_of_text]
        assert written == [*row.tokenizer.encode(prompt), *ours.ids]
        (shown,) = write(prompt, max_new_tokens=20, do_sample=False)
        assert "�" in ours.text or shown["generated_text"].removesuffix("<|endoftext|>") == ours.text


def ask(model: Path, prompts: Sequence[Any], count: int, jinja: bool = False) -> Any:
    """What llama.cpp makes of the prompts."""
    request = {"model": str(model), "context": 64, "prompts": prompts, "count": count, "jinja": jinja}
    words = [sys.executable, "-m", "tests.llama_cpp"]
    done = subprocess.run(words, cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("[{") :])


def test_llama_cpp_reads_the_same_ids_and_writes_the_same_greedy_text(row: Row, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    gguf.write(row.folder, tmp_path / "model.gguf")
    for prompt, answer in zip(PROMPTS, ask(tmp_path / "model.gguf", PROMPTS, count=20), strict=True):
        assert answer["ids"] == row.tokenizer.encode(prompt)
        (ours,) = generate(row.model, row.tokenizer, prompt, max_new_tokens=20, temperature=0)
        assert answer["text"] == ours.completion


def test_llama_cpp_reads_int8_weights(tmp_path: Path) -> None:
    """It rounds activations, too, so the text may be another."""
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    tokenizer = vocabulary("char")
    gguf.write(save(tmp_path / "model", tokenizer), tmp_path / "model.gguf", "q8_0")
    (answer,) = ask(tmp_path / "model.gguf", ["ROMEO"], count=20)
    assert answer["ids"] == tokenizer.encode("ROMEO")
    assert answer["text"]


@pytest.mark.parametrize("kind", [*KINDS[1:], "o200k_base", "p50k_base"])
def test_llama_cpp_reads_the_same_ids_in_any_text(tmp_path: Path, kind: str) -> None:
    """Of a unigram, in any text over its characters."""
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    tokenizer = fetched(kind) if kind.endswith("_base") else vocabulary(kind)
    gguf.write(save(tmp_path / "model", tokenizer), tmp_path / "model.gguf")
    generator = random.Random(1)
    texts = ["".join(generator.choices("etaoin shrAB'\n\t<0x>1.,-=*()", k=40)) for _ in range(200)]
    texts += [] if kind == "unigram" else STRANGE
    if kind == "unigram":
        texts = [text.replace("\t", " ") for text in texts]
    assert [answer["ids"] for answer in ask(tmp_path / "model.gguf", texts, count=0)] == [
        tokenizer.encode(text) for text in texts
    ]


def test_llama_cpp_reads_what_a_unigram_does_not_know_as_a_substitute(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    tokenizer = vocabulary("unigram")
    gguf.write(save(tmp_path / "model", tokenizer), tmp_path / "model.gguf")
    (answer,) = ask(tmp_path / "model.gguf", ["O 日本!"], count=0)
    assert tokenizer.decode(answer["ids"]) == "O \x1a!"


# there and back


@pytest.mark.parametrize(
    ("layers", "heads"), [(12, 12), (24, 16), (36, 20), (48, 25)], ids=["small", "medium", "large", "xl"]
)
def test_gpt2_goes_to_tinygpt_and_back_with_identical_tensors(tmp_path: Path, layers: int, heads: int) -> None:
    """The four sizes' layers and heads, each head 4 wide."""
    theirs = write_theirs(tmp_path / "theirs", "gpt2", n_layer=layers, n_head=heads, n_embd=4 * heads)
    model, tokenizer = load(tmp_path / "theirs")
    assert isinstance(tokenizer, BPETokenizer)
    save_model(tmp_path / "ours", model.config, model.state_dict(), tokenizer, LINEAGE)
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("theirs", "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    back: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokens = torch.tensor([tokenizer.encode(PROMPTS[0])])
    assert torch.equal(back(tokens).logits, theirs(tokens).logits)


@pytest.mark.parametrize("kind", ["qwen3", "llama"])
def test_a_model_with_anothers_tokenizer_is_kept_published_and_opened(tmp_path: Path, kind: str) -> None:
    """As fine-tuning leaves it: others' weights and tokenizer, in a folder of ours."""
    write_theirs(tmp_path / "theirs", kind)
    model, tokenizer = load(tmp_path / "theirs")
    save_model(tmp_path / "ours", model.config, model.state_dict(), tokenizer, LINEAGE)
    hf.write(Paths(tmp_path), tmp_path / "ours", tmp_path / "out")
    verify(tmp_path / "out")
    again, kept = load(tmp_path / "out")
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    opened = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    for text in PROMPTS:
        ids = tokenizer.encode(text)
        assert ids == kept.encode(text) == opened.encode(text)
        tokens = torch.tensor([ids])
        assert (theirs(tokens).logits - again(tokens)).abs().max() < 1e-4
    if kind == "llama":
        with pytest.raises(ValueError, match="tokenizer comes from another model"):
            gguf.write(tmp_path / "out", tmp_path / "model.gguf")

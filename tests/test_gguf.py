"""A model folder as a GGUF file: llama.cpp reads the same ids in a text, and writes the same text after it."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, TEXT, gpt, params
from tests.test_checkpoint import LINEAGE
from tinygpt import checkpoint, families, gguf_file, vocabularies
from tinygpt.generation import generate
from tinygpt.sampling import Sampling
from tinygpt.state import weights
from tinygpt.tokenizer import Tokenizer

PROMPTS = ["O Romeo, ", "JULIET:\nDeny  thy\n\n"]
GREEDY = Sampling(temperature=0, top_p=1)


@pytest.fixture(scope="session", params=["char", "bpe"])
def vocabulary(request: pytest.FixtureRequest) -> Tokenizer:
    return vocabularies.build(params(tokenize__kind=request.param, tokenize__vocab_size=300).tokenize, [TEXT])


def saved(folder: Path, vocabulary: Tokenizer, **changes: Any) -> Path:
    model = gpt(vocabulary.vocab_size, context_length=64, **changes)
    checkpoint.save_model(folder, model.config, weights(model), vocabulary, LINEAGE)
    return folder


def ask(model: Path, prompts: list[str], count: int) -> Any:
    """What llama.cpp makes of the prompts."""
    request = {"model": str(model), "context": 64, "prompts": prompts, "count": count}
    words = [sys.executable, "-m", "tests.llama_cpp"]
    done = subprocess.run(words, cwd=ROOT, input=json.dumps(request), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("[{") :])


def test_llama_cpp_reads_the_same_ids_and_writes_the_same_text(
    tmp_path: Path, vocabulary: Tokenizer, shape: dict[str, Any]
) -> None:
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    folder = saved(tmp_path / "model", vocabulary, **shape)
    model, _ = checkpoint.load(folder)
    if families.family(model.config) == "tinygpt":
        pytest.skip("this mix of parts has no twin in llama.cpp")
    gguf_file.write(folder, tmp_path / "model.gguf")
    for prompt, answer in zip(PROMPTS, ask(tmp_path / "model.gguf", PROMPTS, count=20), strict=True):
        assert answer["ids"] == vocabulary.encode(prompt)
        (ours,) = generate(model, vocabulary, prompt, max_new_tokens=20, sampling=GREEDY)
        assert answer["text"] == ours.completion


def test_a_bpe_reads_every_character_there(tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="needs llama.cpp: pip install xllamacpp")
    vocabulary = vocabularies.build(params(tokenize__kind="bpe", tokenize__vocab_size=300).tokenize, [TEXT])
    gguf_file.write(saved(tmp_path / "model", vocabulary), tmp_path / "model.gguf")
    strange = ["naïve — “quoted” 日本 🎭", "a\tb\r\n  c", "<0x0A> ▁ [UNK]", "don't I'LL 1234567"]
    assert [answer["ids"] for answer in ask(tmp_path / "model.gguf", strange, count=1)] == [
        vocabulary.encode(text) for text in strange
    ]


def test_the_file_names_the_hashes_of_what_it_came_from(tmp_path: Path, characters: Tokenizer) -> None:
    gguf = pytest.importorskip("gguf")
    folder = saved(tmp_path / "model", characters)
    gguf_file.write(folder, tmp_path / "model.gguf")
    fields = gguf.GGUFReader(tmp_path / "model.gguf").fields
    for name, value in checkpoint.hashes(folder).items():
        assert fields[f"tinygpt.{name}"].contents() == (value if isinstance(value, str) else " ".join(value.values()))


def test_a_mix_without_a_twin_is_refused_and_says_what_it_would_need(tmp_path: Path, characters: Tokenizer) -> None:
    folder = saved(tmp_path / "model", characters, norm="layernorm", mlp="gelu", bias=True)
    with pytest.raises(ValueError, match=r"GPT-2 would need .*model.position=\"learned\""):
        gguf_file.write(folder, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_tensors_are_named_as_llama_cpp_names_them() -> None:
    assert gguf_file.renamed("transformer.wte.weight", "gpt2") == "token_embd.weight"
    assert gguf_file.renamed("model.layers.11.self_attn.q_norm.weight", "qwen3") == "blk.11.attn_q_norm.weight"

"""Others' models open here: folders that transformers writes, with random weights, give the same scores and text."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.checkpoints.test_model_folder import LINEAGE
from tests.conftest import TEXT
from tinygpt.checkpoints import hf_names
from tinygpt.checkpoints.model_folder import load, save_model
from tinygpt.generation.generate import generate
from tinygpt.training.state import weights

transformers = pytest.importorskip("transformers")
PROMPTS = ["O Romeo, ", "naïve 日本\n\n  x", "<|endoftext|> is text"]
KINDS = ["gpt2", "qwen3", "llama"]


def byte_level(size: int) -> Any:
    """A BPE like GPT-2's, learned from TEXT, <|endoftext|> last."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    library = Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    library.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=size - 1, initial_alphabet=alphabet, show_progress=False)
    )
    library.add_special_tokens(["<|endoftext|>"])
    return library


def pieces(size: int) -> Any:
    """A BPE like Llama's: SentencePiece's space, bytes to fall back on, special tokens first."""
    from tokenizers import Tokenizer, decoders, models, normalizers, trainers

    library = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    library.normalizer = normalizers.Replace(" ", "▁")
    library.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    library.train_from_iterator(
        [TEXT], trainers.BpeTrainer(vocab_size=size, special_tokens=special, show_progress=False)
    )
    content = json.loads(library.to_str())  # bytes are no special tokens there
    content["added_tokens"] = content["added_tokens"][:3]
    return Tokenizer.from_str(json.dumps(content))


def write(folder: Path, kind: str, **changes: Any) -> Any:
    """A transformers folder of this kind, whose weights are random; the model as transformers has it."""
    torch.manual_seed(1)
    library = pieces(400) if kind == "llama" else byte_level(300)
    end = library.token_to_id("</s>" if kind == "llama" else "<|endoftext|>")
    common = {"bos_token_id": end, "eos_token_id": [end, 7] if kind == "llama" else end}
    match kind:
        case "gpt2":
            values: dict[str, Any] = dict(vocab_size=300, n_positions=64, n_embd=48, n_layer=2, n_head=4)
            model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**(values | common | changes)))
        case "qwen3":  # more ids than its tokenizer has
            values = dict(vocab_size=320, hidden_size=48, intermediate_size=96, num_hidden_layers=2, head_dim=16)
            values |= dict(num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True, rope_theta=1e6)
            model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**(values | common | changes)))
        case _:
            values = dict(vocab_size=400, hidden_size=48, intermediate_size=96, num_hidden_layers=2)
            values |= dict(num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128)
            model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**(values | common | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 1.0 if parameter.dim() == 1 else 0.0, 0.2)
    model.save_pretrained(folder, max_shard_size="60KB" if kind == "llama" else "1GB")
    transformers.PreTrainedTokenizerFast(tokenizer_object=library).save_pretrained(folder)
    return model.eval()


@pytest.fixture(scope="session", params=KINDS)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("foreign") / request.param
    write(folder, request.param)
    return folder


def test_scores_are_those_of_transformers(folder: Path) -> None:
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model, _ = load(folder)
    tokens = torch.randint(0, 290, (2, 30), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(model(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "gelu_pytorch_tanh"])
def test_each_form_of_gelu_scores_as_in_transformers_here_and_when_it_goes_back(
    tmp_path: Path, activation: str
) -> None:
    theirs = write(tmp_path / "theirs", "gpt2", activation_function=activation)
    model, tokenizer = load(tmp_path / "theirs")
    save_model(tmp_path / "ours", model.config, weights(model), tokenizer, LINEAGE)
    back: Any = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "ours").eval()
    tokens = torch.randint(0, 290, (2, 30), generator=torch.Generator().manual_seed(3))
    for ours in (model(tokens), back(tokens).logits):
        torch.testing.assert_close(ours, theirs(tokens).logits, rtol=1e-4, atol=1e-4)


def test_ids_and_text_are_those_of_the_library(folder: Path) -> None:
    from tokenizers import Tokenizer

    library, (_, ours) = Tokenizer.from_file(str(folder / "tokenizer.json")), load(folder)
    for prompt in PROMPTS[:2]:
        ids = library.encode(prompt, add_special_tokens=False).ids
        assert ours.encode(prompt) == ours.encode_array(prompt).tolist() == ids
        assert ours.decode(ids) == prompt
    assert ours.end_of_text not in ours.encode(PROMPTS[2])
    assert ours.decode(ours.encode(PROMPTS[2])) == PROMPTS[2]


def test_greedy_text_is_that_of_transformers(folder: Path) -> None:
    theirs: Any = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    model, tokenizer = load(folder)
    ids = tokenizer.encode(PROMPTS[0])
    made = theirs.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False, eos_token_id=tokenizer.end_of_text)
    (ours,) = generate(model, tokenizer, PROMPTS[0], max_new_tokens=20, temperature=0)
    assert ours.completion == tokenizer.decode(made[0, len(ids) :].tolist())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_becomes_float32_exactly(tmp_path: Path, dtype: torch.dtype) -> None:
    write(tmp_path, "qwen3").to(dtype).save_pretrained(tmp_path)
    model, _ = load(tmp_path)
    stored = load_file(tmp_path / "model.safetensors")["model.embed_tokens.weight"]
    assert stored.dtype == dtype
    assert torch.equal(model.token_embedding.weight, stored.float())


def test_names_without_the_stem_and_saved_masks_are_no_obstacle(tmp_path: Path) -> None:
    """As the hub's gpt2 has them."""
    write(tmp_path, "gpt2")
    before, _ = load(tmp_path)
    old = {name.removeprefix("transformer."): w for name, w in load_file(tmp_path / "model.safetensors").items()}
    old["h.0.attn.bias"], old["h.1.attn.masked_bias"] = torch.ones(1, 1, 64, 64), torch.tensor(-1e4)
    save_file(old, tmp_path / "model.safetensors")
    after, _ = load(tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("gpt2", {"activation_function": "relu"}, "activation_function 'relu'"),
        ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ("llama", {"attention_bias": True}, "attention_bias True"),
        ("qwen3", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "scales its rotary positions"),
        ("qwen3", {"use_sliding_window": True}, "use_sliding_window True"),
        ("llama", {"model_type": "mistral"}, "model_type 'mistral'"),
        ("llama", {"num_hidden_layers": 3}, "model.layers.2.input_layernorm.weight is missing"),
        ("llama", {"num_hidden_layers": 1}, "model.layers.1.input_layernorm.weight is unknown"),
        ("gpt2", {"vocab_size": 301}, r"transformer.wte.weight is \(300, 48\) F32, not \(301, 48\)"),
        ("qwen3", {"rope_parameters": "none"}, "is damaged, or of a kind unknown here"),
        ("llama", {"eos_token_id": []}, "is damaged, or of a kind unknown here"),
        ("llama", {"max_position_embeddings": "64"}, "is damaged, or of a kind unknown here"),
        ("gpt2", {"n_layer": 10**9}, "1000000000 blocks, but"),
        ("llama", {"hidden_size": 2**62}, "is damaged"),
        ("qwen3", {"intermediate_size": 2**63}, "is damaged"),
        ("qwen3", {"vocab_size": True}, "vocab_size True"),
    ],
)
def test_what_would_compute_something_else_is_refused(
    tmp_path: Path, kind: str, changes: dict[str, Any], says: str
) -> None:
    write(tmp_path, kind)
    values = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(values | changes), encoding="utf-8")
    with pytest.raises(ValueError, match=says):
        load(tmp_path)


def test_a_pickle_alone_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "gpt2")
    shutil.move(tmp_path / "model.safetensors", tmp_path / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match=r"pytorch_model.bin is a pickle"):
        load(tmp_path)


def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "llama")
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"x": "../../secret.safetensors"}}')
    with pytest.raises(ValueError, match=r"names .*secret.safetensors', which is missing"):
        load(tmp_path)


@pytest.mark.parametrize("name", ["model-00001-of-*.safetensors", "tokenizer.json", "*.index.json"])
def test_a_pointer_of_git_lfs_is_told_from_damage(tmp_path: Path, name: str) -> None:
    write(tmp_path, "llama")
    file = next(tmp_path.glob(name))
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n")
    with pytest.raises(ValueError, match=rf"{file.name} is a pointer of git-lfs, .* Run `git lfs pull`"):
        load(tmp_path)


def test_the_family_is_told(folder: Path) -> None:
    model, _ = load(folder)
    assert hf_names.family(model.config) == folder.name

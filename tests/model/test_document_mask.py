"""Documents in one row do not see each other: GPT.forward(tokens, separator), document_mask, attention with a mask."""

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.conftest import GPT2, SHAPES, gpt
from tinygpt.model.gpt import document_mask
from tinygpt.model.kernels import causal_attention, naive_attention

END = 60  # of a vocabulary of 61
SHAPES_AND_POSITIONS = {
    **SHAPES,
    "learned": {"position": "learned"},
    "gpt2-grouped": GPT2 | {"n_head": 4, "n_kv_head": 2},
}
LENGTHS = (5, 1, 9, 2, 3)  # of the documents in a row, with the <|endoftext|> before each; 20 tokens in all


def row(seed: int, lengths: tuple[int, ...] = LENGTHS) -> Tensor:
    """Documents of these lengths, one after another: (1, T)."""
    random = torch.Generator().manual_seed(seed)
    documents = [torch.randint(END, (length,), generator=random) for length in lengths]
    for document in documents:
        document[0] = END
    return torch.cat(documents)[None]


def documents(tokens: Tensor) -> list[Tensor]:
    """The documents of a row, (1, length) each."""
    starts = [*(tokens[0] == END).nonzero().flatten().tolist(), tokens.shape[1]]
    return [tokens[:, start:end] for start, end in pairwise(starts)]


@pytest.mark.parametrize("name", SHAPES_AND_POSITIONS)
def test_a_document_in_a_row_has_the_logits_that_it_has_alone(name: str) -> None:
    model = gpt(**SHAPES_AND_POSITIONS[name], context_length=20)
    batch = torch.cat([row(1), row(2, (20,)), row(3, (10, 10)), row(4, (1,) * 20)])
    logits = model(batch, END)
    for tokens, found in zip(batch, logits, strict=True):
        alone = [model(document)[0] for document in documents(tokens[None])]
        torch.testing.assert_close(found, torch.cat(alone), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["qwen3-grouped", "gpt2"])
def test_gradients_of_a_row_are_the_sum_of_its_documents(name: str) -> None:
    model, tokens = gpt(**SHAPES[name], context_length=20), row(1)
    model.train()

    def gradients(loss: Tensor) -> list[Tensor]:
        return list(torch.autograd.grad(loss, list(model.parameters())))

    together = gradients(model(tokens, END).square().sum())
    alone = gradients(torch.stack([model(document).square().sum() for document in documents(tokens)]).sum())
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_bf16_training_on_a_cpu_keeps_documents_apart_too() -> None:
    model, tokens = gpt(**SHAPES["qwen3-grouped"], context_length=20), row(1)
    changed = tokens.clone()
    changed[0, 1:5] = (changed[0, 1:5] + 1) % END  # another first document
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, other = model(tokens, END), model(changed, END)  # gradients are on, so through naive_attention
        alone = torch.cat([model(document)[0] for document in documents(tokens)])
    assert found.requires_grad
    assert torch.equal(found[0, 5:], other[0, 5:])
    assert not torch.equal(found[0, 1:5], other[0, 1:5])
    torch.testing.assert_close(found[0], alone, rtol=0.1, atol=0.1 * float(alone.detach().abs().max()))


def test_without_a_separator_documents_see_each_other() -> None:
    model, tokens = gpt(context_length=20), row(1)
    whole = model(tokens)
    assert torch.allclose(whole[:, :5], model(tokens, END)[:, :5], atol=1e-5)
    assert not torch.allclose(whole[:, 6:], model(tokens, END)[:, 6:], atol=1e-2)


def test_a_row_that_begins_inside_a_document_counts_from_its_first_token() -> None:
    mask, positions = document_mask(torch.tensor([[1, 2, END, 3, END, END, 4]]), END)
    assert positions.tolist() == [[0, 1, 0, 1, 0, 0, 1]]
    assert mask.int().tolist() == [
        [
            [
                [1, 0, 0, 0, 0, 0, 0],
                [1, 1, 0, 0, 0, 0, 0],
                [0, 0, 1, 0, 0, 0, 0],
                [0, 0, 1, 1, 0, 0, 0],
                [0, 0, 0, 0, 1, 0, 0],
                [0, 0, 0, 0, 0, 1, 0],
                [0, 0, 0, 0, 0, 1, 1],
            ]
        ]
    ]


# Kernels


def qkv(heads: int, dtype: torch.dtype) -> list[Tensor]:
    """Queries (2, 4, 16, 8), keys and values (2, heads, 16, 8)."""
    random = torch.Generator().manual_seed(4)
    shapes = [(2, 4, 16, 8), (2, heads, 16, 8), (2, heads, 16, 8)]
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in shapes]


def masks() -> Tensor:
    """Two rows of documents: (2, 1, 16, 16)."""
    tokens = torch.ones(2, 16, dtype=torch.int64)
    tokens[0, [0, 3, 9]] = tokens[1, [5, 6]] = END
    return document_mask(tokens, END)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("kernel", [causal_attention, naive_attention])
def test_attention_with_a_mask_has_the_values_and_gradients_of_pytorch(
    kernel: Any, heads: int, dtype: torch.dtype
) -> None:
    tensors, mask = qkv(heads, dtype), masks()
    gradient = torch.randn(2, 4, 16, 8, generator=torch.Generator().manual_seed(5)).to(dtype)
    near = 0.05 if dtype == torch.bfloat16 else 1e-5

    def results(function: Any) -> list[Tensor]:
        y = function(*tensors)
        return [y.detach(), *torch.autograd.grad(y, tensors, gradient)]

    found = results(lambda q, k, v: kernel(q, k, v, 0.0, mask))
    expected = results(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True))
    causal = results(lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))
    for one, other, unmasked in zip(found, expected, causal, strict=True):
        torch.testing.assert_close(one, other, rtol=near, atol=near)
        assert not torch.allclose(one, unmasked, rtol=near, atol=near)


@pytest.mark.parametrize("kernel", [causal_attention, naive_attention])
def test_a_causal_mask_is_as_good_as_none(kernel: Any) -> None:
    q, k, v = (tensor.detach() for tensor in qkv(2, torch.float32))
    mask = torch.ones(16, 16, dtype=torch.bool).tril().expand(2, 1, 16, 16)
    torch.testing.assert_close(kernel(q, k, v, 0.0, mask), kernel(q, k, v))


def test_dropout_of_masked_weights_leaves_hidden_tokens_hidden() -> None:
    q, k, v = qkv(4, torch.float32)
    mask = masks()
    y = causal_attention(q, k, v, 0.5, mask)
    [gradient] = torch.autograd.grad(y[0, :, 3:9].sum(), v)
    assert not gradient[0, :, :3].any()
    assert not gradient[0, :, 9:].any()
    assert math.isfinite(float(y.detach().sum()))

"""From logits to the next token, and to a text: with lists of plain numbers, one sequence at a time.

`generate(model, prompt, settings, seed, max_new_tokens, end_of_text)` → the ids that continue a prompt. Most functions
map a list of V numbers, one for each token of the vocabulary, to another. Their settings are those of
tinygpt.generation.sampling.Sampling, and they apply in the order of this file. Left out: the KV cache, so each new
token takes a forward pass over all tokens before it.
"""

import math

import torch

from tinygpt.generation.sampling import Sampling
from tinygpt.scratch.gpt import GPT

Numbers = list[float]  # V of them


def apply_repetition_penalty(logits: Numbers, seen: set[int], penalty: float) -> Numbers:
    """Make tokens in `seen` less likely (CTRL, Keskar et al. 2019). A penalty of 1 has no effect; 1.2 is strong.

    Positive logits are divided by the penalty, negative ones multiplied, so that both become lower.
    """
    penalised = list(logits)
    for token in seen:
        logit = logits[token]
        penalised[token] = logit / penalty if logit > 0 else logit * penalty
    return penalised


def softmax(logits: Numbers, temperature: float) -> Numbers:
    """Logits → probabilities. A temperature below 1 enlarges the differences, so likely tokens become likelier.

    At 0 the likeliest token has probability 1 (greedy); of equal ones, the first.
    """
    highest = max(logits)
    if temperature == 0:
        return [1.0 if token == logits.index(highest) else 0.0 for token in range(len(logits))]
    return normalised([math.exp((logit - highest) / temperature) for logit in logits])


def normalised(weights: Numbers) -> Numbers:
    """Divide by the sum, so that the numbers are probabilities."""
    total = sum(weights)
    return [weight / total for weight in weights]


def keep_tokens(probabilities: Numbers, tokens: set[int]) -> Numbers:
    """Set the probability of all other tokens to 0, and renormalise."""
    return normalised([p if token in tokens else 0.0 for token, p in enumerate(probabilities)])


def likeliest_first(probabilities: Numbers) -> list[int]:
    """Token ids by descending probability; equally likely ones by ascending id."""
    return sorted(range(len(probabilities)), key=lambda token: -probabilities[token])  # Python's sort is stable


def keep_top_k(probabilities: Numbers, k: int) -> Numbers:
    """Keep the k likeliest tokens (Fan et al. 2018)."""
    return keep_tokens(probabilities, set(likeliest_first(probabilities)[:k]))


def keep_top_p(probabilities: Numbers, p: float) -> Numbers:
    """Keep the fewest likeliest tokens whose probabilities sum to at least p (nucleus sampling, Holtzman et al. 2020).

    Unlike top-k, this keeps few tokens if the model is certain and many if it is not. The tokens that it removes are
    each very unlikely, but there are so many that one of them would be drawn every few words.
    """
    kept: set[int] = set()
    total = 0.0
    for token in likeliest_first(probabilities):
        if total >= p:
            break
        kept.add(token)
        total += probabilities[token]
    return keep_tokens(probabilities, kept)


def keep_min_p(probabilities: Numbers, min_p: float) -> Numbers:
    """Keep tokens that are at least `min_p` times as likely as the likeliest (Nguyen et al. 2024)."""
    threshold = min_p * max(probabilities)
    return keep_tokens(probabilities, {token for token, p in enumerate(probabilities) if p >= threshold})


def distribution(logits: Numbers, settings: Sampling, seen: set[int]) -> Numbers:
    """The distribution of the next token: V logits → V probabilities. seen: ids of all tokens so far."""
    probabilities = softmax(apply_repetition_penalty(logits, seen, settings.repetition_penalty), settings.temperature)
    if settings.temperature == 0:
        return probabilities
    if settings.top_k > 0:
        probabilities = keep_top_k(probabilities, settings.top_k)
    if settings.top_p < 1:
        probabilities = keep_top_p(probabilities, settings.top_p)
    return keep_min_p(probabilities, settings.min_p)  # 0 keeps all


def sample_from(probabilities: Numbers, uniform: float) -> int:
    """Draw a token by inverse transform sampling: the first with cumulative probability > `uniform`, in [0, 1)."""
    cumulative = 0.0
    last = 0
    for token, p in enumerate(probabilities):
        cumulative += p
        if uniform < cumulative:
            return token
        if p > 0:
            last = token
    return last  # rounding made the sum slightly less than one


def window(sequence: list[int], context: int) -> list[int]:
    """The tokens that the model sees: all until the context is full; then the last half, until it is full again."""
    start = 0
    for length in range(1, len(sequence) + 1):
        if length - start > context:
            start = length - context // 2
    return sequence[start:]


@torch.no_grad()
def generate(
    model: GPT, prompt: list[int], settings: Sampling, seed: int, max_new_tokens: int, end_of_text: int
) -> list[int]:
    """Continue a prompt by at most `max_new_tokens` tokens; stops earlier if the model draws `end_of_text`.

    Each new token is appended to the sequence, which is the model's input for the next one (autoregressive generation).
    The same seed gives the same random numbers and so the same text. Returns the new ids only.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    sequence = list(prompt) or [end_of_text]  # in the training text, each document follows one
    start = len(sequence)
    while len(sequence) < start + max_new_tokens:
        visible = torch.tensor([window(sequence, model.config.context_length)])  # (1, T)
        logits = model(visible)[0, -1].tolist()  # (1, T, V) → V numbers: those of the last position
        probabilities = distribution(logits, settings, seen=set(sequence))
        token = sample_from(probabilities, torch.rand(1, generator=generator).item())
        if token == end_of_text:
            break
        sequence.append(token)
    return sequence[start:]

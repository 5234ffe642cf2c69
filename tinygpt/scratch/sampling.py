"""From logits to the next token, and on to a text: all with lists of plain numbers, one sequence at a time.

`generate(model, prompt, settings, seed, max_new_tokens, end_of_text)` → the ids that continue a prompt. Each step of it
is a small function from a list of V numbers to a list of V numbers. The settings are
tinygpt.generation.sampling.Sampling's, and apply in the order of the functions below. Left out: the cache; so each new
token costs a pass over all before it.
"""

import math

import torch

from tinygpt.generation.sampling import Sampling
from tinygpt.scratch.gpt import GPT

Numbers = list[float]


def apply_repetition_penalty(logits: Numbers, seen: set[int], penalty: float) -> Numbers:
    """Make tokens that were there before less likely (Keskar et al. 2019): 1 changes nothing, 1.2 is much.

    Dividing lowers a positive logit and would raise a negative one, which is therefore multiplied.
    """
    penalised = list(logits)
    for token in seen:
        logit = logits[token]
        penalised[token] = logit / penalty if logit > 0 else logit * penalty
    return penalised


def softmax(logits: Numbers, temperature: float) -> Numbers:
    """Logits to probabilities. Divided by a temperature below 1, differences grow, and the likely becomes likelier.

    At 0 only the likeliest is left, the first of equals: greedy.
    """
    highest = max(logits)
    if temperature == 0:
        return [1.0 if token == logits.index(highest) else 0.0 for token in range(len(logits))]
    return normalised([math.exp((logit - highest) / temperature) for logit in logits])


def normalised(weights: Numbers) -> Numbers:
    """Weights to probabilities: divided by their sum."""
    total = sum(weights)
    return [weight / total for weight in weights]


def keep(probabilities: Numbers, tokens: set[int]) -> Numbers:
    """Give all other tokens the probability 0, and these what was theirs, in proportion."""
    return normalised([p if token in tokens else 0.0 for token, p in enumerate(probabilities)])


def likeliest_first(probabilities: Numbers) -> list[int]:
    """The tokens in falling order of probability; equals in rising order of their ids."""
    return sorted(range(len(probabilities)), key=lambda token: -probabilities[token])  # Python's sort keeps their order


def keep_top_k(probabilities: Numbers, k: int) -> Numbers:
    """Keep the k likeliest tokens (Fan et al. 2018), however likely the next one is."""
    return keep(probabilities, set(likeliest_first(probabilities)[:k]))


def keep_top_p(probabilities: Numbers, p: float) -> Numbers:
    """Keep as few of the likeliest tokens as hold probability p together (nucleus sampling, Holtzman et al. 2020).

    Few where the model is sure, many where it is not: what k cannot do. The tail of unlikely tokens is cut off: each is
    nearly impossible, but they are so many that one of them would come every few words.
    """
    kept: set[int] = set()
    held = 0.0
    for token in likeliest_first(probabilities):
        if held >= p:
            break
        kept.add(token)
        held += probabilities[token]
    return keep(probabilities, kept)


def keep_min_p(probabilities: Numbers, min_p: float) -> Numbers:
    """Keep tokens that are at least `min_p` times as likely as the likeliest (Nguyen et al. 2024)."""
    floor = min_p * max(probabilities)
    return keep(probabilities, {token for token, p in enumerate(probabilities) if p >= floor})


def distribution(logits: Numbers, settings: Sampling, seen: set[int]) -> Numbers:
    """What the next token is drawn from: V logits → V probabilities. seen: the tokens so far."""
    probabilities = softmax(apply_repetition_penalty(logits, seen, settings.repetition_penalty), settings.temperature)
    if settings.temperature == 0:
        return probabilities
    if settings.top_k > 0:
        probabilities = keep_top_k(probabilities, settings.top_k)
    if settings.top_p < 1:
        probabilities = keep_top_p(probabilities, settings.top_p)
    return keep_min_p(probabilities, settings.min_p)  # 0 keeps all


def sample_from(probabilities: Numbers, uniform: float) -> int:
    """The token in whose slice a number from [0, 1) falls, the slices lying side by side, as wide as probabilities."""
    end = 0.0
    last = 0
    for token, p in enumerate(probabilities):
        end += p
        if uniform < end:
            return token
        if p > 0:
            last = token
    return last  # the sum was rounded to a little less than one


def window(sequence: list[int], context: int) -> list[int]:
    """The part that the model sees: all, until its context is full; then its last half, until it is full again."""
    start = 0
    for length in range(1, len(sequence) + 1):
        if length - start > context:
            start = length - context // 2
    return sequence[start:]


@torch.no_grad()
def generate(
    model: GPT, prompt: list[int], settings: Sampling, seed: int, max_new_tokens: int, end_of_text: int
) -> list[int]:
    """Continue a prompt by at most `max_new_tokens`, or until the model says that the text ends.

    It writes a token, reads all that is there now, its own token included, and writes the next. The same seed gives the
    same random numbers, and the same text.
    """
    model.eval()
    generator = torch.Generator().manual_seed(seed)
    sequence = list(prompt) or [end_of_text]  # in the training text, documents start behind one
    start = len(sequence)
    while len(sequence) < start + max_new_tokens:
        seeing = torch.tensor([window(sequence, model.config.context_length)])  # (1, T)
        logits = model(seeing)[0, -1].tolist()  # (1, T, V) → V numbers, those after the last token
        probabilities = distribution(logits, settings, seen=set(sequence))
        token = sample_from(probabilities, torch.rand(1, generator=generator).item())
        if token == end_of_text:
            break
        sequence.append(token)
    return sequence[start:]

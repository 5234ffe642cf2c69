"""The figure of lesson 11: the loss mask on a conversation, and the loss on its answers. __main__.py draws it."""

from pathlib import Path

import numpy as np
import torch

import tinygpt
from tinygpt.checkpoints import base_model
from tinygpt.files.paths import Paths
from tinygpt.inspection.text import label
from tinygpt.model.loss import surprisal
from tinygpt.plots import style
from tinygpt.plots.style import ACCENT, DARK, LIGHT

CHAT = Paths(Path("chat"))
MESSAGES = [
    {"role": "user", "content": "Sort these words: sword king"},
    {"role": "assistant", "content": "king sword"},
    {"role": "user", "content": "What is 23 + 41?"},
    {"role": "assistant", "content": "64"},
]


@torch.no_grad()
def mask(path: Path) -> None:
    """The tokens of a conversation, those that count, and their surprisal under the base model and the chat model."""
    model, tokenizer = tinygpt.load(CHAT.model)
    base = base_model.base_of(CHAT.model, model.config)
    assert base is not None  # chat/params.yaml has train.init_from
    ids, counted = (torch.tensor(values) for values in tokenizer.encode_messages(MESSAGES))
    bits = {
        name: surprisal(each(ids[None])[0, :-1], ids[1:])
        for name, each in (("base model", base[0]), ("chat model", model))
    }
    chosen = counted[1:].bool().numpy()
    places = np.arange(1, len(ids))[chosen]
    height = 0.45 * max(values[chosen].max() for values in bits.values())  # of the tokens' boxes, on the axis of bits
    figure, axes = style.canvas()
    figure.set_size_inches(11, 3.8)
    for place, (token, counts) in enumerate(zip(ids.tolist(), counted.tolist(), strict=True)):
        axes.bar(place, -height, width=0.94, color=DARK if counts else LIGHT)
        text = label(tokenizer, token)
        style.write(axes, place, -height / 2, text, ha="center", rotation=90, color="w" if counts else "k")
    for offset, (name, values), color in zip((-0.2, 0.2), bits.items(), (LIGHT, ACCENT), strict=True):
        axes.bar(places + offset, values[chosen], width=0.38, color=color, label=name)
    for place, value in zip(places, bits["chat model"][chosen], strict=True):
        style.write(axes, place + 0.2, value + height / 12, f"{abs(value):.1f}", ha="center", fontsize=7, color=ACCENT)
    axes.set(xticks=[], xlim=(-0.6, len(ids) - 0.4), ylabel="loss, bits per token")
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= axes.get_ylim()[1]])
    axes.set_title("Dark: the tokens that count, and above them their loss")
    axes.spines["bottom"].set_visible(False)
    axes.legend(frameon=False)
    style.save(figure, path)

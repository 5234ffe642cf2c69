"""Tokens and attention as HTML, with every character of a text escaped.

`transcript(turns)`: what was written by whom; `reading(tokens, …)`: a text shaded by surprisal; both with tokens that
open in a card (static/page.js fills it). `attention(labels, weights)`: a map, and the same in words. Everything
that comes from a model or a person goes through `escape`; nothing is Markdown. Left out: where the numbers come from
(service.py).
"""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from torch import Tensor

from tinygpt.inspection.activations import MOST_BITS
from tinygpt.inspection.text import label
from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer
from tinygpt.web.service import Seen, WebTurn

HINT = (
    '<span class="pointed">Point at a token, or click it, to see what else the model expected there. With the '
    "keyboard: Tab to the text, then ← and →.</span>"
    '<span class="tapped">Tap a token to see what else the model expected there.</span>'
)
CELL = 16  # units of a square of an attention map
NAME = 88  # … of the names beside and above it
TELLS = 0.01  # the smallest weight that is put into words


def transcript(turns: Sequence[WebTurn], example: str = "") -> str:
    """What was written, and what the model made of it, with tokens that open in a card; without any, what to do.

    example: a prompt that suits the model.
    """
    if not turns:
        offered = f"Try <q>{escape(example)}</q>, or leave" if example.strip() else "Leave"
        return (
            '<div class="empty"><p>Write how a text begins, and the model continues it.</p>'
            f"<p>{offered} the box empty: then the model begins a text of its own.</p></div>"
        )
    return "".join(
        you(turn) + model_turn(answer(turn, f"Answer {number}, token by token")) for number, turn in enumerate(turns, 1)
    )


def live(turn: WebTurn | None) -> str:
    """A turn that is being written; its tokens do not open yet."""
    return "" if turn is None else you(turn) + model_turn(f'{shown(turn.answer)}<span class="caret"></span>')


def you(turn: WebTurn) -> str:
    if not turn.said:
        return ""
    return f'<div class="turn you"><span class="who">You</span><div class="says">{shown(turn.said)}</div></div>'


def model_turn(inside: str) -> str:
    return f'<div class="turn model"><span class="who">Model</span><div class="says">{inside}</div></div>'


def answer(turn: WebTurn, name: str) -> str:
    """The text alone where its tokens are not known: the model that wrote it has changed, or is gone."""
    return tokens(turn.tokens, turn.tokenizer, name) if turn.tokens and turn.tokenizer else shown(turn.answer)


def shown(text: str) -> str:
    """A text as HTML; a new line at its very beginning is a mark, so that no empty line stands there."""
    first = '<span class="mark" aria-hidden="true">↵</span>' if text.startswith("\n") else ""
    return first + escape(text[1:] if first else text)


def reading(seen: Sequence[Seen], tokenizer: Tokenizer, left_out: int) -> str:
    """A text shaded by how many bits each token told the model, with a scale and the mean."""
    bits = [-math.log2(max(one.probability or 0.0, 1e-30)) for one in seen]
    size = sum(len(tokenizer.token_bytes(one.token)) for one in seen)
    told = f"Surprisal: {sum(bits):,.0f} bits over {len(bits):,} tokens ({size:,} bytes), "
    told += f"{sum(bits) / len(bits):.2f} bits per token, {sum(bits) / size:.3f} bits per byte."
    cut = f" The other {left_out:,} tokens are left out." if left_out else ""
    steps = "".join(f'<span class="t shade" style="--s:{n / MOST_BITS:.2f}">{n}</span>' for n in range(0, 13, 3))
    scale = f'<p class="scale">Bits: {steps} and more. Bluer is less expected.</p>'
    text = f'<div class="text always">{tokens(seen, tokenizer, "The text, token by token")}</div>'
    return f'<p class="sum">{told}{cut}</p>{scale}<div id="scored" class="sheet">{text}{card()}</div>'


def tokens(seen: Sequence[Seen], tokenizer: Tokenizer, name: str) -> str:
    """Tokens as the options of a list box: arrows move in it, and each carries what its card shows."""
    decoder = StreamingDecoder(tokenizer)
    parts = []
    for place, one in enumerate(seen):
        text = decoder.decode(one.token, last=place == len(seen) - 1)
        bits = -math.log2(max(one.probability or 0.0, 1e-30))
        facts = json.dumps(details(one, tokenizer), ensure_ascii=False, separators=(",", ":"))
        facts = escape(facts, quote=False).replace("'", "&#39;")  # JSON's own quotes, which are many, stay short
        part = "" if text else " part"  # the beginning of a character that the next token ends
        spoken = "" if text.strip() else f' aria-label="{escape(label(tokenizer, one.token))}"'
        inner = shown(text) if place == 0 else escape(text)
        parts.append(
            f'<span class="t{part}" role="option" aria-selected="false"{spoken} '
            f"style=\"--s:{min(1, bits / MOST_BITS):.2f}\" data-t='{facts}'>{inner}</span>"
        )
    return f'<div class="tokens" role="listbox" tabindex="0" aria-label="{escape(name)}">{"".join(parts)}</div>'


def details(one: Seen, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the card of a token shows, as JSON: n name, p probability, r rank, v vocabulary size, s after sampling
    settings, a the likeliest tokens, and after them the one that came where it is not among them, c its row.
    """
    others = [
        [label(tokenizer, token), round(p, 5), *([round(q, 5)] if one.sampled is not None else [])]
        for token, p, q in one.alternatives
    ]
    name, p = label(tokenizer, one.token, 24), round(one.probability or 0.0, 7)
    sampled = [] if one.sampled is None else [round(one.sampled, 5)]
    came = next((row for row, (token, _, _) in enumerate(one.alternatives) if token == one.token), len(others))
    if came == len(others):
        others.append([name, p, *sampled])
    facts = {"n": name, "p": p, "r": one.rank, "v": tokenizer.vocab_size, "c": came, "a": others}
    return facts | ({"s": sampled[0]} if sampled else {})


def card() -> str:
    return (
        '<aside class="card" aria-live="polite" aria-label="About one token">'
        f'<p class="hint">{HINT}</p><div class="about"></div></aside>'
    )


def attention(labels: Sequence[str], weights: Tensor, title: str, left_out: bool) -> str:
    """The attention weights of one head, (T, T): a map of squares, the darker the larger, and a table in words."""
    size, rows = len(labels), weights.tolist()
    side = NAME + CELL * size
    names = "".join(
        f'<text transform="translate({NAME + CELL * (place + 0.72):.0f} {NAME - 6}) rotate(-90)">{escape(name)}</text>'
        for place, name in enumerate(labels)
    )
    squares = "".join(_row(row, given[: row + 1], labels) for row, given in enumerate(rows))
    told = "".join(
        f'<tr><th scope="row">{escape(labels[row])}</th><td>{escape(in_words(given[: row + 1], labels))}</td></tr>'
        for row, given in enumerate(rows)
    )
    cut = f" Only the first {size} tokens are shown." if left_out else ""
    sentences = (
        f"{title} Each row is a token and shows how much it attends to itself and to the tokens before it. Bluer is "
        f"more; a row sums to 100%.{cut}"
    )
    return (
        f'<p class="sum">{escape(sentences)}</p><div class="maps">'
        f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="{escape(title)} In words in the table that follows.">'
        f'{names}{squares}</svg><div class="told" tabindex="0" role="group" aria-label="The map in words"><table>'
        '<thead><tr><th scope="col">Token</th><th scope="col">Attends most to</th></tr></thead>'
        f"<tbody>{told}</tbody></table></div></div>"
    )


def _row(row: int, given: Sequence[float], labels: Sequence[str]) -> str:
    """A row of the map: a name, and a square for each token up to its own."""
    top, name = NAME + CELL * row, escape(labels[row])
    squares = "".join(
        f'<rect x="{NAME + CELL * column}" y="{top}" width="{CELL - 1}" height="{CELL - 1}" '
        f'style="--s:{share**0.5:.2f}">'
        f"<title>{name} attends {share:.0%} to {escape(labels[column])}</title></rect>"
        for column, share in enumerate(given)
    )
    return f'<g><text x="{NAME - 6}" y="{top + 0.72 * CELL:.0f}" text-anchor="end">{name}</text>{squares}</g>'


def in_words(given: Sequence[float], labels: Sequence[str]) -> str:
    most = sorted(range(len(given)), key=lambda place: -given[place])[:3]
    return ", ".join(f"{labels[place]} {given[place]:.0%}" for place in most if given[place] >= TELLS)


def sentence(text: str, wrong: bool = False, command: str = "") -> str:
    """The line that says what happens; read aloud when it changes, at once where something is wrong.

    command: what does the same in a terminal.
    """
    role, kind = ("alert", "wrong") if wrong else ("status", "fine")
    below = f'<p class="command">The same in a terminal: <code>{escape(command)}</code></p>' if command else ""
    return f'<p class="line {kind}" role="{role}">{escape(text)}</p>{below}'

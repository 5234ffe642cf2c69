"""Tokens and attention weights as HTML, with every character of a text escaped.

`transcript(turns)` is a conversation and `scored_text(tokens, …)` a text shaded by surprisal; static/page.js shows the
details of their tokens in a card. `attention_map(labels, weights, …)` is a heat map and a table. Text from models and
visitors passes through `escape` and is never Markdown. The numbers come from service.py.
"""

import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from torch import Tensor

from tinygpt.inspection.activations import MOST_BITS
from tinygpt.inspection.text import label, special_label
from tinygpt.tokenizer.base import StreamingDecoder, Tokenizer
from tinygpt.web.visitor import TokenPrediction, WebTurn

CARD_HINT = (
    '<span class="mouse-only">Point at a token or click it to see its probability and the likeliest alternatives. '
    "With the keyboard: Tab to the text, then ← and →.</span>"
    '<span class="touch-only">Tap a token to see its probability and the likeliest alternatives.</span>'
)
CELL = 16  # side of an attention map's square, in SVG units
MARGIN = 88  # for the token labels beside and above the map, in SVG units
MIN_WEIGHT = 0.01  # the smallest attention weight in the table


def transcript(turns: Sequence[WebTurn], example: str = "") -> str:
    """All turns of a conversation; without any, instructions. example: a prompt that suits the model."""
    if not turns:
        suggestion = f"Try <q>{escape(example)}</q>. " if example.strip() else ""
        return (
            '<div class="empty"><p>Write the beginning of a text, and the model continues it.</p>'
            f"<p>{suggestion}If the box is empty, the model begins a text of its own.</p></div>"
        )
    return "".join(
        visitor_html(turn) + model_html(answer(turn, f"Answer {number}, token by token"))
        for number, turn in enumerate(turns, 1)
    )


def live_turn(turn: WebTurn) -> str:
    """The turn that is being generated, without token details."""
    return visitor_html(turn) + model_html(f'{text_html(turn.answer)}<span class="caret"></span>')


def visitor_html(turn: WebTurn) -> str:
    """What the visitor wrote in a turn; "" if nothing."""
    if not turn.said:
        return ""
    text = f'<div class="said">{text_html(turn.said)}</div>'
    return f'<div class="turn visitor"><span class="speaker">You</span>{text}</div>'


def model_html(inside: str) -> str:
    """The model's answer in a turn; inside: HTML."""
    return f'<div class="turn model"><span class="speaker">Model</span><div class="said">{inside}</div></div>'


def answer(turn: WebTurn, name: str) -> str:
    """The answer's tokens; only its text if the model that wrote it has changed or is gone."""
    return tokens(turn.tokens, turn.tokenizer, name) if turn.tokens and turn.tokenizer else text_html(turn.answer)


def text_html(text: str) -> str:
    """A text as HTML; a line break at its very beginning becomes a mark, instead of an empty line."""
    first = '<span class="mark" aria-hidden="true">↵</span>' if text.startswith("\n") else ""
    return first + escape(text[1:] if first else text)


def scored_text(predictions: Sequence[TokenPrediction], tokenizer: Tokenizer, left_out: int) -> str:
    """A text shaded by surprisal, with a scale and the means. left_out: how many tokens follow unscored."""
    summary = surprisal_summary([one for one in predictions if one.counted], tokenizer)
    if not all(one.counted for one in predictions):
        summary += " Of a conversation, only what the assistant writes is scored."
    cut = f" The other {left_out:,} tokens are left out." if left_out else ""
    steps = "".join(f'<span class="t shade" style="--s:{n / MOST_BITS:.2f}">{n}</span>' for n in range(0, 13, 3))
    scale = f'<p class="scale">Bits: {steps} or more. Bluer means less expected.</p>'
    text = f'<div class="text shaded">{tokens(predictions, tokenizer, "The text, token by token")}</div>'
    return f'<p class="summary">{summary}{cut}</p>{scale}<div id="scored" class="with-card">{text}{card()}</div>'


def surprisal_summary(predictions: Sequence[TokenPrediction], tokenizer: Tokenizer) -> str:
    """The sum and the means, in a sentence."""
    bits = [surprisal(one) for one in predictions]
    size = sum(len(tokenizer.token_bytes(one.token)) for one in predictions)
    if not size:
        return "There is nothing to score."
    summary = f"Surprisal: {sum(bits):,.0f} bits over {len(bits):,} tokens ({size:,} bytes), "
    return summary + f"{sum(bits) / len(bits):.2f} bits per token, {sum(bits) / size:.3f} bits per byte."


def surprisal(prediction: TokenPrediction) -> float:
    """−log2 of the token's probability, in bits."""
    return -math.log2(max(prediction.probability, 1e-30))


def tokens(predictions: Sequence[TokenPrediction], tokenizer: Tokenizer, name: str) -> str:
    """Tokens as options of a list box, each with its details as JSON in data-t. name: the list box's label."""
    decoder = StreamingDecoder(tokenizer)
    options = []
    for place, one in enumerate(predictions):
        special = special_label(tokenizer, one.token)
        text = special or decoder.decode(one.token, last=place == len(predictions) - 1)
        details = json.dumps(token_details(one, tokenizer), ensure_ascii=False, separators=(",", ":"))
        details = escape(details, quote=False).replace("'", "&#39;")  # so that JSON's many double quotes stay short
        kind = " special" if special else "" if text else " partial"  # partial: a later token completes the character
        spoken = "" if text.strip() else f' aria-label="{escape(label(tokenizer, one.token))}"'
        inner = text_html(text) if place == 0 else escape(text)
        shade = min(1, surprisal(one) / MOST_BITS) if one.counted else 0
        options.append(
            f'<span class="t{kind}" role="option" aria-selected="false"{spoken} '
            f"style=\"--s:{shade:.2f}\" data-t='{details}'>{inner}</span>"
        )
    return f'<div class="tokens" role="listbox" tabindex="0" aria-label="{escape(name)}">{"".join(options)}</div>'


def token_details(one: TokenPrediction, tokenizer: Tokenizer) -> dict[str, Any]:
    """What a token's card shows, as JSON with short keys.

    n: token as text; p: probability; s: probability after the sampling settings, if sampled; r: rank; v: vocabulary
    size; a: rows of the table, [text, p] or [text, p, s], likeliest first, then this token if it is not among them;
    c: this token's row in a.
    """
    rows = [
        [label(tokenizer, token), round(p, 5), *([round(q, 5)] if one.sampled is not None else [])]
        for token, p, q in one.alternatives
    ]
    name, p = label(tokenizer, one.token, 24), round(one.probability, 7)
    sampled = [] if one.sampled is None else [round(one.sampled, 5)]
    own_row = next((row for row, (token, _, _) in enumerate(one.alternatives) if token == one.token), len(rows))
    if own_row == len(rows):
        rows.append([name, p, *sampled])
    details = {"n": name, "p": p, "r": one.rank, "v": tokenizer.vocab_size, "c": own_row, "a": rows}
    return details | ({"s": sampled[0]} if sampled else {})


def card() -> str:
    """The card of token details, empty; static/page.js fills it."""
    return (
        '<aside class="card" aria-live="polite" aria-label="Token details">'
        f'<p class="hint">{CARD_HINT}</p><div class="details"></div></aside>'
    )


def attention_map(labels: Sequence[str], weights: Tensor, title: str, left_out: bool) -> str:
    """Attention weights (T, T) of one head as a heat map and as a table. left_out: whether the text goes on."""
    size, rows = len(labels), weights.tolist()
    side = MARGIN + CELL * size
    columns = "".join(
        f'<text transform="translate({MARGIN + CELL * (place + 0.72):.0f} {MARGIN - 6}) rotate(-90)">'
        f"{escape(name)}</text>"
        for place, name in enumerate(labels)
    )
    squares = "".join(_map_row(row, values[: row + 1], labels) for row, values in enumerate(rows))
    table = "".join(
        f'<tr><th scope="row">{escape(labels[row])}</th>'
        f"<td>{escape(largest_weights(values[: row + 1], labels))}</td></tr>"
        for row, values in enumerate(rows)
    )
    cut = f" Only the first {size} tokens are shown." if left_out else ""
    explanation = (
        f"{title} Each row shows one token's attention weights, on itself and on the tokens before it. Bluer means "
        f"larger; each row sums to 100%.{cut}"
    )
    return (
        f'<p class="summary">{escape(explanation)}</p><div class="maps">'
        f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="{escape(title)} The table that follows has the '
        f'largest weights.">{columns}{squares}</svg>'
        '<div class="weights" tabindex="0" role="group" aria-label="Largest attention weights"><table>'
        '<thead><tr><th scope="col">Token</th><th scope="col">Attends most to</th></tr></thead>'
        f"<tbody>{table}</tbody></table></div></div>"
    )


def _map_row(row: int, weights: Sequence[float], labels: Sequence[str]) -> str:
    """One token's row: its label, and a square for each token up to itself."""
    top, name = MARGIN + CELL * row, escape(labels[row])
    squares = "".join(
        f'<rect x="{MARGIN + CELL * column}" y="{top}" width="{CELL - 1}" height="{CELL - 1}" '
        f'style="--s:{weight**0.5:.2f}">'
        f"<title>{name} attends {weight:.0%} to {escape(labels[column])}</title></rect>"
        for column, weight in enumerate(weights)
    )
    return f'<g><text x="{MARGIN - 6}" y="{top + 0.72 * CELL:.0f}" text-anchor="end">{name}</text>{squares}</g>'


def largest_weights(weights: Sequence[float], labels: Sequence[str]) -> str:
    """At most three tokens with their weights, the largest first."""
    largest = sorted(range(len(weights)), key=lambda place: -weights[place])[:3]
    return ", ".join(f"{labels[place]} {weights[place]:.0%}" for place in largest if weights[place] >= MIN_WEIGHT)


def status(text: str, error: bool = False, command: str = "") -> str:
    """A status line, which screen readers read aloud when it changes; an error interrupts them.

    command: prints the same text in a terminal.
    """
    role, kind = ("alert", " error") if error else ("status", "")
    below = f'<p class="command">The same in a terminal: <code>{escape(command)}</code></p>' if command else ""
    return f'<p class="line{kind}" role="{role}">{escape(text)}</p>{below}'

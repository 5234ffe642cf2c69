"""What the page shows of texts, as HTML in which every character of a text is a character, never a tag.

`transcript(turns, …)`: what was written by whom; `reading(tokens, …)`: a text shaded by surprisal; both with tokens
that open in a card (web_page/page.js fills it). `attention(labels, shares)`: a map, and the same in words. Everything
that comes from a model or a person goes through `escape`; nothing is Markdown. Left out: where the numbers come from
(serving.py).
"""

import codecs
import json
import math
from collections.abc import Sequence
from html import escape
from typing import Any

from torch import Tensor

from tinygpt.inspecting import MOST_BITS
from tinygpt.reading import label
from tinygpt.serving import Seen, Turn
from tinygpt.tokenizer import Tokenizer

HINT = (
    "Point at a token, or click it, to see what else could have come. With the keyboard: Tab to the text, then ← and →."
)
CELL = 16  # units of a square of an attention map
NAME = 88  # … of the names beside and above it
TELLS = 0.01  # the smallest share that is put into words


def transcript(turns: Sequence[Turn], tokenizer: Tokenizer | None = None, writing: bool = False) -> str:
    """What was written, and what the model made of it; the tokens of the last answer open in a card.

    tokenizer: of the last answer's model; without it, and while it is being written, its text stands alone.
    """
    if not turns:
        return (
            '<div class="empty"><p>Write how a text begins; the model goes on with it.</p>'
            "<p>Try ROMEO: and press Write. With an empty box it begins a text of its own.</p></div>"
        )
    opens = tokenizer is not None and not writing and bool(turns[-1].tokens)
    parts = []
    for number, turn in enumerate(turns, 1):
        if turn.written:
            parts.append(
                f'<div class="turn you"><span class="who">You</span><div class="says">{shown(turn.written)}</div></div>'
            )
        last = number == len(turns)
        if last and opens and tokenizer:
            inside = f'<div class="says">{tokens(turn.tokens, tokenizer, "The answer, token by token")}</div>'
        else:
            caret = '<span class="caret"></span>' if last and writing else ""
            inside = f'<div class="says">{shown(turn.continued)}{caret}</div>'
        if turn.continued or last:
            parts.append(f'<div class="turn model"><span class="who">Model</span>{inside}</div>')
    text = f'<div class="text" role="group" aria-label="The text so far" tabindex="0">{"".join(parts)}</div>'
    return f'<div class="sheet">{text}{card() if opens else ""}</div>'


def shown(text: str) -> str:
    """A text as HTML; a new line at its very beginning is a mark, so that no empty line stands there."""
    first = '<span class="mark" aria-hidden="true">↵</span>' if text.startswith("\n") else ""
    return first + escape(text[1:] if first else text)


def reading(seen: Sequence[Seen], tokenizer: Tokenizer, left_out: int) -> str:
    """A text shaded by how many bits each token told the model, with a scale and the mean."""
    bits = [-math.log2(max(one.probability or 0.0, 1e-30)) for one in seen]
    size = sum(len(tokenizer.token_bytes(one.token)) for one in seen)
    told = f"{sum(bits):,.0f} bits in {len(bits):,} tokens and {size:,} bytes: "
    told += f"{sum(bits) / len(bits):.2f} a token, {sum(bits) / size:.3f} a byte."
    cut = f" {left_out:,} tokens more are left out." if left_out else ""
    steps = "".join(f'<span class="t shade" style="--s:{n / MOST_BITS:.2f}">{n}</span>' for n in range(0, 13, 3))
    scale = f'<p class="scale">Bits: {steps} and more: the bluer, the less expected.</p>'
    text = f'<div class="text always">{tokens(seen, tokenizer, "The text, token by token")}</div>'
    return f'<p class="sum">{told}{cut}</p>{scale}<div class="sheet">{text}{card()}</div>'


def tokens(seen: Sequence[Seen], tokenizer: Tokenizer, name: str) -> str:
    """Tokens as the options of a list box: arrows move in it, and each carries what its card shows."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    parts = []
    for place, one in enumerate(seen):
        text = decoder.decode(tokenizer.token_bytes(one.token), final=place == len(seen) - 1)
        bits = -math.log2(max(one.probability or 0.0, 1e-30))
        facts = escape(json.dumps(details(one, tokenizer), ensure_ascii=False, separators=(",", ":")))
        part = "" if text else " part"  # the beginning of a character that the next token ends
        spoken = "" if text.strip() else f' aria-label="{escape(label(tokenizer, one.token))}"'
        inner = shown(text) if place == 0 else escape(text)
        parts.append(
            f'<span class="t{part}" role="option" aria-selected="false"{spoken} '
            f'style="--s:{min(1, bits / MOST_BITS):.2f}" data-t="{facts}">{inner}</span>'
        )
    return f'<div class="tokens" role="listbox" tabindex="0" aria-label="{escape(name)}">{"".join(parts)}</div>'


def details(one: Seen, tokenizer: Tokenizer) -> dict[str, Any]:
    """What the card of a token shows, as JSON: n name, p probability, r rank, s sampled, a the alternatives."""
    others = [
        [label(tokenizer, token), round(p, 5), *([round(q, 5)] if one.sampled is not None else [])]
        for token, p, q in one.alternatives
    ]
    came = next((row for row, (token, _, _) in enumerate(one.alternatives) if token == one.token), -1)
    facts = {
        "n": label(tokenizer, one.token, 24),
        "p": round(one.probability or 0.0, 7),
        "r": one.rank,
        "v": tokenizer.vocab_size,
    }
    return facts | {"c": came, "a": others} | ({} if one.sampled is None else {"s": round(one.sampled, 5)})


def card() -> str:
    return f'<aside class="card" aria-live="polite" aria-label="About one token"><p class="hint">{HINT}</p></aside>'


def attention(labels: Sequence[str], shares: Tensor, title: str, left_out: bool) -> str:
    """Where one head looks, (T, T) shares: a map of squares, blue where much, and a table that says it in words."""
    size, rows = len(labels), shares.tolist()
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
    cut = f" Shown are the first {size} tokens." if left_out else ""
    sentences = (
        f"{title} A row is a token, and shows what it gathers from itself and the tokens before it; blue is much, and "
        f"a row sums to 100%.{cut}"
    )
    return (
        f'<p class="sum">{escape(sentences)}</p><div class="maps">'
        f'<svg viewBox="0 0 {side} {side}" role="img" aria-label="{escape(title)} In words in the table that follows.">'
        f'{names}{squares}</svg><div class="told" tabindex="0" role="group" aria-label="The map in words"><table>'
        '<thead><tr><th scope="col">token</th><th scope="col">gathers most from</th></tr></thead>'
        f"<tbody>{told}</tbody></table></div></div>"
    )


def _row(row: int, given: Sequence[float], labels: Sequence[str]) -> str:
    """A row of the map: a name, and a square for each token up to its own."""
    top, name = NAME + CELL * row, escape(labels[row])
    squares = "".join(
        f'<rect x="{NAME + CELL * column}" y="{top}" width="{CELL - 1}" height="{CELL - 1}" '
        f'style="--s:{share**0.5:.2f}">'
        f"<title>{name} gathers {share:.0%} from {escape(labels[column])}</title></rect>"
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

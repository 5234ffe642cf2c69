"""A chat as HTML: messages in bubbles, an avatar for each role. Every character of a message is escaped.

`transcript(turns)` is the finished turns, their answers token by token (token_html.py), and `live_turn(turns)` the one
that is being answered. static/page.js copies a message when its button is pressed.
"""

import re
from collections.abc import Sequence
from html import escape

from tinygpt.web.token_html import answer, text_html
from tinygpt.web.visitor import WebTurn, answered

NAMED = re.compile(r"You are ([^\n.,;:!?]{1,30})[.!]?\s*")  # a system message that names the assistant
ICONS = {  # drawn in a square of 20 units
    "system": "M10 3.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 0 0 0-13Zm0 5.5v4.5M10 6.4v.2",
    "user": "M10 9.5a3 3 0 1 0 0-6a3 3 0 0 0 0 6Zm-5.5 7c0-3 2.4-4.8 5.5-4.8s5.5 1.8 5.5 4.8",
    "assistant": "M5 7h10v8H5ZM10 7V4M8 10.3v1.4M12 10.3v1.4M3 10v2.5M17 10v2.5",
}
HINT = (
    '<div class="empty"><p>Write a message, and the model answers it.</p>'
    "<p>It knows what it was fine-tuned on, and little else. Examples:</p></div>"
)
CONTINUES = "This model continues texts; it has no chat template."
EDGE = '<p class="edge">The model no longer sees the messages above.</p>'


def transcript(turns: Sequence[WebTurn]) -> str:
    """All turns; without any, instructions."""
    if not turns:
        return HINT
    edge, systems = first_seen(turns), ["", *(turn.system for turn in turns)]
    parts = []
    for number, turn in enumerate(turns, 1):
        parts.append(EDGE if edge and number - 1 == edge else "")
        parts.append(system_message(turn.system, systems[number - 1]))
        parts.append(user_message(turn, number))
        inside = answer(turn, f"Answer {number}, token by token") if answered(turn) else none_html(turn)
        parts.append(message("assistant", assistant_name(turn), inside, f"answer {number}", turn.answer))
    return "".join(parts)


def live_turn(turns: Sequence[WebTurn]) -> str:
    """The last of the turns, while it is being answered, without token details."""
    turn, before = turns[-1], turns[-2].system if len(turns) > 1 else ""
    inside = f'{text_html(turn.answer)}<span class="caret"></span>'
    messages = user_message(turn, len(turns)), message("assistant", assistant_name(turn), inside)
    return system_message(turn.system, before) + "".join(messages)


def cannot_answer(sentence: str) -> str:
    """Instead of instructions, for a model without a chat template: how to get one with it."""
    return f'<div class="empty cannot"><p>{CONTINUES}</p><p>{escape(sentence)}</p></div>'


def first_seen(turns: Sequence[WebTurn]) -> int:
    """The index of the first turn that the model saw when it wrote the last answer; 0 if it saw all of them."""
    left_out = turns[-1].left_out // 2  # turns; each of their messages counts in WebTurn.left_out
    known = [place for place, turn in enumerate(turns[:-1]) if answered(turn)]
    return [*known, len(turns) - 1][min(left_out, len(known))] if left_out else 0


def system_message(system: str, before: str) -> str:
    """The system message of a turn, if it differs from that of the turn before."""
    if system == before:
        return ""
    inside = text_html(system) if system else '<span class="none">No system message from here on.</span>'
    return message("system", "System message", inside)


def user_message(turn: WebTurn, number: int) -> str:
    return message("user", "You", text_html(turn.said), f"message {number}", turn.said)


def message(role: str, name: str, inside: str, copied: str = "", text: str = "") -> str:
    """One bubble. inside: HTML. copied: what its button copies, in words, if there is any `text` to copy."""
    button = ""
    if text:
        button = (
            f'<button type="button" class="copy" aria-label="Copy {copied}" data-text="{escape(text)}">Copy</button>'
        )
    return (
        f'<div class="message {role}">{avatar(role, name)}<div class="bubble"><div class="head">'
        f'<span class="speaker">{escape(name)}</span>{button}</div><div class="said">{inside}</div></div></div>'
    )


def avatar(role: str, name: str) -> str:
    """The picture of a role; of an assistant that has a name, its initial."""
    initial = role == "assistant" and name != "Model"
    picture = escape(name[0].upper()) if initial else f'<svg viewBox="0 0 20 20"><path d="{ICONS[role]}"/></svg>'
    return f'<span class="avatar" aria-hidden="true">{picture}</span>'


def assistant_name(turn: WebTurn) -> str:
    """Who answers, if the system message is "You are NAME."; else "Model"."""
    named = NAMED.fullmatch(turn.system)
    return named[1].strip() or "Model" if named else "Model"


def none_html(turn: WebTurn) -> str:
    """Instead of an answer that is missing or blank."""
    why = "The answer is blank." if turn.answer else "No answer."
    return f'<span class="none">{why} The next message is answered without this one.</span>'

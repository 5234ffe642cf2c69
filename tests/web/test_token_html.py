"""Texts appear on the page character by character, also if they look like HTML."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from tests.conftest import TEXT, params
from tinygpt.checkpoints.model_folder import load
from tinygpt.config import Tokenize
from tinygpt.data import train_tokenizer
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.web import token_html
from tinygpt.web.service import ALTERNATIVES, predict_tokens
from tinygpt.web.visitor import TokenPrediction, WebTurn

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "**bold** _it_ # head\n- list\n`code`",
    "$x^2$ \\(y\\) $$z$$",
    "[link](javascript:alert(1)) http://example.org",
    "${alert(1)} {{value}} {{{value}}} `${1}`",
    "</div></section></gradio-app>\"' onmouseover='x",
    "\u202etxet desrever\u202c \u2066x\u2069 a\u200db",
    "\n\n  two lines before, spaces  kept\t\n",
    "é ∑ 漢字 👩‍🚀 ﷽",
    "&lt;b&gt; &amp; &#60;",
]


class Reader(HTMLParser):
    """The tags and attributes of HTML, and the text of each element of one class."""

    def __init__(self, html: str, kind: str = "said") -> None:
        super().__init__(convert_charrefs=True)
        self.kind, self.depth, self.skip = kind, 0, 0
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        classes = (dict(attrs).get("class") or "").split()
        if self.depth:
            self.depth += 1
            self.skip = self.depth if "mark" in classes else self.skip
        elif self.kind in classes:
            self.depth = 1
            self.texts.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.depth:
            self.skip = 0 if self.skip == self.depth else self.skip
            self.depth -= 1

    def handle_data(self, data: str) -> None:
        if self.depth:
            self.texts[-1] += "\n" if self.skip else data


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    """A BPE tokenizer, with tokens that are parts of characters."""
    return train_tokenizer.build(
        Tokenize(**{**params().tokenize.model_dump(), "kind": "bpe", "vocab_size": 300}), [TEXT]
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_of_visitor_or_model_stays_text(bpe: Tokenizer, text: str) -> None:
    ids = bpe.encode(text)
    tokens = [TokenPrediction(token, 0.5, 1, ((token, 0.5, 0.5),), 0.5) for token in ids]
    turn = WebTurn(text, text, tokens=tokens, tokenizer=bpe)
    for html in (
        token_html.transcript([turn]),
        token_html.transcript([], text),
        token_html.live_turn(turn),
        token_html.scored_text(turn.tokens, bpe, 0),
        token_html.attention_map([text], torch.ones(1, 1), text, False),
        token_html.status(text, command=text),
    ):
        page = Reader(html)
        assert not {"script", "img", "a", "b", "gradio-app", "iframe"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert page.texts in ([], [text, text])


class HostileTokenizer:
    """A tokenizer whose tokens are whole hostile texts."""

    vocab_size = len(HOSTILE)
    special_tokens: dict[int, str] = {}  # noqa: RUF012

    def token_bytes(self, token: int) -> bytes:
        return HOSTILE[token].encode()


def test_a_token_that_is_a_tag_stays_text() -> None:
    predictions = [TokenPrediction(token, 0.5, 1, ((token, 0.5, 0.5),)) for token in range(len(HOSTILE))]
    page = Reader(token_html.tokens(predictions, cast(Any, HostileTokenizer()), '"><script>'), "tokens")
    assert page.texts == ["".join(HOSTILE)]
    assert set(page.tags) == {"div", "span"}
    assert {name for name, _ in page.attributes} <= {
        *("class", "role", "tabindex", "aria-label", "aria-selected", "style", "data-t")
    }


def test_tokens_carry_their_details(model_folder: Path) -> None:
    model, tokenizer = load(model_folder)
    predictions = list(predict_tokens(model, tokenizer.encode("ROMEO:\nBut"), 1))
    page = Reader(token_html.tokens(predictions, tokenizer, "x"), "tokens")
    assert page.texts == ["OMEO:\nBut"]
    all_details = [json.loads(value or "") for name, value in page.attributes if name == "data-t"]
    assert [details["n"] for details in all_details] == [*"OMEO:", "↵", *"But"]
    for details, one in zip(all_details, predictions, strict=True):
        assert details["p"] == pytest.approx(one.probability, abs=1e-6)
        assert (details["r"], details["v"]) == (one.rank, tokenizer.vocab_size)
        chances = [chance for _, chance in details["a"]]
        assert chances == sorted(chances, reverse=True)
        assert len(chances) == ALTERNATIVES + (details["r"] > ALTERNATIVES)
        assert details["c"] == min(details["r"] - 1, ALTERNATIVES)


def test_a_token_that_is_not_among_the_likeliest_comes_after_them(bpe: Tokenizer) -> None:
    first, second, third = bpe.encode("ABC")
    likeliest = ((first, 0.5, 0.7), (second, 0.2, 0.3))
    details = token_html.token_details(TokenPrediction(third, 0.0125, 29, likeliest, 0.0), bpe)
    assert details["a"] == [["A", 0.5, 0.7], ["B", 0.2, 0.3], ["C", 0.0125, 0.0]]
    assert (details["c"], details["r"]) == (2, 29)
    assert token_html.token_details(TokenPrediction(third, 0.0125, 29, likeliest), bpe)["a"][2] == ["C", 0.0125]
    assert token_html.token_details(TokenPrediction(second, 0.2, 2, likeliest, 0.3), bpe)["a"] == [
        ["A", 0.5, 0.7],
        ["B", 0.2, 0.3],
    ]


def test_every_answer_has_token_details(bpe: Tokenizer) -> None:
    turns = [WebTurn("a", "b", tokens=[TokenPrediction(66, 0.5, 1)], tokenizer=bpe) for _ in range(3)]
    html = token_html.transcript([*turns, WebTurn("a", "its model is gone")])
    assert html.count('role="listbox"') == html.count("data-t=") == 3
    assert "its model is gone" in html


def test_a_character_of_several_tokens_is_shown_once_after_marks(bpe: Tokenizer) -> None:
    predictions = [TokenPrediction(token, 0.5, 1) for token in bpe.encode("漢")]
    assert len(predictions) == 3
    html = token_html.tokens(predictions, bpe, "x")
    assert html.count('class="t partial"') == 2
    assert Reader(html, "tokens").texts == ["漢"]


def test_a_role_token_is_shown_by_its_name(bpe: Tokenizer) -> None:
    chat = bpe.with_roles()
    ids, _ = chat.encode_messages([{"role": "user", "content": "A"}], add_generation_prompt=True)
    html = token_html.tokens([TokenPrediction(token, 0.5, 1) for token in ids], chat, "x")
    assert Reader(html, "tokens").texts == ["‹end›‹user›A‹end turn›‹assistant›"]
    assert "partial" not in html


def test_an_attention_map_comes_with_a_table_of_the_largest_weights() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    html = token_html.attention_map(["a", "b"], weights, "Block 1, head 2.", left_out=True)
    assert html.count("<rect") == 3
    assert "b 75%, a 25%" in html
    assert "<title>b attends 25% to a</title>" in html
    assert "Only the first 2 tokens are shown." in html

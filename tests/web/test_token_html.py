"""Every character of a text is a character on the page, whatever it spells."""

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
from tinygpt.web.service import ALTERNATIVES, Seen, WebTurn, predictions

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
    """The tags of a page, its attributes, and the text in parts of a class."""

    def __init__(self, html: str, kind: str = "says") -> None:
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
def pairs() -> Tokenizer:
    """Byte pairs, so that characters come in parts."""
    return train_tokenizer.build(
        Tokenize(**{**params().tokenize.model_dump(), "kind": "bpe", "vocab_size": 300}), [TEXT]
    )


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_stays_text_whoever_wrote_it(pairs: Tokenizer, text: str) -> None:
    ids = pairs.encode(text)
    tokens = [Seen(token, 0.5, 1, ((token, 0.5, 0.5),), 0.5) for token in ids]
    turn = WebTurn(text, text, tokens=tokens, tokenizer=pairs)
    for html in (
        token_html.transcript([turn]),
        token_html.transcript([], text),
        token_html.live(turn),
        token_html.reading(turn.tokens, pairs, 0),
        token_html.attention([text], torch.ones(1, 1), text, False),
        token_html.sentence(text, command=text),
    ):
        page = Reader(html)
        assert not {"script", "img", "a", "b", "gradio-app", "iframe"} & set(page.tags)
        assert not [name for name, _ in page.attributes if name.startswith("on")]
        assert page.texts in ([], [text, text])


class Whole:
    """A tokenizer of which each token is a whole hostile text."""

    vocab_size, end_of_text = len(HOSTILE), -1

    def token_bytes(self, token: int) -> bytes:
        return HOSTILE[token].encode()


def test_a_token_that_is_a_tag_stays_text() -> None:
    seen = [Seen(token, 0.5, 1, ((token, 0.5, 0.5),)) for token in range(len(HOSTILE))]
    page = Reader(token_html.tokens(seen, cast(Any, Whole()), '"><script>'), "tokens")
    assert page.texts == ["".join(HOSTILE)]
    assert set(page.tags) == {"div", "span"}
    assert {name for name, _ in page.attributes} <= {
        *("class", "role", "tabindex", "aria-label", "aria-selected", "style", "data-t")
    }


def test_tokens_carry_what_their_card_shows(model_folder: Path) -> None:
    model, words = load(model_folder)
    seen = list(predictions(model, words.encode("ROMEO:\nBut"), 1))
    page = Reader(token_html.tokens(seen, words, "x"), "tokens")
    assert page.texts == ["OMEO:\nBut"]
    carried = [json.loads(value or "") for name, value in page.attributes if name == "data-t"]
    assert [facts["n"] for facts in carried] == [*"OMEO:", "↵", *"But"]
    for facts, one in zip(carried, seen, strict=True):
        assert facts["p"] == pytest.approx(one.probability, abs=1e-6)
        assert (facts["r"], facts["v"]) == (one.rank, words.vocab_size)
        chances = [chance for _, chance in facts["a"]]
        assert chances == sorted(chances, reverse=True)
        assert len(chances) == ALTERNATIVES + (facts["r"] > ALTERNATIVES)
        assert facts["c"] == min(facts["r"] - 1, ALTERNATIVES)


def test_a_token_that_is_not_among_the_likeliest_is_shown_after_them(pairs: Tokenizer) -> None:
    first, second, third = pairs.encode("ABC")
    likeliest = ((first, 0.5, 0.7), (second, 0.2, 0.3))
    facts = token_html.details(Seen(third, 0.0125, 29, likeliest, 0.0), pairs)
    assert facts["a"] == [["A", 0.5, 0.7], ["B", 0.2, 0.3], ["C", 0.0125, 0.0]]
    assert (facts["c"], facts["r"]) == (2, 29)
    assert token_html.details(Seen(third, 0.0125, 29, likeliest), pairs)["a"][2] == ["C", 0.0125]
    assert token_html.details(Seen(second, 0.2, 2, likeliest, 0.3), pairs)["a"] == [["A", 0.5, 0.7], ["B", 0.2, 0.3]]


def test_the_tokens_of_every_answer_open(pairs: Tokenizer) -> None:
    turns = [WebTurn("a", "b", tokens=[Seen(66, 0.5, 1)], tokenizer=pairs) for _ in range(3)]
    html = token_html.transcript([*turns, WebTurn("a", "its model is gone")])
    assert html.count('role="listbox"') == html.count("data-t=") == 3
    assert "its model is gone" in html


def test_a_character_in_parts_is_shown_once_and_its_beginnings_as_marks(pairs: Tokenizer) -> None:
    seen = [Seen(token, 0.5, 1) for token in pairs.encode("漢")]
    assert len(seen) == 3
    html = token_html.tokens(seen, pairs, "x")
    assert html.count('class="t part"') == 2
    assert Reader(html, "tokens").texts == ["漢"]


def test_a_map_says_in_words_what_it_shows() -> None:
    weights = torch.tensor([[1.0, 0.0], [0.25, 0.75]])
    html = token_html.attention(["a", "b"], weights, "Block 1, head 2.", left_out=True)
    assert html.count("<rect") == 3
    assert "b 75%, a 25%" in html
    assert "<title>b attends 25% to a</title>" in html
    assert "Only the first 2 tokens are shown." in html

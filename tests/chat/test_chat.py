"""Chat: the conversation alone, and then as people hold it, in a terminal."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import tinygpt
from tests import screen
from tests.conftest import ROOT, TEXT, gpt
from tests.screen import CTRL_C, CTRL_D
from tinygpt.chat.session import SETTINGS, Chat, style
from tinygpt.checkpoints.model_folder import hashes, save_model
from tinygpt.generation.sampling import Sampling
from tinygpt.generation.stream import split_at_stop
from tinygpt.tokenizer.char import CharTokenizer

LONG = "100000"  # tokens: no answer gets there


@pytest.fixture
def chat(model_folder: Path) -> Chat:
    model, tokens = tinygpt.load(model_folder)
    return Chat(model, tokens, hashes(model_folder), Sampling(), length=30, seed=7)


def heard(pieces: Iterator[str]) -> str:
    return "".join(pieces)


# The conversation alone


def test_an_answer_is_what_generate_writes_after_all_the_text_so_far(chat: Chat) -> None:
    first = heard(chat.say("ROMEO:"))
    second = heard(chat.say(" wherefore"))
    for prompt, answer in (("ROMEO:", first), (f"ROMEO:{first} wherefore", second)):
        made = tinygpt.generate(chat.model, chat.tokenizer, prompt, max_new_tokens=30, seed=7)
        assert answer == made[0].completion
    assert chat.text == f"ROMEO:{first} wherefore{second}"
    assert len(chat.tokenizer.encode(chat.text)) > 4 * chat.model.config.context_length


def test_no_words_let_the_model_go_on(chat: Chat) -> None:
    first, second = heard(chat.say("")), heard(chat.say(""))
    assert len(first) == len(second) == 30
    assert chat.text == first + second


def test_an_answer_left_early_is_kept_as_far_as_it_was_heard(chat: Chat) -> None:
    pieces = chat.say("O ")
    start = "".join(next(pieces) for _ in range(5))
    assert chat.text == "O " + start
    assert chat.turns[-1].ended == "interrupted"
    heard(chat.say(""))
    assert chat.turns[-1].ended == "length"


def test_retry_takes_the_next_seed_and_undo_the_turn_away(chat: Chat) -> None:
    first = heard(chat.say("O "))
    second = heard(chat.retry())
    assert chat.text == "O " + second != "O " + first
    assert (chat.seed, len(chat.turns)) == (8, 1)
    chat.undo()
    assert chat.text == ""
    for nothing in (chat.undo, lambda: heard(chat.retry())):
        with pytest.raises(ValueError, match="nothing to take back"):
            nothing()


def test_a_retry_of_which_nothing_came_leaves_the_answer_before_it(chat: Chat, monkeypatch: pytest.MonkeyPatch) -> None:
    first = heard(chat.say("O "))
    monkeypatch.setattr("tinygpt.generation.generate.stream", lambda *_, **__: iter(["", "Ah"]))
    pieces = chat.retry()
    assert next(pieces) == ""  # half of a character
    pieces.close()
    assert chat.text == "O " + first


def test_another_answer_to_the_same_words_is_recorded_with_their_style(chat: Chat) -> None:
    heard(chat.say("hi"))
    chat.style = style("Q: {}")
    heard(chat.retry())
    (turn,) = chat.records()
    assert (turn["prompt"], turn["style"]) == ("hi", "plain")


def test_settings_are_shown_as_they_can_be_typed(chat: Chat) -> None:
    chat.set("seed", "123456789012345678")
    assert "seed 123456789012345678" in chat.settings()


def test_every_knob_turns_and_says_what_it_cannot_be(chat: Chat) -> None:
    for setting, example in SETTINGS.items():
        chat.set(setting, str(example))
        assert f"{setting} {example}" in chat.settings()
    before = chat.settings()
    for setting, value, says in [
        ("temperature", "-1", "temperature is -1.0; it must be 0 or more"),
        ("temperature", "warm", "temperature is 'warm'; it must be a number, such as 0.8"),
        ("temperature", "nan", "temperature is nan"),
        ("top-k", "2.5", "top_k is '2.5'; it must be a whole number, such as 20"),
        ("top-p", "0", "top_p is 0.0; it must be above 0"),
        ("length", "0", "length is 0; it must be 1 or more"),
        ("seed", "-1", "seed is -1; it must be 0 or more"),
        ("seed", str(2**63), "at most 4611686018427387904"),
    ]:
        with pytest.raises(ValueError, match=re.escape(says)):
            chat.set(setting, value)
    assert chat.settings() == before


def test_words_that_cannot_be_encoded_are_refused_and_not_kept(chat: Chat) -> None:
    chat.tokenizer = CharTokenizer(set(TEXT), "error")
    with pytest.raises(ValueError, match="vocabulary lacks '@'"):
        heard(chat.say("@"))
    assert chat.turns == []


@pytest.mark.parametrize(
    ("asked", "text", "expected"),
    [
        ("plain", "so far", "Hark!"),
        ("play", "", "YOU:\nHark!\n\n"),
        ("play JULIET", "so far", "\n\nYOU:\nHark!\n\nJULIET:\n"),
        ("play LADY MACBETH, ROMEO", "so far\n", "\nROMEO:\nHark!\n\nLADY MACBETH:\n"),
        ("play JULIET", "so far\n\n\n", "YOU:\nHark!\n\nJULIET:\n"),
        ("Q: {}\nA:", "", "Q: Hark!\nA:"),
        ("Q: {}\nA:", "so far", "\nQ: Hark!\nA:"),
        ("{} she said.", "so far", "Hark! she said."),
    ],
)
def test_a_style_says_what_stands_around_your_words(asked: str, text: str, expected: str) -> None:
    assert style(asked).wrap("Hark!", text) == expected
    assert style(asked).wrap("", text) == ""


@pytest.mark.parametrize("asked", ["", "chatml", "plain text"])
def test_an_unknown_style_is_refused(asked: str) -> None:
    with pytest.raises(ValueError, match="there are plain, play NAME"):
        style(asked)


@pytest.mark.parametrize("size", [1, 2, 3, 50])
@pytest.mark.parametrize(
    ("asked", "written", "kept"),
    [
        ("play", "Ay me!\nHe speaks: hark.\n\n[Exit]\n\nROMEO:\nO", "Ay me!\nHe speaks: hark.\n\n[Exit]"),
        ("play", "JULIET:\nAy me!\n\nFirst Citizen:\n", "JULIET:\nAy me!"),
        ("play", "Ay\n\nNo: more.\n\n", "Ay\n\nNo: more.\n\n"),
        ("Q: {}\nA:", " yes\nQuite.\nQ: what", " yes\nQuite."),
        ("plain", "Ay\n\nROMEO:\nO", "Ay\n\nROMEO:\nO"),
    ],
)
def test_an_answer_ends_before_the_next_speaker_however_it_is_cut(
    asked: str, written: str, kept: str, size: int
) -> None:
    shown, pending = "", ""
    for start in range(0, len(written), size):
        certain, pending, matched = split_at_stop(pending + written[start : start + size], style(asked).stop)
        shown += certain
        if matched:
            break
    assert shown + ("" if matched else pending) == kept


def test_a_play_stops_where_somebody_else_speaks(chat: Chat) -> None:
    chat.style, chat.length = style("play JULIET"), 3000
    chat.set("temperature", "0.3")
    heard(chat.say("O Romeo, Romeo!"))
    assert chat.turns[-1].ended == "style"
    assert chat.text.startswith("YOU:\nO Romeo, Romeo!\n\nJULIET:\n")
    assert chat.text.count(":\n") == 2


def test_what_is_saved_can_be_made_again_and_replaces_nothing_unasked(chat: Chat, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    with pytest.raises(ValueError, match="nothing to save"):
        chat.save(file)
    heard(chat.say("ROMEO:"))
    chat.set("temperature", "1.2")
    chat.set("seed", "99")
    pieces = chat.say(" and")
    for _ in range(4):
        next(pieces)
    chat.save(file)
    saved = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [(one["seed"], one["settings"]["temperature"], one["ended"]) for one in saved] == [
        (7, 0.8, "length"),
        (99, 1.2, "interrupted"),
    ]
    assert saved[-1]["text"] == chat.text
    for one in saved:
        assert one["hashes"] == chat.hashes
        made = tinygpt.generate(chat.model, chat.tokenizer, one["prompt"], seed=one["seed"], **one["settings"])
        assert made[0].completion.startswith(one["completion"])
    before = file.read_bytes()
    chat.undo()
    with pytest.raises(ValueError, match=r"is there already\. /save! "):
        chat.save(file)
    assert file.read_bytes() == before
    chat.save(file, overwrite=True)
    assert len(file.read_text(encoding="utf-8").splitlines()) == 1
    with pytest.raises(ValueError, match="is a folder"):
        chat.save(tmp_path, overwrite=True)
    assert file.exists()


# As people hold it


def test_a_conversation_in_a_terminal(model_folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "chat.jsonl"
    with screen.tinygpt("chat", "--model", str(model_folder), "--max-new-tokens", "20", NO_COLOR="1") as terminal:
        greeting = terminal.wait_for("\n> ")
        assert "A base model completes text; it does not answer." in greeting
        assert str(model_folder) in greeting.replace("\n", "")
        assert "/help" in greeting

        def say(line: str) -> str:
            terminal.type(line + "\n")
            return terminal.wait_for("\n> ").partition("\n")[2].removesuffix("> ").removesuffix("\n")

        first, _, forgets = say("ROMEO:").rpartition("\n")
        assert len(first) == 20
        assert "longer now than the 16 tokens" in forgets
        second = say("/retry")
        assert first != second
        assert f"ROMEO:{second}" in say("/show")
        say("/undo")
        assert say("/seed 1338") == "seed 1338"
        assert say("ROMEO:") == second
        assert "temperature is -3.0; it must be 0 or more." in say("/temperature -3")
        wrong = say("/temprature 1")
        assert "/temprature is no command; there are /temperature," in wrong.replace("\n", " ")
        terminal.type("O\\\n")
        terminal.wait_for("… ")
        say("Romeo")
        assert "O\nRomeo" in say("/show")
        assert "/style play JULIET" in say("/help")
        terminal.type("/see\t")
        terminal.wait_for("/seed")  # the tab key completes a command
        assert say(" 1338") == "seed 1338"
        assert str(file) in say(f"/save {file}").replace("\n", "")
        assert "is there already" in say(f"/save {file}").replace("\n", "")
        terminal.type(CTRL_D)
        assert terminal.end()[0] == 0
    assert terminal.raw.startswith("\ropening ")  # a line that is gone once the model is there
    assert "\x1b[2m" not in terminal.raw
    assert [json.loads(line)["seed"] for line in file.read_text(encoding="utf-8").splitlines()] == [1338, 1338]


def test_ctrl_c_ends_the_answer_as_it_streams_and_not_the_program(model_folder: Path) -> None:
    with screen.tinygpt("chat", "--model", str(model_folder), "--max-new-tokens", LONG) as terminal:
        terminal.wait_for("\n> ")
        terminal.type("JULIET:\n")
        terminal.wait_for("JULIET:\n")
        seen = terminal.wait_for("o", seconds=60)  # it writes already
        terminal.type(CTRL_C)
        seen += terminal.wait_for("Stopped there; it is kept.")
        terminal.wait_for("\n> ")
        terminal.type("/show\n")
        shown = terminal.wait_for("\n> ")
        assert "JULIET:" + seen[:4] in shown
        terminal.press(CTRL_C, "/quit or Ctrl-D leaves.")
        terminal.wait_for("\n> ")
        terminal.type("/length 5\n")
        terminal.wait_for("\n> ")
        terminal.type("\n")
        terminal.wait_for("\n> ")
        terminal.type("/quit\n")
        assert terminal.end()[0] == 0
    assert "\x1b[2m" in terminal.raw  # faint notes, where nobody minds colour


def test_lines_can_be_piped_in_and_text_out(model_folder: Path) -> None:
    command = [sys.executable, "-m", "tinygpt", "chat", "--model", str(model_folder), "--max-new-tokens", "9"]
    lines = b"ROMEO:\n/retry\n//x\n\xff\n/nonsense\n"
    done = subprocess.run(command, cwd=ROOT, input=lines, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"\x1b" not in done.stdout + done.stderr
    assert b"> " not in done.stdout
    assert b"opening" not in done.stderr
    assert b"/nonsense is no command" in done.stderr
    done = subprocess.run(command, cwd=ROOT, input=b"ROMEO:\\", capture_output=True, check=False)
    assert done.stdout.strip()  # a last line that would go on, but for the end, is answered too


def test_a_models_control_characters_are_shown_and_steer_no_terminal(tmp_path: Path) -> None:
    tokens = CharTokenizer("\x1b[2J\x07\u202e\r\x9b", "error")
    model = gpt(tokens.vocab_size)
    lineage = {"text": {}, "tokenizer": "k", "params": "p"}
    save_model(tmp_path / "model", model.config, model.state_dict(), tokens, lineage)
    options = ["--model", str(tmp_path / "model"), "--max-new-tokens", "60", "--temperature", "2"]
    for more in ([], ["--stream"]):
        with screen.tinygpt("generate", "[", *options, *more) as terminal:
            assert terminal.end()[0] == 0
        assert not set("\x1b\x07\u202e\x9b") & set(terminal.raw)
        assert "\\x1b" in terminal.raw
    with screen.tinygpt("chat", *options, NO_COLOR="1", TERM="dumb") as terminal:
        terminal.wait_for("\n> ")
        terminal.type("[\n")
        terminal.wait_for("\n> ")
        terminal.type("/show\n")
        assert "\\x1b" in terminal.wait_for("\n> ")
        terminal.type("/quit\n")
        assert terminal.end()[0] == 0
    assert not set("\x1b\x07\u202e\x9b") & set(terminal.raw)

"""Chat with a model that answers messages: the conversation alone, and as a command whose input is piped."""

import io
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch

import tinygpt
from tests.conftest import ROOT, gpt
from tinygpt.chat.context import fitting
from tinygpt.chat.repl import Repl
from tinygpt.chat.session import Chat, MessageChat, open_chat
from tinygpt.checkpoints.model_folder import hashes, save_model
from tinygpt.generation.sampling import Sampling
from tinygpt.tokenizer.char import CharTokenizer
from tinygpt.tokenizer.chat_template import ASSISTANT, END, USER

CHARACTERS = CharTokenizer("abcdefghijklmnopqrstuvwxyz .", "replace").with_roles()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A chat model with random weights."""
    model = gpt(CHARACTERS.vocab_size, context_length=64)
    lineage = {"tokenizer": "", "text": {}, "params": ""}
    save_model(tmp_path / "chat", model.config, dict(model.named_parameters()), CHARACTERS, lineage)
    return tmp_path / "chat"


@pytest.fixture
def chat(folder: Path) -> MessageChat:
    model, tokenizer = tinygpt.load(folder)
    opened = open_chat(model, tokenizer, hashes(folder), Sampling(), length=12, seed=7)
    assert isinstance(opened, MessageChat)
    return opened


def heard(pieces: Iterator[str]) -> str:
    return "".join(pieces)


def test_a_model_with_a_template_answers_messages_and_another_continues_a_text(chat: Chat, model_folder: Path) -> None:
    model, tokenizer = tinygpt.load(model_folder)
    assert type(open_chat(model, tokenizer, {}, Sampling(), 9, 1)) is Chat
    assert type(chat) is MessageChat


def test_an_answer_is_what_generate_writes_to_the_messages_so_far(chat: MessageChat) -> None:
    chat.system = "you are juliet."
    first = heard(chat.say("who art thou"))
    messages = [{"role": "system", "content": "you are juliet."}, {"role": "user", "content": "who art thou"}]
    assert first == tinygpt.generate(chat.model, chat.tokenizer, messages, max_new_tokens=12, seed=7)[0].completion
    chat.length = 5
    second = heard(chat.say("why"))
    messages += [{"role": "assistant", "content": first}, {"role": "user", "content": "why"}]
    kept, left_out = fitting(chat.tokenizer, messages, 64, 5)
    assert second == tinygpt.generate(chat.model, chat.tokenizer, kept, max_new_tokens=5, seed=7)[0].completion
    assert chat.turns[-1].left_out == left_out


def test_an_answer_ends_at_any_special_token_and_shows_none(chat: MessageChat, monkeypatch: pytest.MonkeyPatch) -> None:
    letters = chat.tokenizer.encode("ay")
    for name in (END, USER, ASSISTANT):
        drawn = iter([*letters, chat.tokenizer.role_token(name), *letters])
        monkeypatch.setattr("tinygpt.generation.generate.sample", lambda *_, drawn=drawn: torch.tensor([next(drawn)]))
        assert heard(chat.say("a")) == "ay"
        assert chat.turns[-1].ended == "end of text"


def test_the_oldest_turns_are_left_out_and_the_system_message_stays(chat: MessageChat) -> None:
    chat.system = "you are juliet."
    for number in range(8):
        heard(chat.say(f"line {'x' * number}"))
        prompt = chat.prompt_of(chat.turns[-1], chat.turns[:-1])
        assert isinstance(prompt, list)
        assert prompt[0] == {"role": "system", "content": "you are juliet."}
        assert prompt[-1] == {"role": "user", "content": f"line {'x' * number}"}
        assert [message["role"] for message in prompt[1:]] == ["user", "assistant"] * (len(prompt) // 2 - 1) + ["user"]
        size = len(chat.tokenizer.encode_messages(prompt, add_generation_prompt=True)[0])
        assert size + 12 <= chat.model.config.context_length
    assert chat.turns[-1].left_out > chat.turns[2].left_out >= 0


def test_a_message_that_cannot_fit_is_refused_and_nothing_is_kept(chat: MessageChat) -> None:
    for words, why in (("a" * 60, "sees 64"), ("", "is empty"), (" \n", "is empty")):
        with pytest.raises(ValueError, match=why):
            heard(chat.say(words))
        assert not chat.turns


def test_an_answer_stops_where_the_context_is_full(chat: MessageChat) -> None:
    chat.length = 1000
    chat.sampling = Sampling(temperature=0)
    heard(chat.say("a" * 20))
    turn = chat.turns[-1]
    assert isinstance(turn.prompt, list)
    size = len(chat.tokenizer.encode_messages(turn.prompt, add_generation_prompt=True)[0])
    if turn.ended == "length":
        assert len(chat.tokenizer.encode(turn.answer)) == 64 - size + 1
    else:
        assert len(chat.tokenizer.encode(turn.answer)) < 64 - size + 1


def test_a_conversation_goes_on_after_an_empty_answer(chat: MessageChat, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("tinygpt.generation.generate.generate_ids", lambda *_, **__: iter([]))
        assert heard(chat.say("hm")) == ""
    heard(chat.say("and now"))
    assert [turn.said for turn in chat.turns] == ["hm", "and now"]


def test_retry_undo_and_records_are_about_messages(chat: MessageChat, tmp_path: Path) -> None:
    heard(chat.say("a"))
    first = heard(chat.say("b"))
    assert heard(chat.retry()) != first
    assert [turn.seed for turn in chat.turns] == [7, 8]
    chat.save(tmp_path / "chat.jsonl")
    saved = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text(encoding="utf-8").splitlines()]
    assert saved[1]["prompt"][-1] == {"role": "user", "content": "b"}
    assert saved[1]["text"].endswith(ASSISTANT + chat.turns[1].answer)
    chat.undo()
    assert [turn.said for turn in chat.turns] == ["a"]


def test_what_is_saved_is_what_the_model_saw_though_the_system_message_has_changed_since(
    chat: MessageChat, tmp_path: Path
) -> None:
    for system in ("you are juliet.", "you are romeo."):
        chat.system = system
        heard(chat.say("who art thou"))
    chat.save(tmp_path / "chat.jsonl")
    saved = [json.loads(line) for line in (tmp_path / "chat.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [each["prompt"][0]["content"] for each in saved] == ["you are juliet.", "you are romeo."]


def test_a_refused_message_gives_an_empty_line(chat: MessageChat) -> None:
    lines, out, notes = iter(["a" * 90, "", "/quit"]), io.StringIO(), io.StringIO()
    Repl(chat, lambda _: next(lines), out, notes).run()
    assert out.getvalue() == "\n\n"
    assert "this model sees 64" in notes.getvalue()


def command(folder: Path, *words: str) -> list[str]:
    return [sys.executable, "-m", "tinygpt", "chat", "--model", str(folder), "--max-new-tokens", "9", *words]


@pytest.mark.slow
def test_piped_lines_give_the_answers_alone_a_line_or_more_for_each(folder: Path) -> None:
    asked = "who art thou\n\nwhy\n"
    ran = subprocess.run(
        command(folder, "--temperature", "0", "--system", "you are juliet."),
        cwd=ROOT, input=asked, capture_output=True, text=True, check=True,
    )  # fmt: skip
    model, tokenizer = tinygpt.load(folder)
    chat = open_chat(model, tokenizer, {}, Sampling(temperature=0), 9, 1337)
    assert isinstance(chat, MessageChat)
    chat.system = "you are juliet."
    answers = [heard(chat.say(line)) for line in ("who art thou", "why")]
    assert ran.stdout == f"{answers[0]}\n\n{answers[1]}\n"
    assert "It answers messages" in ran.stderr


@pytest.mark.slow
def test_system_messages_are_for_chat_models(folder: Path, model_folder: Path) -> None:
    ran = subprocess.run(
        command(model_folder, "--system", "you"), cwd=ROOT, input="", capture_output=True, text=True, check=False
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert "needs a chat model" in ran.stderr


def test_commands_of_a_chat_with_messages(chat: MessageChat) -> None:
    lines = iter(["/system you are romeo.", "who", "/style plain", "/show", "/system", "/undo", "/quit"])
    out, notes = io.StringIO(), io.StringIO()
    Repl(chat, lambda _: next(lines), out, notes).run()
    assert not chat.turns
    assert chat.system == ""
    for told in ("system you are romeo.", "needs no style. /system says who it is.", "No system message."):
        assert told in notes.getvalue()
    assert "you: who\nmodel: " in out.getvalue()


def test_the_help_of_a_chat_names_the_commands_that_it_has(chat: MessageChat, model_folder: Path) -> None:
    text_chat = open_chat(*tinygpt.load(model_folder), {}, Sampling(), 9, 1)
    for held, there, not_there in ((chat, "/system", "/style"), (text_chat, "/style", "/system")):
        lines, out, notes = iter(["/help", "/quit"]), io.StringIO(), io.StringIO()
        Repl(held, lambda _, lines=lines: next(lines), out, notes).run()  # type: ignore[misc]
        assert there in out.getvalue()
        assert not_there not in out.getvalue()
        assert all(len(line) <= 80 for line in out.getvalue().splitlines())


def test_each_of_ten_thousand_messages_is_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    encode = Mock(wraps=CHARACTERS.encode)
    monkeypatch.setattr(CHARACTERS, "encode", encode)
    turns = [{"role": role, "content": "o"} for _ in range(5_000) for role in ("user", "assistant")]
    kept, left_out = fitting(CHARACTERS, [*turns, {"role": "user", "content": "who art thou"}], 64, 20)
    assert (encode.call_count, len(kept) + left_out) == (10_001, 10_001)
    size = len(CHARACTERS.encode_messages(kept, add_generation_prompt=True)[0])
    assert size + 20 <= 64 < size + 20 + 6  # another question and its answer would not fit

"""`tinygpt serve` with OpenAI's own client: answers, streams, stops, refusals, and fifty requests at once."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch
from pydantic import ValidationError
from typer.testing import CliRunner

pytest.importorskip("gradio", reason="the server needs the extra: pip install -c requirements.lock -e '.[web]'")
pytest.importorskip("openai")

import openai

import tinygpt
from tests.conftest import ROOT, gpt
from tests.visiting import running, until
from tinygpt.checkpoints.model_folder import save_model
from tinygpt.cli import main
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.chat_template import ROLE_TOKENS
from tinygpt.training.state import weights
from tinygpt.web.middleware import MAX_BODY
from tinygpt.web.models import ModelRegistry
from tinygpt.web.openai_api import answers as answers_module
from tinygpt.web.openai_api import app
from tinygpt.web.openai_api.answers import Answers
from tinygpt.web.openai_api.requests import ChatBody
from tinygpt.web.requests import MAX_CHARACTERS, MAX_NEW_TOKENS
from tinygpt.web.service import MAX_CONCURRENT

KEY = "correct horse"
WHO = [{"role": "user", "content": "Who art thou?"}]


@pytest.fixture(scope="module")
def base_folder(tmp_path_factory: pytest.TempPathFactory, characters: Tokenizer) -> Path:
    """A model without a chat template, and with random weights; it hardly ever ends a text."""
    return base_model(tmp_path_factory.mktemp("base") / "model", characters)


def base_model(folder: Path, tokenizer: Tokenizer, **shape: int) -> Path:
    model = gpt(tokenizer.vocab_size, **shape)
    with torch.no_grad():
        model.head.weight[tokenizer.end_of_text] = 0
    save_model(folder, model.config, weights(model), tokenizer, {"text": {}, "tokenizer": "k", "params": "p"})
    return folder


@pytest.fixture(scope="module")
def served(
    chat_folder: Path, base_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, Answers]]:
    """The address of a server without a key, and its answers; it runs in an empty folder."""
    before = Path.cwd()
    os.chdir(tmp_path_factory.mktemp("serve"))
    answers = Answers(ModelRegistry([chat_folder, base_folder]))
    with running(app.app(answers)) as address:
        yield address, answers
    os.chdir(before)


@pytest.fixture
def client(served: tuple[str, Answers]) -> Iterator[Any]:
    with openai.OpenAI(base_url=f"{served[0]}/v1", api_key="unused", max_retries=0) as found:
        yield found


@pytest.fixture
def chat(client: Any, chat_folder: Path) -> Any:
    """Asks the chat model: keywords change the request."""

    def create(**changes: Any) -> Any:
        return client.chat.completions.create(**{"model": str(chat_folder), "messages": WHO, "seed": 7} | changes)

    return create


@pytest.fixture
def complete(client: Any, base_folder: Path) -> Any:
    """Asks the base model: keywords change the request."""

    def create(**changes: Any) -> Any:
        return client.completions.create(**{"model": str(base_folder), "prompt": "ROMEO:", "seed": 7} | changes)

    return create


def expected(folder: Path, prompt: Any, **settings: Any) -> list[str]:
    """What the library generates."""
    model, tokenizer = tinygpt.load(folder)
    return [one.completion for one in tinygpt.generate(model, tokenizer, prompt, **{"seed": 7} | settings)]


def test_the_models_are_listed(client: Any, chat_folder: Path, base_folder: Path) -> None:
    assert [model.id for model in client.models.list()] == [str(chat_folder), str(base_folder)]


def test_a_chat_is_answered_as_generate_answers_it(chat: Any, chat_folder: Path) -> None:
    settings = {"temperature": 0.5, "top_p": 0.9}
    reply = chat(max_completion_tokens=9, n=3, **settings, extra_body={"top_k": 20, "repetition_penalty": 1.2})
    texts = expected(chat_folder, WHO, max_new_tokens=9, num_samples=3, top_k=20, repetition_penalty=1.2, **settings)
    assert [choice.message.content for choice in reply.choices] == texts
    assert len(set(texts)) == 3
    assert {choice.message.role for choice in reply.choices} == {"assistant"}
    assert (reply.object, reply.model, reply.seed, reply.left_out) == ("chat.completion", str(chat_folder), 7, 0)


def test_texts_are_continued_as_generate_continues_them(complete: Any, base_folder: Path) -> None:
    reply = complete(prompt=["ROMEO:", "O "], n=2, max_tokens=9, temperature=1.0, extra_body={"min_p": 0.1})
    texts = [
        text
        for prompt in ("ROMEO:", "O ")
        for text in expected(base_folder, prompt, num_samples=2, max_new_tokens=9, temperature=1.0, min_p=0.1)
    ]
    assert [choice.text for choice in reply.choices] == texts
    assert [choice.index for choice in reply.choices] == [0, 1, 2, 3]
    assert reply.object == "text_completion"


def test_the_defaults_are_those_of_the_library_and_a_null_is_a_default(complete: Any, base_folder: Path) -> None:
    (text,) = expected(base_folder, "ROMEO:")
    nulls: Any = dict.fromkeys(("temperature", "top_p", "max_tokens", "n", "stop", "logprobs", "suffix", "best_of"))
    assert complete().choices[0].text == complete(**nulls).choices[0].text == text


def test_without_a_seed_answers_differ_and_the_seed_in_the_reply_repeats_one(complete: Any, base_folder: Path) -> None:
    first, second = complete(seed=None, n=8), complete(seed=None, n=8)
    assert first.choices != second.choices
    texts = expected(base_folder, "ROMEO:", seed=first.seed, num_samples=8)
    assert [choice.text for choice in first.choices] == texts


@pytest.mark.parametrize("n", [1, 3])
def test_a_streamed_chat_is_the_same_answer_in_pieces(chat: Any, n: int) -> None:
    whole = chat(n=n)
    chunks = list(chat(n=n, stream=True, stream_options={"include_usage": True}))
    texts, finishes = [""] * n, [""] * n
    for chunk in chunks[:-1]:
        assert (chunk.object, chunk.usage) == ("chat.completion.chunk", None)
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
            finishes[choice.index] += choice.finish_reason or ""
    assert texts == [choice.message.content for choice in whole.choices]
    assert finishes == [choice.finish_reason for choice in whole.choices]
    assert [chunk.choices[0].delta.role for chunk in chunks[:n]] == ["assistant"] * n
    assert (chunks[-1].choices, chunks[-1].usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_streamed_text_is_the_same_in_pieces_and_without_usage_unless_asked(complete: Any) -> None:
    chunks = list(complete(stream=True, prompt=["ROMEO:", "O "]))
    texts = ["", ""]
    for chunk in chunks:
        texts[chunk.choices[0].index] += chunk.choices[0].text
    assert texts == [choice.text for choice in complete(prompt=["ROMEO:", "O "]).choices]
    assert {chunk.usage for chunk in chunks} == {None}


def test_a_stream_ends_with_done(served: tuple[str, Answers]) -> None:
    reply = httpx.post(f"{served[0]}/v1/completions", json={"prompt": "O", "stream": True, "max_tokens": 3})
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = reply.text.removesuffix("\n\n").split("\n\n")
    assert events[-1] == "data: [DONE]"
    assert all(json.loads(event.removeprefix("data: "))["choices"] for event in events[:-1])


def test_finish_reason_and_usage_count_tokens(complete: Any, base_folder: Path) -> None:
    (text,) = expected(base_folder, "ROMEO:", temperature=0, max_new_tokens=40)
    cut, stopped = complete(temperature=0, max_tokens=5), complete(temperature=0, stop=[text[10:13], "never there"])
    assert (cut.choices[0].text, cut.choices[0].finish_reason) == (text[:5], "length")
    assert (cut.usage.prompt_tokens, cut.usage.completion_tokens, cut.usage.total_tokens) == (6, 5, 11)
    assert (stopped.choices[0].text, stopped.choices[0].finish_reason) == (text[: text.index(text[10:13])], "stop")
    assert complete(n=2, temperature=0, max_tokens=5).usage.completion_tokens == 10


def test_a_special_token_ends_an_answer_with_the_reason_stop(
    complete: Any, base_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two = ([token] for token in (1, 2))  # and then <|endoftext|>
    monkeypatch.setattr(answers_module, "generate_ids", lambda *_, **__: two)
    reply = complete()
    assert reply.choices[0].finish_reason == "stop"
    assert reply.choices[0].text == tinygpt.load(base_folder)[1].decode([1, 2])


def test_an_answer_ends_where_the_context_is_full(chat: Any) -> None:
    reply = chat(messages=[{"role": "user", "content": "O" * 28}], temperature=2.0, max_tokens=1000)
    assert reply.usage.total_tokens <= 65  # the last token is not read
    assert reply.choices[0].finish_reason == ("length" if reply.usage.total_tokens == 65 else "stop")


def test_the_oldest_turns_are_left_out_of_a_long_chat(chat: Any) -> None:
    turns = [{"role": role, "content": "O Romeo"} for _ in range(20) for role in ("user", "assistant")]
    system = {"role": "system", "content": "JULIET"}
    long = chat(messages=[system, *turns, *WHO], max_tokens=5)
    assert 0 < long.left_out < 40
    short = chat(messages=[system, *turns[long.left_out :], *WHO], max_tokens=5)
    assert (short.left_out, short.choices) == (0, long.choices)


def test_text_parts_and_the_developer_are_what_a_text_and_the_system_are(chat: Any) -> None:
    plain = chat(messages=[{"role": "system", "content": "JULIET\nO"}, *WHO])
    parts = [{"type": "text", "text": "JULIET"}, {"type": "text", "text": "O"}]
    assert chat(messages=[{"role": "developer", "content": parts}, *WHO]).choices == plain.choices


def test_an_answer_can_be_sent_back_as_it_came(chat: Any) -> None:
    said = chat(max_tokens=5).choices[0].message
    assert chat(messages=[*WHO, said, *WHO]).choices[0].message.content is not None


def test_role_tokens_in_a_message_stay_text(chat: Any, chat_folder: Path) -> None:
    tokenizer = tinygpt.load(chat_folder)[1]
    content = "O<|end|><|assistant|>"
    assert chat(messages=[{"role": "user", "content": content}]).usage.prompt_tokens == len(content) + 4
    ids = tokenizer.encode_messages([{"role": "user", "content": content}])[0]
    assert sum(token in {tokenizer.role_token(name) for name in ROLE_TOKENS} for token in ids) == 2


def test_a_model_without_a_template_refuses_messages_in_a_sentence(chat: Any, base_folder: Path) -> None:
    with pytest.raises(openai.BadRequestError, match=r"has no chat template. Send a prompt to /v1"):
        chat(model=str(base_folder))


def test_an_unknown_model_is_not_found(chat: Any) -> None:
    with pytest.raises(openai.NotFoundError, match=r"There is no model '../etc'. GET /v1/models lists") as found:
        chat(model="../etc")
    assert (found.value.code, found.value.param) == ("model_not_found", "model")


def test_a_damaged_model_is_unavailable(chat: Any, served: tuple[str, Answers], monkeypatch: Any) -> None:
    def load(_: object) -> None:
        raise ValueError("data/model is damaged.")

    monkeypatch.setattr(served[1].models, "load", load)
    with pytest.raises(openai.InternalServerError, match=r"cannot be loaded: data/model is damaged.") as found:
        chat()
    assert found.value.status_code == 503


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"temperature": -1}, "temperature is -1; it must be greater than or equal to 0."),
        ({"top_p": 0}, "top_p is 0; it must be greater than 0."),
        ({"temperature": "1"}, "temperature is the text '1', not a number; write 1 without quotes."),
        ({"temperature": True}, "temperature is True; it must be a valid number."),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a valid integer"),
        ({"max_tokens": MAX_NEW_TOKENS + 1}, f"it must be less than or equal to {MAX_NEW_TOKENS}."),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "which differ; leave one of them out."),
        ({"n": 17}, "n is 17; it must be less than or equal to 16."),
        ({"seed": -1}, "seed is -1; it must be greater than or equal to 0."),
        ({"seed": 2**70}, f"it must be less than or equal to {2**62}."),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop is ['a', 'b', 'c', 'd', 'e']; it must have at most 4 items"),
        ({"stop": ""}, "stop.0 is ''; it must have at least 1 character."),
        ({"stream": "yes"}, "stream is 'yes'; it must be a valid boolean."),
        ({"tools": [{"type": "function"}]}, "has tools = [{'type': 'function'}], which is not supported here"),
        ({"logprobs": True}, "has logprobs = True, which is not supported here; leave it out."),
        ({"logprobs": 0}, "has logprobs = 0, which is not supported here; leave it out."),
        ({"response_format": {"type": "json_object"}}, "has response_format = "),
        ({"presence_penalty": 0.5}, "has presence_penalty = 0.5, which is not supported here; leave it out."),
        ({"temprature": 1}, "The request has the unknown field 'temprature'; did you mean temperature?"),
        ({"model": 3}, "model is 3; it must be a valid string."),
    ],
    ids=str,
)
@pytest.mark.parametrize("ask", ["chat", "complete"])
def test_what_would_change_the_answer_is_refused_in_a_sentence(
    ask: str, changes: dict[str, Any], says: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        request.getfixturevalue(ask)(extra_body=changes)
    assert says in refused.value.message
    assert refused.value.type == "invalid_request_error"


def test_what_changes_nothing_is_accepted(chat: Any) -> None:
    nothing = {"tools": [], "tool_choice": "auto", "logprobs": False, "response_format": {"type": "text"}, "user": "me"}
    more = {"presence_penalty": 0, "frequency_penalty": 0.0, "logit_bias": {}, "metadata": {"a": "b"}, "store": True}
    assert chat(extra_body=nothing | more).choices == chat().choices


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([], "a conversation is a list of messages, not []"),
        ("hello", "messages is 'hello'; it must be a valid array."),
        (None, "messages is missing."),
        (["hello"], "messages.0 must be a JSON object."),
        ([{"role": "user"}], "messages.0.content is missing."),
        ([{"role": "user", "content": 3}], "messages.0.content is 3; it must be a valid string."),
        ([{"role": "user", "content": " "}], "message 1 is empty."),
        ([{"role": "tool", "content": "3"}], "message 1 has the role 'tool'; roles are system, user, assistant."),
        ([{"role": ["user"], "content": "3"}], "messages.0.role is ['user']; it must be a valid string."),
        ([*WHO, *WHO], "user and assistant take turns, and the user begins."),
        ([*WHO, {"role": "assistant", "content": "I"}], "the last message must be the user's."),
        ([*WHO, {"role": "system", "content": "J"}], "a system message stands first, and there is at most one."),
        (
            [{"role": "user", "content": [{"type": "image_url"}]}],
            "messages.0.content has a part 'image_url'; only text",
        ),
        ([{"role": "user", "content": [None]}], "messages.0.content has a part None; only text is supported."),
        ([{"role": "user", "content": "a", "name": "R"}], "messages.0 has name = 'R', which is not supported here"),
        ([{"role": "user", "content": "O" * 100}], "The message takes 104 tokens, and this model sees 64"),
        ([{"role": "user", "content": "O" * (MAX_CHARACTERS + 1)}], "has 20,001 characters of text"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_is_no_conversation_is_refused_in_a_sentence(chat: Any, messages: Any, says: str) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        chat(extra_body={"messages": messages})
    assert says in refused.value.message


def test_more_answers_than_one_batch_are_refused(complete: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=r"asks for 18 answers; at most 16 are given at once."):
        complete(prompt=["O"] * 9, n=2)


NESTED = b"[" * 100_000
BODIES = {
    b"": "The body is not JSON",
    b"{": "The body is not JSON",
    b"[]": "The body must be a JSON object.",
    b"null": "The body must be a JSON object.",
    b"\xff\xfe": "The body is not JSON",
    NESTED: "The body is not JSON: recursion limit exceeded",
    b'{"prompt": "O", "temperature": NaN}': "temperature is nan; it must be a finite number.",
    b'{"prompt": "O", "temperature": 1e999}': "temperature is inf; it must be a finite number.",
    b'{"prompt": "O", "seed": ' + b"9" * 4000 + b"}": "",
    b'{"prompt": "\\ud800"}': "hex escape",
    b'{"prompt": [1, 2]}': "prompt.0 is 1; it must be a valid string.",
    b'{"prompt": [[1, 2]]}': "prompt.0 is [1, 2]; it must be a valid string.",
    b'{"prompt": []}': "prompt is []; it must have at least 1 item",
    b'{"prompt": "O", "' + b"x" * 200_000 + b'": 1}': "has the unknown field 'xxx",
    b'{"messages": [' + b"{}," * 80_000 + b"{}]}": "",
    b'{"messages": [' + b'{"role":"user","content":"O"},' * 1_000_000 + b"0]}": "At most 256 KB are accepted",
    b'{"messages": ' + b'{"a":' * 150 + b"1" + b"}" * 151: "messages is {'a': {",
    b"x" * (MAX_BODY + 1): "The request is too large. At most 256 KB are accepted",
}


def test_of_many_invalid_messages_only_the_first_is_reported() -> None:
    with pytest.raises(ValidationError) as invalid:
        ChatBody.model_validate_json(b'{"messages": [' + b"{}," * 1000 + b"{}]}")
    assert invalid.value.error_count() == 2  # role and content


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_hostile_bodies_are_refused_in_a_sentence(served: tuple[str, Answers], path: str) -> None:
    for body, says in BODIES.items():
        if (b"prompt" in body) == (path == "completions"):
            reply = httpx.post(f"{served[0]}/v1/{path}", content=body, timeout=60)
            assert reply.status_code == (413 if len(body) > MAX_BODY else 400), body[:60]
            message = reply.json()["error"]["message"]
            assert says in message, body[:60]
            assert message.endswith((".", "?"))
            assert len(message) < 300
    assert httpx.post(f"{served[0]}/v1/completions", json={"prompt": "O", "max_tokens": 1}).status_code == 200


def test_any_text_is_answered(complete: Any, chat: Any) -> None:
    for text in ("\0\x1b[31m", "\u202eabc", "🙂" * 9, "<|endoftext|>", "{% raw %}{{ 1 }}", "e" + "\u0301" * 9):
        assert complete(prompt=text, max_tokens=2).usage.completion_tokens <= 2
        assert chat(messages=[{"role": "user", "content": text}], max_tokens=2).choices[0].finish_reason


@contextlib.contextmanager
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While it lasts, an answer ends only when it is stopped."""

    def steps(_: object, prompts: list[Any], *__: object, **___: object) -> Iterator[list[int]]:
        while not over.wait(0.001):  # slowly, so that the client is not flooded
            yield [1] * len(prompts)

    over = threading.Event()
    with monkeypatch.context() as patched:
        patched.setattr(answers_module, "generate_ids", steps)
        try:
            yield
        finally:
            over.set()


def test_a_client_that_closes_a_stream_ends_its_answer_and_the_server_goes_on(
    served: tuple[str, Answers], chat: Any, complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endless(monkeypatch):
        for ask in (chat, complete, complete):  # more than there are workers
            with ask(stream=True) as stream:
                next(iter(stream))
            assert until(lambda: not served[1].jobs)
    assert chat().choices[0].message.content


def test_a_client_that_leaves_ends_its_answer_whether_it_runs_or_waits(
    served: tuple[str, Answers], client: Any, complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endless(monkeypatch), ThreadPoolExecutor() as threads:
        running_streams = [complete(stream=True) for _ in range(MAX_CONCURRENT)]
        for stream in running_streams:
            next(iter(stream))
        waiting = threads.submit(complete, timeout=0.2)
        assert until(lambda: len(served[1].jobs) == len(running_streams) + 1)
        assert isinstance(waiting.exception(), openai.APITimeoutError)
        assert until(lambda: len(served[1].jobs) == len(running_streams))
        for stream in running_streams:
            stream.close()
        assert until(lambda: not served[1].jobs)
        assert isinstance(threads.submit(complete, timeout=0.2).exception(), openai.APITimeoutError)
        assert until(lambda: not served[1].jobs)
    assert complete(max_tokens=1).choices[0].text


def test_a_server_that_closes_ends_its_answers_with_an_error(
    served: tuple[str, Answers], complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with endless(monkeypatch), ThreadPoolExecutor() as threads:
        stream = complete(stream=True)
        next(iter(stream))
        whole = [threads.submit(complete) for _ in range(MAX_CONCURRENT)]  # one runs, one waits
        assert until(lambda: len(served[1].jobs) == 1 + MAX_CONCURRENT)
        served[1].cancel()
        with pytest.raises(openai.APIError, match="The server is closing"):
            list(stream)
        for one in whole:
            assert isinstance(one.exception(), openai.InternalServerError)
    assert until(lambda: not served[1].jobs)


@pytest.mark.slow
def test_ctrl_c_ends_the_command_while_it_answers(characters: Tokenizer, tmp_path: Path) -> None:
    slow = base_model(tmp_path / "model", characters, n_layer=6, n_head=6, n_embd=384)  # seconds for its 16,000 tokens
    command = [sys.executable, "-m", "tinygpt", "serve", "--port", "0", "--model", str(slow)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes: Any = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    server: Any = subprocess.Popen(command, cwd=tmp_path, env=environment, text=True, **pipes)
    try:
        address = server.stdout.readline().split()[4]
        with openai.OpenAI(base_url=address, api_key="unused", max_retries=0) as client:
            settings: Any = {"n": 16, "max_tokens": MAX_NEW_TOKENS, "stream": True}
            stream = client.completions.create(model="", prompt="O", **settings)
            next(iter(stream))
            server.send_signal(signal.SIGINT)
            with pytest.raises(openai.APIError, match="The server is closing"):
                list(stream)
        assert server.communicate()[1] == ""
        assert server.returncode == 0
    finally:
        server.kill()
        server.wait()


def test_beyond_the_queue_a_request_is_asked_to_come_back(
    served: tuple[str, Answers], complete: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers_module, "MAX_QUEUED", 0)
    with endless(monkeypatch), contextlib.ExitStack() as streams:
        for _ in range(MAX_CONCURRENT):
            next(iter(streams.enter_context(complete(stream=True))))
        with pytest.raises(openai.RateLimitError, match=r"are waiting already. Try again later.") as refused:
            complete()
        assert refused.value.response.headers["retry-after"] == "1"
    assert until(lambda: not served[1].jobs)


def test_an_answer_ends_at_its_time_limit(complete: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers_module, "MAX_SECONDS", -1.0)
    reply = complete()
    assert (reply.choices[0].text, reply.choices[0].finish_reason) == ("", "length")


def test_a_fault_while_streaming_reaches_the_client_as_an_error(complete: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def steps(*_: object, **__: object) -> Iterator[list[int]]:
        yield [1]
        raise MemoryError

    monkeypatch.setattr(answers_module, "generate_ids", steps)
    with pytest.raises(openai.APIError, match=r"There is not enough memory for this answer."):
        list(complete(stream=True))
    with pytest.raises(openai.InternalServerError, match="There is not enough memory"):
        complete()


def test_fifty_requests_at_once_get_each_its_own_answer(chat: Any, complete: Any, base_folder: Path) -> None:
    texts = {seed: expected(base_folder, "ROMEO:", seed=seed, max_new_tokens=20)[0] for seed in range(50)}

    def visit(seed: int) -> str:
        if seed % 5 == 0:
            assert chat(seed=seed).choices[0].finish_reason
        if seed % 2:
            return complete(seed=seed, max_tokens=20).choices[0].text
        return "".join(chunk.choices[0].text for chunk in complete(seed=seed, max_tokens=20, stream=True))

    with ThreadPoolExecutor(50) as threads:
        assert dict(zip(range(50), threads.map(visit, range(50)), strict=True)) == texts


@pytest.fixture
def guarded(served: tuple[str, Answers]) -> Iterator[str]:
    """The address of a server that asks for a key."""
    with running(app.app(Answers(served[1].models), KEY)) as address:
        yield f"{address}/v1"


def test_a_bad_key_is_refused_and_the_right_one_is_not(guarded: str) -> None:
    def visit(key: str) -> Any:
        with openai.OpenAI(base_url=guarded, api_key=key, max_retries=0) as visitor:
            return visitor.completions.create(model="", prompt="O", max_tokens=1)

    with ThreadPoolExecutor() as threads:  # each is delayed by a second
        visits = [threads.submit(visit, key) for key in ("wrong", KEY + "x", f"Basic {KEY}")]
    for problem in (one.exception() for one in visits):
        assert isinstance(problem, openai.AuthenticationError)
        assert "The API key is missing or wrong." in problem.message
        assert problem.code == "invalid_api_key"
    assert visit(KEY).choices
    for headers in ({}, {"authorization": f"Basic {KEY}"}, {"authorization": "Bearer"}):
        assert httpx.get(f"{guarded}/models", headers=headers).status_code == 401
    assert httpx.get(f"{guarded}/models", headers={"authorization": f"bearer {KEY}"}).status_code == 200


@pytest.mark.parametrize(
    ("path", "method", "headers", "status"),
    [
        ("/v1/models", "POST", {}, 405),
        ("/v1/completions", "GET", {}, 405),
        ("/v1/completions", "DELETE", {}, 405),
        ("/v1/embeddings", "POST", {}, 404),
        ("/", "GET", {}, 404),
        ("/v1/models/../models", "GET", {}, 200),  # the client resolves it
        ("/v1/models", "GET", {"host": "evil.example"}, 421),
        ("/v1/models", "GET", {"origin": "http://evil.example"}, 403),
    ],
)
def test_other_addresses_hosts_and_sites_are_refused_as_json(
    served: tuple[str, Answers], path: str, method: str, headers: dict[str, str], status: int
) -> None:
    reply = httpx.request(method, served[0] + path, headers=headers)
    assert reply.status_code == status
    assert status == 200 or reply.json()["error"]["message"].endswith(".")
    assert reply.headers["x-content-type-options"] == "nosniff"


def test_the_command_needs_a_key_where_other_machines_can_reach_it(
    chat_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TINYGPT_PASSWORD", raising=False)
    started: list[Any] = []
    monkeypatch.setattr(app, "run", lambda models, host, port, password, _: started.append((host, port, password)))
    words = ["serve", "--model", str(chat_folder)]
    assert "needs a password" in str(CliRunner().invoke(main.app, [*words, "--host", "0.0.0.0"]).exception)
    assert "There is no model in nowhere" in str(
        CliRunner().invoke(main.app, ["serve", "--model", "nowhere"]).exception
    )
    assert started == []
    assert CliRunner().invoke(main.app, words).exit_code == 0
    monkeypatch.setenv("TINYGPT_PASSWORD", KEY)
    assert CliRunner().invoke(main.app, [*words, "--host", "0.0.0.0", "--port", "8001"]).exit_code == 0
    assert started == [("127.0.0.1", 8000, None), ("0.0.0.0", 8001, KEY)]


def test_the_help_lists_the_command_and_says_what_the_key_is() -> None:
    assert re.search(r"^\s*serve\s+Serve models to OpenAI's clients", CliRunner().invoke(main.app, ["-h"]).output, re.M)
    assert "The password is the API key." in " ".join(CliRunner().invoke(main.app, ["serve", "-h"]).output.split())


def test_without_the_extra_the_command_says_how_to_install_it(chat_folder: Path, monkeypatch: Any) -> None:
    monkeypatch.setitem(sys.modules, "starlette.applications", None)
    monkeypatch.delitem(sys.modules, "tinygpt.web.openai_api.app")
    monkeypatch.delattr("tinygpt.web.openai_api.app")
    result = CliRunner().invoke(main.app, ["serve", "--model", str(chat_folder)])
    assert "pip install -c requirements.lock -e '.[web]'" in str(result.exception)

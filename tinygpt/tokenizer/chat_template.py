"""The form of a conversation, in messages and as text: `check_conversation(messages)`, TEMPLATE.

A conversation is a list of messages, `{"role": "system" | "user" | "assistant", "content": text}`: an optional system
message, then user and assistant in turns. As text it is

    <|endoftext|><|system|>You are JULIET.<|end|><|user|>Who art thou?<|end|><|assistant|>Thy love.<|end|>

`Tokenizer.encode_messages` makes the ids of that, and the mask that says which the assistant writes: its words, and the
<|end|> after them. TEMPLATE is the same in Jinja, for transformers (`apply_chat_template(…,
return_assistant_tokens_mask=True)`) and, WITHOUT_MARKS, for llama.cpp. One thing differs: those render a string and
tokenize that, so a role token in somebody's words becomes one; here contents are encoded on their own, as plain text,
so that nobody can speak in another's role.
"""

import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any

SYSTEM, USER, ASSISTANT, END = ROLE_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
ROLES = {"system": SYSTEM, "user": USER, "assistant": ASSISTANT}
Message = dict[str, str]  # role, content
Messages = Sequence[Message]
TEMPLATE = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{%- if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{- raise_exception('A role is system, user or assistant.') }}"
    "{%- endif %}"
    "{{- '<|' + message['role'] + '|>' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{% generation %}{{- message['content'] + '<|end|>' }}{% endgeneration %}"
    "{%- else %}"
    "{{- message['content'] + '<|end|>' }}"
    "{%- endif %}"
    "{%- endfor %}"
    # In parts: without Jinja, llama.cpp takes a template that holds <|assistant|> for Phi-3's, which differs.
    "{%- if add_generation_prompt %}{{- '<|' + 'assistant' + '|>' }}{%- endif %}"
)
WITHOUT_MARKS = re.sub(r"{% (end)?generation %}", "", TEMPLATE)  # for programs with plain Jinja


def check_conversation(messages: Any, answered: bool = True) -> Messages:
    """The messages, if they are a conversation; ValueError, a clause that says why, if not.

    answered: the last message must be the assistant's (to train on), else it must be the user's (to be answered).
    """
    if not isinstance(messages, list | tuple) or not messages:
        raise ValueError(f"a conversation is a list of messages, not {_shown(messages)}")
    for number, message in enumerate(messages, 1):
        _check_message(message, f"message {number}", answered)
    turns = [message["role"] for message in messages if message["role"] != "system"]
    if any(message["role"] == "system" for message in messages[1:]):
        raise ValueError("a system message stands first, and there is at most one")
    for number, role in enumerate(turns):
        if role != ("user", "assistant")[number % 2]:
            raise ValueError("user and assistant take turns, and the user begins")
    last = "assistant" if answered else "user"
    if not turns or turns[-1] != last:
        raise ValueError(f"the last message must be the {last}'s")
    return messages


def answers(messages: Messages) -> Iterator[str]:
    """What the assistant says in each of its turns."""
    return (message["content"] for message in messages if message["role"] == "assistant")


def render(messages: Messages) -> str:
    """A conversation as text, to be read: role tokens as they are spelled, without <|endoftext|>."""
    return "".join(ROLES[message["role"]] + message["content"] + END for message in messages)


def _check_message(message: Any, place: str, answered: bool) -> None:
    if not isinstance(message, dict) or not message.keys() >= {"role", "content"}:
        raise ValueError(f"{place} is {_shown(message)}, not an object with role and content")
    role, content = message["role"], message["content"]
    if not isinstance(role, str) or role not in ROLES:
        raise ValueError(f"{place} has the role {_shown(role)}; roles are {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise ValueError(f"{place} has the content {_shown(content)}, which is not text")
    if not content.strip() and (answered or role != "assistant"):  # a model's answer to this may have been empty
        raise ValueError(f"{place} is empty")
    if content != content.encode("utf-8", "replace").decode():
        raise ValueError(f"{place} has a lone surrogate (half a character)")


def _shown(value: Any) -> str:
    return reprlib.repr(value)

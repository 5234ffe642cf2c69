"""Validation of what clients send: `parse(ChatBody, body)` → a ChatBody; ApiError, with a sentence, if it is invalid.

A field that is null has its default. A parameter that would change the answer, and is not supported here, is refused;
IGNORED ones change nothing, and neither do the NEUTRAL values of others. Bounds are those of config.SAMPLING and of the
web page.
"""

import difflib
import secrets
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError
from pydantic import field_validator as on_field
from pydantic import model_validator as on_model

from tinygpt.config import SAMPLING, BelowOne, NotNegative, NotNegativeInt, Positive, TopP
from tinygpt.errors import of_parameter
from tinygpt.generation.generate import Prompt
from tinygpt.generation.sampling import Sampling
from tinygpt.tokenizer.chat_template import check_conversation
from tinygpt.web.openai_api.errors import ApiError
from tinygpt.web.requests import DEFAULTS, MAX_CHARACTERS, MAX_NEW_TOKENS, shortened

MAX_CHOICES = 16  # answers to one request: n for each prompt; they are generated in one batch
MAX_STOP = 4  # stop texts, as OpenAI has it
MAX_STOP_CHARACTERS = 200  # of each; every token is compared with them
IGNORED = {
    *("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"),
    *("prediction", "parallel_tool_calls"),
}
NEUTRAL: dict[str, tuple[Any, ...]] = {  # of the parameters that are not supported, the values that change nothing
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "response_format": ({"type": "text"},),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "logit_bias": ({},),
    "presence_penalty": (0, 0.0),
    "frequency_penalty": (0, 0.0),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "modalities": (["text"],),
    "audio": (),
    "reasoning_effort": ("none",),
    "verbosity": (),
    "web_search_options": (),
}
NEUTRAL_IN_MESSAGE: dict[str, tuple[Any, ...]] = {  # OpenAI's answers, sent back as they are, have some of them
    "name": (),
    "refusal": ("",),
    "annotations": ([],),
    "audio": (),
    "tool_calls": ([],),
    "tool_call_id": (),
    "function_call": (),
}


def as_list(value: object) -> object:
    """A list of one text for a text; anything else as it is."""
    return [value] if isinstance(value, str) else value


def joined_text(content: Any) -> Any:
    """The text of a list of text parts, on lines of their own; anything else as it is. ValueError for other parts."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise ValueError(f"has a part {shortened(kind)}; only text is supported.")
    return "\n".join(part["text"] for part in content)


class JSONObject(BaseModel):
    """A JSON object: strict types, no NaN; null means the default."""

    model_config = ConfigDict(frozen=True, strict=True, extra="allow", allow_inf_nan=False)

    @on_model(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return (
            {key: value for key, value in values.items() if value is not None} if isinstance(values, dict) else values
        )

    def refuse_extra(self, neutral: Mapping[str, tuple[Any, ...]]) -> None:
        """ValueError for a field that is not supported, unless its value is neutral."""
        for name, value in (self.model_extra or {}).items():
            if name in IGNORED or any(type(value) is type(one) and value == one for one in neutral.get(name, ())):
                continue
            if name in neutral:
                raise ValueError(f"has {name} = {shortened(value)}, which is not supported here; leave it out.")
            near = difflib.get_close_matches(name, [*type(self).model_fields, *neutral], n=1, cutoff=0.75)
            hint = f"did you mean {near[0]}?" if near else "leave it out."
            raise ValueError(f"has the unknown field {shortened(name)}; {hint}")


class Message(JSONObject):
    role: str
    content: Annotated[str, BeforeValidator(joined_text)]

    @on_field("role")
    @classmethod
    def _role(cls, role: str) -> str:
        return "system" if role == "developer" else role  # OpenAI's newer name for it

    @on_model(mode="after")
    def _supported(self) -> Self:
        self.refuse_extra(NEUTRAL_IN_MESSAGE)
        return self


class StreamOptions(JSONObject):
    include_usage: bool = False


class Body(JSONObject):
    """What both endpoints take."""

    model: str = ""  # empty: the first one
    temperature: NotNegative = SAMPLING["temperature"].default
    top_k: NotNegativeInt = int(SAMPLING["top_k"].default)
    top_p: TopP = SAMPLING["top_p"].default
    min_p: BelowOne = SAMPLING["min_p"].default
    repetition_penalty: Positive = SAMPLING["repetition_penalty"].default
    max_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = DEFAULTS["max_new_tokens"]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_NEW_TOKENS)] = DEFAULTS["max_new_tokens"]
    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]],
        FailFast(),
        Field(max_length=MAX_STOP),
        BeforeValidator(as_list),
    ] = []  # pydantic copies it
    seed: Annotated[int, Field(ge=0, le=2**62)] = Field(default_factory=lambda: secrets.randbelow(2**31))
    stream: bool = False
    stream_options: StreamOptions = StreamOptions()

    @on_model(mode="after")
    def _allowed(self) -> Self:
        self.refuse_extra(NEUTRAL)
        both = {"max_tokens", "max_completion_tokens"} <= self.model_fields_set
        if both and self.max_tokens != self.max_completion_tokens:
            raise ValueError("has max_tokens and max_completion_tokens, which differ; leave one of them out.")
        size = sum(len(text) for text in self.texts)
        if size > MAX_CHARACTERS:
            raise ValueError(f"has {size:,} characters of text; at most {MAX_CHARACTERS:,} are accepted. Send less.")
        if self.n * len(self.prompts) > MAX_CHOICES:
            raise ValueError(
                f"asks for {self.n * len(self.prompts)} answers; at most {MAX_CHOICES} are given at once. Send several "
                "requests."
            )
        return self

    @property
    def max_new_tokens(self) -> int:
        """The limit for one answer."""
        return self.max_completion_tokens if "max_completion_tokens" in self.model_fields_set else self.max_tokens

    @property
    def sampling(self) -> Sampling:
        """The sampling settings."""
        return Sampling(**{name: getattr(self, name) for name in SAMPLING})

    @property
    def prompts(self) -> Sequence[Prompt]:
        """What is to be continued or answered."""
        raise NotImplementedError

    @property
    def texts(self) -> list[str]:
        """All texts of the prompts."""
        raise NotImplementedError


class ChatBody(Body):
    """A body of /v1/chat/completions."""

    messages: Annotated[list[Message], FailFast()]  # 80,000 errors would hold up the server for seconds

    @on_field("messages")
    @classmethod
    def _conversation(cls, messages: list[Message]) -> list[Message]:
        try:
            check_conversation(_plain(messages), answered=False)
        except ValueError as problem:
            raise ValueError(f"are not a conversation that can be answered: {problem}.") from None
        return messages

    @property
    def prompts(self) -> Sequence[Prompt]:
        return [_plain(self.messages)]

    @property
    def texts(self) -> list[str]:
        return [message.content for message in self.messages]


class TextBody(Body):
    """A body of /v1/completions."""

    prompt: Annotated[list[str], FailFast(), Field(min_length=1), BeforeValidator(as_list)] = [""]

    @property
    def prompts(self) -> Sequence[Prompt]:
        return self.prompt

    @property
    def texts(self) -> list[str]:
        return self.prompt


def _plain(messages: Sequence[Message]) -> list[dict[str, str]]:
    """Messages as the tokenizer takes them."""
    return [{"role": message.role, "content": message.content} for message in messages]


AnyBody = TypeVar("AnyBody", bound=Body)


def parse(kind: type[AnyBody], body: bytes) -> AnyBody:
    """The body of a request. ApiError 400 for an invalid one, with a sentence on the first problem."""
    try:
        return kind.model_validate_json(body)
    except ValidationError as invalid:
        problem: dict[str, Any] = dict(invalid.errors(include_url=False)[0])
    param = str(problem["loc"][0]) if problem["loc"] else None
    raise ApiError(400, sentence(problem), param)


def sentence(problem: dict[str, Any]) -> str:
    """One of pydantic's errors as a sentence."""
    key = ".".join(map(str, problem["loc"]))
    match problem["type"]:
        case "json_invalid":
            return f"The body is not JSON: {problem['ctx']['error']}."
        case "model_type":
            return f"{key or 'The body'} must be a JSON object."
        case "missing":
            return f"{key} is missing."
        case "value_error":
            return f"{key or 'The request'} {problem['ctx']['error']}"
    return of_parameter(problem, Body)

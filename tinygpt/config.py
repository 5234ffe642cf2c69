"""params.yaml → typed, frozen sections: `params = load("params.yaml")`, then `params.train.steps`.

Only types and checks: nothing is derived, so this file cannot change a result. All problems are reported at once, each
in a sentence with the key, the value and what is allowed. `tinygpt check` checks whether files exist.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tinygpt.errors import ConfigError, of_parameter
from tinygpt.yaml_files import read_yaml

Name = Annotated[str, Field(min_length=1)]
PositiveInt = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
NotNegativeInt = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
BelowOne = Annotated[float, Field(ge=0, lt=1)]
TopP = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A frozen section: unknown keys, wrong types, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, serialize_by_alias=True)

    def problems(self) -> Iterator[str]:
        """Sentences on values that are valid on their own, but not together."""
        return iter(())


class Mixture(Section):
    """The number of conversations of each kind (data/sources/chat_mixture.py); of tasks, the number of questions."""

    plays: NotNegativeInt
    copy_: NotNegativeInt = Field(alias="copy")  # pydantic has a method of that name
    reverse: NotNegativeInt
    sort_words: NotNegativeInt
    sort_numbers: NotNegativeInt
    larger: NotNegativeInt
    count: NotNegativeInt
    add: NotNegativeInt
    add_mixed: NotNegativeInt
    brackets: NotNegativeInt


class Download(Section):
    source: Literal["shakespeare", "physics", "chat", "files", "hub"]
    path: str
    pattern: str
    url: str | None
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    dataset: str
    config: str | None
    revision: str
    text_column: str
    max_documents: PositiveInt | None
    validation_fraction: Annotated[float, Field(gt=0, le=0.5)]
    mixture: Mixture

    def problems(self) -> Iterator[str]:
        if self.source == "chat" and not any(self.mixture.model_dump().values()):
            yield "download.mixture has no conversations; set one of its numbers above 0."
        if "://" in self.path:
            yield f"download.path is {self.path!r}; an address belongs in download.url."
        elif any(character in self.path for character in "*?[") and not Path(self.path).exists():
            yield (
                f"download.path is {self.path!r}, which looks like a glob; DVC watches one file or folder. "
                "Put the folder in download.path and the glob in download.pattern."
            )
        elif not self.path or self.path.startswith("~"):
            yield f"download.path is {self.path!r}; write a file or folder in full, without ~, such as data/own."
        if self.url is not None and not self.url.startswith("https://"):
            yield f"download.url is {self.url!r}; it must start with https://."


class Tokenize(Section):
    kind: Literal["char", "bpe", "sentencepiece", "gpt2", "r50k_base", "p50k_base", "cl100k_base", "o200k_base"]
    vocab_size: Annotated[int, Field(ge=1, le=1_000_000)]
    algorithm: Literal["unigram", "bpe"]
    unknown: Literal["replace", "error"]
    from_: Name | None = Field(alias="from")

    def problems(self) -> Iterator[str]:
        if self.kind == "bpe" and self.vocab_size < 258:
            yield (
                f"tokenize.vocab_size is {self.vocab_size}; a bpe vocabulary has the 256 bytes, <|endoftext|> and "
                "at least one merge, so write 258 or more."
            )
        if self.kind == "sentencepiece" and self.vocab_size < 259:
            yield (
                f"tokenize.vocab_size is {self.vocab_size}; a sentencepiece vocabulary has the 256 bytes, a newline, "
                "<|endoftext|> and the text's characters, so write 259 or more."
            )


class Model(Section):
    n_layer: PositiveInt
    n_head: PositiveInt
    n_kv_head: PositiveInt | None
    head_dim: PositiveInt | None
    n_embd: PositiveInt
    mlp_hidden: PositiveInt | None
    context_length: Annotated[int, Field(ge=2, le=65536)]
    norm: Literal["rmsnorm", "layernorm"]
    norm_eps: Positive
    position: Literal["rope", "learned"]
    rope_theta: Positive
    mlp: Literal["swiglu", "gelu", "gelu_exact"]
    qk_norm: bool
    bias: bool
    tie_embeddings: bool
    dropout: BelowOne

    def problems(self) -> Iterator[str]:
        if self.head_dim is None and self.n_embd % self.n_head:
            yield (
                f"model.n_embd is {self.n_embd}, which {self.n_head} heads (model.n_head) do not divide; "
                f"write {nearest_multiple(self.n_embd, self.n_head)}, or set model.head_dim."
            )
        elif self.position == "rope" and (self.head_dim or self.n_embd // self.n_head) % 2:
            yield (
                f"A head is {self.head_dim or self.n_embd // self.n_head} wide (model.head_dim, or n_embd / n_head); "
                "rope rotates pairs of coordinates, so make it even, or set model.position to learned."
            )
        if self.n_kv_head is not None and self.n_head % self.n_kv_head:
            yield f"model.n_kv_head is {self.n_kv_head}, which does not divide model.n_head, {self.n_head}."


class Train(Section):
    optimizer: Literal["muon", "adamw"]
    steps: PositiveInt
    batch_size: PositiveInt
    accumulation: PositiveInt
    learning_rate: Positive
    weight_decay: NotNegative
    betas: Annotated[list[BelowOne], Field(min_length=2, max_length=2)]
    gradient_clip: NotNegative
    schedule: Literal["linear", "cosine", "constant"]
    warmup_steps: Annotated[int, Field(ge=0)]
    final_fraction: Fraction
    average: BelowOne
    eval_every: PositiveInt
    eval_tokens: PositiveInt
    device: Literal["auto", "cpu", "cuda", "mps"]
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    compile: Literal["auto", True, False]
    init_from: Name | None
    document_mask: bool
    lora_rank: Annotated[int, Field(ge=0)]
    lora_alpha: Positive

    def problems(self) -> Iterator[str]:
        if self.lora_rank and self.init_from is None:
            yield (
                f"train.lora_rank is {self.lora_rank}, but there is no model to adapt; set train.init_from to one, "
                "or train.lora_rank to 0."
            )


Task = Literal[
    "copy",
    "reverse",
    "sort_words",
    "sort_numbers",
    "larger",
    "count",
    "add",
    "add_mixed",
    "brackets",
    "agreement",
    "ends",
]  # data/sources/tasks.py, and whether answers end (evaluation/tasks/answers.py)


class Evaluate(Section):
    batch_size: PositiveInt
    base_text: Name | None
    weights: Literal["fp32", "int8"]
    tasks: list[Task]
    task_items: PositiveInt
    next_utterance: NotNegativeInt
    temperature: NotNegative
    max_new_tokens: PositiveInt


class Grid(Section):
    temperature: list[NotNegative]
    top_p: list[TopP]


class Setting(NamedTuple):
    """A sampling setting of params.yaml, the command line, the web page, the chat and the library."""

    kind: Any  # its type and bounds
    allowed: str  # the bounds in words
    default: float
    off: float | None  # the value that switches it off
    help: str

    def fits(self, value: float) -> bool:
        """Whether a number is within the bounds."""
        try:
            return bool(TypeAdapter(self.kind).validate_python(value, strict=True) == value)
        except ValidationError:
            return False


SAMPLING = {
    "temperature": Setting(NotNegative, "0 or more", 0.8, None, "0: greedy; 1: the model's own distribution."),
    "top_k": Setting(NotNegativeInt, "0 (off) or more", 0, 0, "Keep the k likeliest tokens; 0 keeps all."),
    "top_p": Setting(
        TopP, "above 0 and at most 1", 0.95, 1, "Keep the likeliest tokens up to this probability; 1: all."
    ),
    "min_p": Setting(BelowOne, "0 or more, and below 1", 0.0, 0, "Drop tokens below this fraction of the highest."),
    "repetition_penalty": Setting(Positive, "above 0", 1.0, 1, "Above 1: make tokens already seen less likely."),
}


class Message(Section):
    role: Literal["system", "user", "assistant"]
    content: Name


class Sample(Section):
    prompts: Annotated[list[str | list[Message]], Field(min_length=1)]
    max_new_tokens: PositiveInt
    num_samples: PositiveInt
    temperature: NotNegative
    top_k: NotNegativeInt
    top_p: TopP
    min_p: BelowOne
    repetition_penalty: Positive
    grid: Grid

    def problems(self) -> Iterator[str]:
        texts = [prompt for prompt in self.prompts if isinstance(prompt, str)]
        messages = [message.content for prompt in self.prompts if not isinstance(prompt, str) for message in prompt]
        for prompt in texts + messages:
            if prompt != prompt.encode("utf-8", "replace").decode():
                yield f"sample.prompts holds {prompt!r:.60} with a lone surrogate (half a character). Remove it."


class Runtime(Section):
    checkpoint_every: PositiveInt
    keep: PositiveInt
    progress: bool
    logger: Literal["wandb"] | None


class Params(Section):
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    download: Download
    tokenize: Tokenize
    model: Model
    train: Train
    evaluate: Evaluate
    sample: Sample
    runtime: Runtime


def load(file: Path | str) -> Params:
    """Read and check a parameter file.

    Raises ConfigError with every problem found, FileNotFoundError if there is no file.
    """
    return check(read_yaml(file), file)


def check(values: dict[Any, Any], file: Path | str = "params.yaml") -> Params:
    """Turn plain values into Params; raises ConfigError with every problem found."""
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise ConfigError(file, [of_parameter(dict(one), Params) for one in error.errors()]) from None
    sections = [getattr(params, name) for name in Params.model_fields]
    problems = [text for section in sections if isinstance(section, Section) for text in section.problems()]
    if problems:
        raise ConfigError(file, problems)
    return params


def nearest_multiple(value: int, factor: int) -> int:
    """The multiple of `factor` closest to `value`, and at least `factor`."""
    return max(1, (2 * value + factor - 1) // (2 * factor)) * factor

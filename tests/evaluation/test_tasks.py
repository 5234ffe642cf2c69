"""Task scores: a uniform model is at chance, an oracle at 100%, and each number is what it says."""

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import binomtest

from tests.conftest import TEXT, gpt, params
from tinygpt.config import Evaluate
from tinygpt.data import baselines, train_tokenizer
from tinygpt.data.conversations import SCHEMA as CONVERSATIONS
from tinygpt.data.corpus import SCHEMA
from tinygpt.data.sources import tasks
from tinygpt.evaluation.tasks import answers, likelihood, scores, suite
from tinygpt.evaluation.tasks.questions import Question, generated, next_utterances
from tinygpt.evaluation.tasks.table import label, table
from tinygpt.generation.generate import generate
from tinygpt.model.gpt import GPT
from tinygpt.model.loss import cross_entropy
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer

KINDS = [*tasks.TASKS, *tasks.MINIMAL_PAIRS]
ITEMS = 200
PLAY = "\n\n".join(f"{['ANNE', 'BOB'][i % 2]}:\nSpeech number {i} it is." for i in range(12)) + "\n"
BROKEN = PLAY.replace("BOB:", "CAT:\nHm.\n\nBOB:", 3)  # into several exchanges


@functools.cache
def words() -> Tokenizer:
    """Byte pairs of the tasks' own words, so that answers differ in their bytes per token."""
    text = " ".join(item.question + item.answer for kind in KINDS for item in tasks.items(kind, 300, False, 0))
    return train_tokenizer.build(params(tokenize__kind="bpe", tokenize__vocab_size=500).tokenize, [text + TEXT])


def section(names: list[str], items: int = 10, replies: int = 0) -> Evaluate:
    return params(evaluate__tasks=names, evaluate__task_items=items, evaluate__next_utterance=replies).evaluate


def texts(path: Path, **documents: str) -> Path:
    pq.write_table(pa.table([list(documents), list(documents.values())], schema=SCHEMA), path)
    return path


def conversations(path: Path, *named: tuple[str, list[str]]) -> Path:
    """A corpus file of (name, turns); three turns begin with a system message."""
    roles = ("system", "user", "assistant")
    rows = [[{"role": r, "content": c} for r, c in zip(roles[-len(turns) :], turns, strict=True)] for _, turns in named]
    pq.write_table(pa.table([[name for name, _ in named], rows], schema=CONVERSATIONS), path)
    return path


def ask(text: str, *options: str) -> Question:
    return Question(f"{text}\n", [{"role": "user", "content": text}], options)


QUESTIONS = [
    ask("Repeat: a b c", "a b c", "b a c"),
    ask("Which?", "one", "fourteen", "2"),
    ask("Go on: so", "soft", "s"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_uniform_model_is_at_chance(kind: str) -> None:
    model = gpt(words().vocab_size, context_length=128, n_layer=1)
    torch.nn.init.zeros_(model.head.weight)  # every token equally likely
    asked = generated(kind, ITEMS)
    found = scores.score(scores.points(likelihood.of_model(model, words(), asked, False, 256), asked))
    assert found["low"] <= scores.chance(asked) <= found["high"]


@pytest.mark.parametrize("kind", KINDS)
def test_an_oracle_has_100_percent(kind: str) -> None:
    asked = generated(kind, ITEMS)
    assert scores.points(likelihood.of_oracle(asked), asked) == [1.0] * ITEMS


def test_the_oracle_falls_below_100_percent_where_a_wrong_answer_is_right() -> None:
    asked = [ask("What is 1 + 1?", "2", "2", "3")]
    assert scores.points(likelihood.of_oracle(asked), asked) == [0.5]


@pytest.mark.parametrize("kind", KINDS)
def test_no_held_out_item_is_trained_on_and_each_kind_has_both(kind: str) -> None:
    seen = {tuple(item) for item in tasks.items(kind, 300, False, 0)}
    held = {(question.text.strip(), question.options[0], question.options[1:]) for question in generated(kind, 300)}
    assert len(held) > 20
    assert not held & seen


@pytest.mark.parametrize("kind", ["copy", "reverse", "sort_words", "sort_numbers"])
def test_without_the_question_no_answer_stands_out(kind: str) -> None:
    """Each of the four differs from two others in one step: so none is the one in the middle."""
    for item in tasks.items(kind, 200, True, 0):
        options = [option.split() for option in (item.answer, *item.wrong)]
        contents = [tuple(sorted(option)) for option in options]
        assert sorted(contents.count(content) for content in contents) == [2, 2, 2, 2]
        replaced, exchanged, both = options[1:]
        changed = [old != new for old, new in zip(options[0], replaced, strict=True)]
        assert sum(changed) == 1
        assert sum(old != new for old, new in zip(exchanged, both, strict=True)) == 1
        assert sorted(exchanged) == sorted(options[0])


def test_the_verb_agrees_with_the_subject_and_not_with_the_noun_beside_it() -> None:
    for item in tasks.items("agreement", 300, True, 0):
        [wrong] = item.wrong
        right, others = item.answer.split(), wrong.split()
        start = next(i for i, (a, b) in enumerate(zip(right, others, strict=True)) if a != b)
        before, verbs = right[:start], (right[start], others[start])
        subject, noun = before[1], before[-1]
        assert subject.endswith("s") != noun.endswith("s")
        forms = [pair[:2] for pair in tasks.VERBS]
        assert (verbs[::-1] if subject.endswith("s") else verbs) in forms
    assert {item.answer.split()[1].endswith("s") for item in tasks.items("agreement", 50, True, 0)} == {True, False}


def by_hand(model: GPT, ids: list[int], first: int) -> float:
    """The log-probability of ids[first:], one token at a time."""
    logits = model(torch.tensor([ids[:-1]]))[0].log_softmax(-1)
    return sum(logits[i - 1, ids[i]].item() for i in range(first, len(ids)))


def test_a_text_model_is_scored_on_the_tokens_of_the_option(characters: Tokenizer) -> None:
    model = gpt(characters.vocab_size, context_length=64)
    asked = [Question("ROMEO:\n", [], ("But, soft!", "the sun")), Question("", [], ("O Romeo", "O Juliet"))]
    found = likelihood.of_model(model, characters, asked, False, 64)
    before = [characters.encode("ROMEO:\n"), [characters.end_of_text]]
    for values, question, prompt in zip(found, asked, before, strict=True):
        expected = [by_hand(model, prompt + characters.encode(option), len(prompt)) for option in question.options]
        assert values == pytest.approx(expected, rel=1e-4)


def test_a_token_across_the_beginning_of_the_option_counts() -> None:
    assert len(words().encode(" king")) == 1
    ids, first = likelihood.row(words(), Question("Repeat: ", [], ("king",)), "king", chat=False)
    assert words().decode(ids[first:]) == " king"


def test_a_chat_model_is_scored_on_the_answer_and_on_its_end(characters: Tokenizer) -> None:
    chat = characters.with_roles()
    model = gpt(chat.vocab_size, context_length=64)
    messages = [{"role": "user", "content": "Romeo?"}]
    [found] = likelihood.of_model(model, chat, [Question("", messages, ("the sun", "night"))], True, 64)
    prompt, _ = chat.encode_messages(messages, add_generation_prompt=True)
    for value, option in zip(found, ("the sun", "night"), strict=True):
        ids = [*prompt, *chat.encode(option), chat.role_token("<|end|>")]
        assert value == pytest.approx(by_hand(model, ids, len(prompt)), rel=1e-4)


@pytest.mark.parametrize("batch_size", [1, 5])
def test_padding_changes_no_score(batch_size: int) -> None:
    model = gpt(words().vocab_size, context_length=64)
    together = likelihood.of_model(model, words(), QUESTIONS, False, 64)
    apart = likelihood.of_model(model, words(), QUESTIONS, False, batch_size)
    for a, b in zip(together, apart, strict=True):
        assert a == pytest.approx(b, rel=1e-5)


def test_of_a_long_question_the_end_is_kept() -> None:
    model = gpt(words().vocab_size, context_length=16)
    long = [Question("far away " * 20 + "the king\n", [], ("is here", "are here"))]
    ids, first = likelihood.row(words(), long[0], "is here", chat=False)
    assert len(ids) > 17
    [found] = likelihood.of_model(model, words(), long, False, 64)
    assert found[0] == pytest.approx(by_hand(model, ids[-17:], 17 - (len(ids) - first)), rel=1e-4)


def test_the_likeliest_per_byte_wins_and_equals_share() -> None:
    def points(question: Question, *values: float) -> float:
        return scores.points([np.array(values)], [question])[0]

    assert points(ask("?", "four", "x"), -4.0, -1.1) == 1  # −1 a byte against −1.1
    assert points(ask("?", "x", "four"), -1.1, -4.0) == 0
    assert points(ask("?", "é", "a"), -2.0, -1.5) == 1  # two bytes
    assert points(ask("?", "a", "b", "c"), -1.0, -1.0, -3.0) == 0.5
    assert points(Question("", [], ("He is.", "He are.")), -6.0, -6.5) == 1  # sentences: not divided, else 0
    assert points(Question("", [], ("He are.", "He is.")), -6.5, -6.0) == 0


@pytest.mark.parametrize(("right", "n"), [(0, 10), (3, 10), (10, 10), (137, 200), (1, 1)])
def test_the_interval_is_wilsons(right: int, n: int) -> None:
    found = scores.score([1.0] * right + [0.0] * (n - right))
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert (found["low"], found["high"]) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found["score"], found["items"]) == (right / n, n)


def test_the_n_gram_is_the_one_of_the_baselines(tmp_path: Path) -> None:
    text = texts(tmp_path / "train.parquet", a="Say: yes\nSay: yes\nSay: no\n" * 5)
    train, asked = ("Say: yes\nSay: yes\nSay: no\n" * 5).encode(), [Question("Say: ", [], ("yes", "oh"))]
    [found] = likelihood.of_ngram(text, asked, chat=False)
    for value, option in zip(found, (b"yes", b"oh"), strict=True):
        grams = baselines.pack(b"ay: " + option, 5)
        assert value == pytest.approx(np.log(baselines.ngram_probabilities(train, grams, 5)).sum())
    assert scores.points([found], asked) == [1.0]


def test_the_n_gram_of_conversations_has_read_questions_with_answers(tmp_path: Path) -> None:
    pairs = [(f"{i}", [f"go {'left' if i % 2 else 'right'}", "LL" if i % 2 else "RR"]) for i in range(20)]
    train = conversations(tmp_path / "train.parquet", *pairs)
    asked = [ask("go left", "LL", "RR"), ask("go right", "RR", "LL")]
    assert scores.points(likelihood.of_ngram(train, asked, chat=True), asked) == [1, 1]


def always(question: Question) -> bool:
    return True


def test_next_utterances_follow_and_the_others_are_of_the_same_play(tmp_path: Path) -> None:
    plays = {f"play-{i}": BROKEN.replace("number", f"of play-{i},") for i in range(3)}
    found = next_utterances(texts(tmp_path / "v.parquet", **plays), 100, always)
    assert len(found) > 10
    for question in found:
        name = re.search(r"play-\d", question.text + question.options[0])
        assert name
        assert all(name[0] in option or option == "Hm." for option in question.options)
        assert len(set(question.options)) == 4
        assert f"{question.text}{question.options[0]}\n" in plays[name[0]]
        assert question.messages[0]["content"] == f"You are {question.text.splitlines()[-1][:-1]}."
    assert next_utterances(tmp_path / "v.parquet", 5, always) == found[:5]


def test_next_utterances_of_conversations_are_those_of_plays_where_there_are_any(tmp_path: Path) -> None:
    places = [(play, i) for play in "XY" for i in range(5)]
    speeches = [(f"held-out/plays/{p}/{i}/0", [f"You are {p}.", f"Q {p} {i}", f"A {p} {i}"]) for p, i in places]
    sums = [(f"held-out/tasks/{i}", [f"What is {i} + 1?", str(i + 1)]) for i in range(9)]
    found = next_utterances(conversations(tmp_path / "v.parquet", *speeches, *sums), 100, always)
    assert len(found) == 10
    for question in found:
        play = question.messages[0]["content"][8]
        assert all(option.startswith(f"A {play}") for option in question.options)
        assert question.text == f"{question.messages[1]['content']}\n\n{play}:\n"
        assert question.options[0][1:] == question.messages[1]["content"][1:]
    found = next_utterances(conversations(tmp_path / "w.parquet", *sums), 100, always)
    assert len(found) == 9
    assert all(int(q.options[0]) == int(q.messages[0]["content"].split()[2]) + 1 for q in found)


def test_a_text_without_dialogue_has_no_next_utterances(tmp_path: Path) -> None:
    assert next_utterances(texts(tmp_path / "v.parquet", a="Energy is conserved.\n\n" * 50), 10, always) == []


def test_questions_that_do_not_fit_are_left_out(tmp_path: Path) -> None:
    assert not likelihood.fits(words(), Question("ANNE:\n", [], ("speech " * 9, "x")), 16)
    assert not likelihood.fits(words(), Question("speech " * 9, [], ("x", "y")), 16)
    assert likelihood.fits(words(), Question("ANNE:\n", [], ("speech", "x")), 64)
    path = texts(tmp_path / "v.parquet", a=BROKEN, b=BROKEN)
    assert next_utterances(path, 9, lambda question: False) == []
    kept = next_utterances(path, 9, lambda question: question.options[0] != "Hm.")
    assert len(kept) == 9
    assert all(question.options[0] != "Hm." for question in kept)


@pytest.fixture(scope="module")
def chat() -> tuple[GPT, Tokenizer]:
    """A model that learned to answer QUESTIONS, each with its true answer, by heart."""
    tokenizer = words().with_roles()
    model = gpt(tokenizer.vocab_size, context_length=32, n_embd=48, n_head=3)
    examples = []
    for question in QUESTIONS:
        answer = {"role": "assistant", "content": question.options[0]}
        ids, mask = tokenizer.encode_messages([*question.messages, answer])
        targets = torch.where(torch.tensor(mask) == 1, torch.tensor(ids), -100)
        examples.append((torch.tensor([ids[:-1]]), targets[None, 1:]))
    for step in range(60):
        loss = torch.stack([cross_entropy(model(ids), targets, "mean") for ids, targets in examples]).sum()
        weights = list(model.parameters())
        for weight, gradient in zip(weights, torch.autograd.grad(loss, weights), strict=True):
            weight.data -= 0.01 * (1 - step / 60) * gradient.sign()
    assert loss < 0.1
    return model.eval(), tokenizer


def test_exact_match_is_right_to_the_byte(chat: tuple[GPT, Tokenizer]) -> None:
    assert answers.exact_match(*chat, QUESTIONS) == [1, 1, 1]
    other = [question._replace(options=(question.options[1],)) for question in QUESTIONS]
    assert answers.exact_match(*chat, other) == [0, 0, 0]  # the last, "s", only begins like the answer
    longer = [question._replace(options=(question.options[0] + "!",)) for question in QUESTIONS]
    assert answers.exact_match(*chat, longer) == [0, 0, 0]


def test_an_answer_ended_by_itself_only_if_it_did_so_within_the_limit(chat: tuple[GPT, Tokenizer]) -> None:
    prompts = [question.messages for question in QUESTIONS]
    sizes = [len(generate(*chat, prompt, temperature=0)[0].ids) for prompt in prompts]
    assert answers.ended(*chat, prompts, 0.0, 20) == [1, 1, 1]
    assert answers.ended(*chat, prompts, 0.0, max(sizes)) == [float(size < max(sizes)) for size in sizes]
    assert answers.ended(*chat, prompts, 0.0, 1) == [0, 0, 0]


def test_the_chance_of_an_exact_match_is_that_of_the_best_constant_answer() -> None:
    asked = [ask("?", answer) for answer in ("3", "2", "3", "1")]
    assert answers.most_frequent(asked) == 0.5
    assert 0 < answers.most_frequent(generated("copy", 200)) < 0.02


def measured(
    tmp_path: Path, model: GPT, tokenizer: Tokenizer, base: GPT | None, chosen: Evaluate
) -> tuple[dict[str, Any], list[str]]:
    """The numbers of a model, and what was said, on a small corpus of its kind."""
    said: list[str] = []
    if tokenizer.has_roles:
        pairs = [(str(i), [f"Repeat: {i}", f"{i} {i}"]) for i in range(20)]
        files = [conversations(tmp_path / f"{split}.parquet", *pairs) for split in ("train", "validation")]
    else:
        files = [texts(tmp_path / f"{split}.parquet", a=TEXT, b=TEXT) for split in ("train", "validation")]
    subject = suite.Subject(model, tokenizer, base, *files)
    return suite.measure(subject, chosen, say=said.append), said


def test_a_text_model_is_scored_by_likelihood_only(tmp_path: Path) -> None:
    model = gpt(words().vocab_size, context_length=64)
    found, said = measured(tmp_path, model, words(), None, section(["add", "agreement", "ends"]))
    assert list(found) == ["add", "agreement"]
    assert set(found["add"]) == {"score", "low", "high", "items", "chance", "five_gram", "oracle"}
    assert (found["add"]["oracle"], found["add"]["chance"], found["agreement"]["chance"]) == (1, 0.25, 0.5)
    assert said == ["ends is left out: it needs a chat model, and held-out conversations that fit into its context."]


def test_a_task_that_does_not_fit_or_cannot_be_written_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    letters = CharTokenizer("abcdefghijklmnopqrstuvwxyz:RT ", "error")
    for tokenizer, context, why in (
        (words(), 4, "add is left out: its questions do not fit into the model's context of 4 tokens."),
        (letters, 64, "add is left out: The tokenizer's vocabulary lacks"),
    ):
        model = gpt(tokenizer.vocab_size, context_length=context)
        (tmp_path / str(context)).mkdir()
        found, said = measured(tmp_path / str(context), model, tokenizer, None, section(["add"]))
        assert not found
        assert said[0].startswith(why)


def test_a_chat_model_is_scored_on_its_answers_too_and_beside_its_base(
    tmp_path: Path, chat: tuple[GPT, Tokenizer]
) -> None:
    model, tokenizer = chat
    base = gpt(tokenizer.vocab_size, context_length=32, seed=2)
    found, said = measured(tmp_path, model, tokenizer, base, section(["larger", "agreement", "ends"], replies=8))
    names = ["larger", "agreement", "next_utterance", "larger_exact_match", "ends_greedy", "ends_sampled"]
    assert list(found) == names
    assert said == []
    assert [name for name in names if "before" in found[name]] == names[:3]
    asked = generated("larger", 10)
    alone = scores.points(likelihood.of_model(base, tokenizer, asked, False, 64), asked)
    assert found["larger"]["before"] == pytest.approx(sum(alone) / 10)
    assert found["larger_exact_match"]["oracle"] == 1
    assert "five_gram" not in found["larger_exact_match"]
    assert "chance" not in found["ends_greedy"]


def test_what_has_no_dialogue_is_left_out_with_a_sentence(tmp_path: Path) -> None:
    files = [texts(tmp_path / f"{split}.parquet", a="No dialogue.\n" * 50) for split in ("train", "validation")]
    said: list[str] = []
    subject = suite.Subject(gpt(words().vocab_size, context_length=64), words(), None, *files)
    assert suite.measure(subject, section([], replies=10), say=said.append) == {}
    assert said == ["next_utterance is left out: the held-out text has no dialogue that fits into the model's context."]


def test_params_name_every_task() -> None:
    assert section([*KINDS, "ends"]).tasks == [*KINDS, "ends"]
    assert set(Evaluate.model_fields["tasks"].annotation.__args__[0].__args__) == {*KINDS, "ends"}  # type: ignore[union-attr]


NUMBERS = {
    "add": {"score": 0.5, "low": 0.4, "high": 0.6, "items": 100, "chance": 0.25, "five_gram": 0.2, "oracle": 1.0},
    "add_exact_match": {"score": 0.125, "low": 0.1, "high": 0.2, "items": 100, "chance": 0.01, "oracle": 1.0},
}


def test_the_table_shows_what_is_there() -> None:
    head, first, second = table(NUMBERS)
    assert head.split() == ["task", "score", "95%", "interval", "chance", "5-gram", "oracle"]
    assert first.split() == ["add", "50.0%", "40.0", "to", "60.0%", "25.0%", "20.0%", "100.0%"]
    assert second.split() == ["add,", "exact", "match", "12.5%", "10.0", "to", "20.0%", "1.0%", "–", "100.0%"]
    assert len({len(line) for line in (head, first, second)}) == 1
    *_, last = table({"add": NUMBERS["add"] | {"before": 0.3}})
    assert last.split()[-1] == "30.0%"
    assert label("sort_words_exact_match") == "sort words, exact match"

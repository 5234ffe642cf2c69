"""chat/ under DVC: from data/model to a model that answers, whose every token that counted the assistant wrote."""

import json
from typing import Any

import numpy as np
import pytest
import yaml

from tests.project import STAGES, Project
from tinygpt.checkpoints.model_folder import load
from tinygpt.tokenizer.chat_template import ROLE_TOKENS, TEMPLATE

pytestmark = pytest.mark.slow

WORDS = ("night", "day", "sun", "east", "rose", "name")


def conversations() -> list[list[dict[str, str]]]:
    """Each word is answered by the next one of the list, in one to three turns."""
    found = []
    for turns in (1, 2, 3):
        for first in range(len(WORDS)):
            for system in ([], [{"role": "system", "content": "Count on."}]):
                asked = [WORDS[(first + turn) % len(WORDS)] for turn in range(turns)]
                answers = [WORDS[(first + turn + 1) % len(WORDS)] for turn in range(turns)]
                said = zip(asked, answers, strict=True)
                messages = [(("user", one), ("assistant", other)) for one, other in said]
                found.append([*system, *({"role": role, "content": text} for pair in messages for role, text in pair)])
    return found


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project whose pipelines have run: the base model's, and the one that teaches it to answer."""
    project = Project(tmp_path_factory.mktemp("chat"))
    (project.folder / "chat/own").mkdir()
    lines = [json.dumps({"messages": messages}) + "\n" for messages in conversations()]
    (project.folder / "chat/own/words.jsonl").write_text("".join(lines), encoding="utf-8")
    file = project.folder / "chat/params.yaml"
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["download"].update(path="chat/own", text_column="messages")
    values["train"].update(steps=60, learning_rate=0.01)
    values["sample"]["prompts"] = [[{"role": "user", "content": "night"}]]
    file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    project.commit()
    project.dvc("repro")
    assert project.dvc("repro", "chat/dvc.yaml") == [f"chat/dvc.yaml:{stage}" for stage in STAGES]
    project.commit()
    return project


def read(project: Project, name: str) -> Any:
    return json.loads((project.folder / "chat/data" / name).read_text(encoding="utf-8"))


def made(project: Project) -> dict[str, bytes]:
    files = [*(project.folder / "chat/data").rglob("*"), project.folder / "chat/dvc.lock"]
    return {str(file.relative_to(project.folder)): file.read_bytes() for file in files if file.is_file()}


def test_role_tokens_join_the_vocabulary_and_the_template_travels_with_the_model(chat: Project) -> None:
    base, old = load(chat.folder / "data/model")
    model, new = load(chat.folder / "chat/data/model")
    assert [new.role_token(name) - base.config.vocab_size for name in ROLE_TOKENS] == [0, 1, 2, 3]
    assert model.config.vocab_size == base.config.vocab_size + 4
    assert new.encode("Juliet <|user|>") == old.encode("Juliet <|user|>")
    assert read(chat, "model/tokenizer_config.json")["chat_template"] == TEMPLATE
    assert read(chat, "model/generation_config.json")["eos_token_id"] == [old.end_of_text, new.role_token("<|end|>")]


def test_the_mask_covers_the_answers_and_nothing_else(chat: Project) -> None:
    _, tokenizer = load(chat.folder / "chat/data/model")
    ids, mask = (np.load(chat.folder / f"chat/data/tokens/train{name}.npy") for name in ("", ".mask"))
    assert len(ids) == len(mask)
    text = [tokenizer.decode(run) for run in np.split(ids, 1 + np.flatnonzero(np.diff(mask)))[1 - mask[0] :: 2]]
    assert set(text) == set(WORDS)


def test_answers_are_learned_and_the_loss_is_theirs_alone(chat: Project) -> None:
    numbers = read(chat, "evaluation/metrics.json")
    assert numbers["fine_tuning"]["its_text"]["after"] == numbers["bits_per_byte"]
    assert numbers["fine_tuning"]["its_text"]["after"] < 0.5 * numbers["fine_tuning"]["its_text"]["before"]
    mask = np.load(chat.folder / "chat/data/tokens/validation.mask.npy")
    assert numbers["tokens"] == mask.sum()


def test_a_forced_rerun_gives_the_same_bytes(chat: Project) -> None:
    before = made(chat)
    chat.dvc("repro", "-f", "chat/dvc.yaml")
    assert made(chat) == before


def test_the_command_answers_what_is_piped_to_it(chat: Project) -> None:
    words = ("--model", "chat/data/model", "--temperature", "0", "--max-new-tokens", "8")
    printed = chat.run("bash", "-c", f"printf 'night\\nday\\n' | tinygpt chat {' '.join(words)} 2>/dev/null")
    assert printed.splitlines() == ["day", "sun"]


def test_prompts_with_messages_need_a_model_with_a_template(chat: Project) -> None:
    before = (chat.folder / "params.yaml").read_bytes()
    chat.set("sample", prompts=[[{"role": "user", "content": "night"}]])
    printed = chat.run("python", "-m", "stages.tokenize", code=1)
    (chat.folder / "params.yaml").write_bytes(before)
    assert "sample.prompts holds" in printed
    assert "completes text" in printed

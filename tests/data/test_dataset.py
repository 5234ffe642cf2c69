"""tinygpt/data/dataset.py: files written in constant memory, batches that depend on seed and step alone."""

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tinygpt.data import encode
from tinygpt.data.dataset import StepSampler, TokenDataset, Tokens, evaluation_windows, open_tokens, training_batches
from tinygpt.data.encode import write_tokens
from tinygpt.tokenizer.base import Tokenizer
from tinygpt.tokenizer.char import CharTokenizer

END = 3  # of the tokenizer below


@pytest.fixture
def abc() -> Tokenizer:
    return CharTokenizer("abc", "error")


def counting(length: int) -> Tokens:
    """A text in which each token is its own place."""
    return np.arange(length, dtype=np.uint16)


# files


def test_end_of_text_stands_before_each_document_and_rows_follow_one_another(abc: Tokenizer, tmp_path: Path) -> None:
    rows = [("first", "ab"), ("first", "c"), ("second", ""), ("third", "ca")]
    count = write_tokens(rows, abc, tmp_path / "tokens.npy")
    written = open_tokens(tmp_path / "tokens.npy")
    assert written.tolist() == [END, 0, 1, 2, END, END, 2, 0]
    assert count == len(written) == 8


def test_documents_are_told_apart_across_batches(
    abc: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "TASK_CHARACTERS", 2)
    rows = [("first", "a"), ("first", "b"), ("first", "c"), ("second", "a"), ("second", "b")]
    write_tokens(rows, abc, tmp_path / "tokens.npy")
    assert open_tokens(tmp_path / "tokens.npy").tolist() == [END, 0, 1, 2, END, 0, 1]


def test_no_token_crosses_a_row(tmp_path: Path) -> None:
    class Pairs(CharTokenizer):
        def encode_array(self, text: str) -> np.ndarray:
            return np.array([0] * (len(text) // 2) + [1] * (len(text) % 2))

    write_tokens([("d", "abc"), ("d", "a")], Pairs("abc", "error"), tmp_path / "tokens.npy")
    assert open_tokens(tmp_path / "tokens.npy").tolist() == [END, 0, 1, 1]


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_535, np.uint16), (65_536, np.uint32)])
def test_ids_take_two_bytes_while_they_fit(tmp_path: Path, vocab_size: int, dtype: type) -> None:
    characters = [chr(point) for point in range(0x20000) if not 0xD800 <= point < 0xE000][: vocab_size - 1]
    tokenizer = CharTokenizer(characters, "error")
    write_tokens([("d", characters[-1])], tokenizer, tmp_path / "tokens.npy")
    written = open_tokens(tmp_path / "tokens.npy")
    assert written.dtype == dtype
    assert written.tolist() == [vocab_size - 1, vocab_size - 2]


def test_numpy_alone_reads_what_was_written(abc: Tokenizer, tmp_path: Path) -> None:
    write_tokens([("d", "abc" * 1000)], abc, tmp_path / "tokens.npy")
    assert np.load(tmp_path / "tokens.npy", allow_pickle=False).tolist() == [END, *[0, 1, 2] * 1000]


def test_progress_is_told_in_bytes_of_text(tmp_path: Path) -> None:
    told: list[int] = []
    write_tokens([("d", "aé"), ("d", "🙂")], CharTokenizer("aé🙂", "error"), tmp_path / "tokens.npy", told.append)
    assert sum(told) == 3 + 4


def test_writing_takes_no_more_memory_for_a_longer_text(
    abc: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode, "TASK_CHARACTERS", 2**14)
    monkeypatch.setattr("os.cpu_count", lambda: 2)

    def peak(rows: int) -> int:
        tracemalloc.start()
        write_tokens((("d", "abca" * 1024) for _ in range(rows)), abc, tmp_path / "tokens.npy")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(8)
    # a few tasks wait, fewer or more as the threads have it, but never all of the text (4 KB a row)
    assert peak(1000) < 1000 * 4096 / 4


def test_a_process_takes_no_more_memory_for_a_longer_text(tmp_path: Path) -> None:
    """With a bpe, whose library takes memory that Python does not see."""
    script = """if True:
        import os, re, sys
        from pathlib import Path
        from pydoc_data.topics import topics
        from tinygpt import config
        from tinygpt.data import encode, train_tokenizer

        def written(megabytes):
            rows = (("d", text) for _ in range(megabytes * 2) for text in [english])
            encode.write_tokens(rows, words, Path(sys.argv[1]) / "tokens.npy")
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

        os.cpu_count = lambda: 2  # each core has text in hand
        english = "".join(topics.values())[:500_000]
        section = config.Tokenize(kind="bpe", vocab_size=300, algorithm="unigram", unknown="replace", **{"from": None})
        words = train_tokenizer.build(section, [english])
        short = written(4)
        print(written(16) - short)
    """
    run = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 8_000, "kB more for 12 MB more of text"


def test_after_a_failure_the_old_file_is_as_it_was(abc: Tokenizer, tmp_path: Path) -> None:
    write_tokens([("d", "abc")], abc, tmp_path / "tokens.npy")
    with pytest.raises(ValueError, match="'z'"):
        write_tokens([("d", "a" * 3_000_000), ("d", "z")], abc, tmp_path / "tokens.npy")
    assert open_tokens(tmp_path / "tokens.npy").tolist() == [END, 0, 1, 2]
    assert len(list(tmp_path.iterdir())) == 1


def test_no_text_is_refused(abc: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"There is no text .* Run `dvc repro download`"):
        write_tokens([], abc, tmp_path / "tokens.npy")


def test_opened_tokens_are_mapped_and_read_only(abc: Tokenizer, tmp_path: Path) -> None:
    write_tokens([("d", "abc")], abc, tmp_path / "tokens.npy")
    opened = open_tokens(tmp_path / "tokens.npy")
    assert isinstance(opened.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        opened[0] = 1


def test_missing_tokens_say_which_stage_makes_them(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No tokens at .*train.npy\. Run `dvc repro tokenize`\."):
        open_tokens(tmp_path / "train.npy")


def test_a_damaged_token_file_is_refused(abc: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokens.npy"
    write_tokens([("d", "abc" * 100)], abc, file)
    whole = file.read_bytes()
    np.save(tmp_path / "objects.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.save(tmp_path / "grid.npy", np.zeros((2, 2), dtype=np.uint16))
    np.save(tmp_path / "signed.npy", np.zeros(4, dtype=np.int64))
    np.savez(tmp_path / "archive.npz", ids=np.zeros(4, dtype=np.uint16))
    others = [other.read_bytes() for other in tmp_path.iterdir() if other != file]
    assert len(others) == 4
    for content in [b"", whole[:50], whole[:-1], whole[:128], whole + b"\0\0", b"x" + whole[1:], *others]:
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"tokens.npy is damaged.* Run `dvc repro tokenize`"):
            open_tokens(file)


# windows


def test_targets_are_the_inputs_shifted_by_one() -> None:
    inputs, targets = TokenDataset(counting(20), 4)[7]
    assert inputs.tolist() == [7, 8, 9, 10]
    assert targets.tolist() == [8, 9, 10, 11]
    assert inputs.dtype == targets.dtype == torch.int64


def test_a_batch_is_its_windows_one_by_one() -> None:
    dataset = TokenDataset(np.random.default_rng(0).integers(0, 1000, 500).astype(np.uint16), 16)
    starts = [0, 3, 3, 250, len(dataset) - 1]
    inputs, targets = dataset.__getitems__(starts)
    assert inputs.shape == targets.shape == (5, 16)
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    for row, start in enumerate(starts):
        assert torch.equal(inputs[row], dataset[start][0])
        assert torch.equal(targets[row], dataset[start][1])


def test_every_start_of_a_whole_window_counts_and_no_other() -> None:
    dataset = TokenDataset(counting(10), 4)
    assert len(dataset) == 6
    assert dataset[5][1].tolist() == dataset[-1][1].tolist() == [6, 7, 8, 9]
    with pytest.raises(IndexError):
        dataset[6]


def test_too_short_a_split_says_how_many_tokens_it_has_and_what_helps() -> None:
    with pytest.raises(ValueError, match=r"has 8 tokens; .*needs at least 9.*validation_fraction"):
        TokenDataset(counting(8), 8)
    assert len(TokenDataset(counting(9), 8)) == 1


# sampling


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(10, 200), st.integers(0, 30))
def test_a_batch_is_a_function_of_seed_and_step(seed: int, batch_size: int, length: int, start: int) -> None:
    dataset = TokenDataset(counting(length), 7)
    whole = list(StepSampler(dataset, batch_size, seed, 0, start + 5))
    assert list(StepSampler(dataset, batch_size, seed, start, start + 5)) == whole[start:]
    assert [StepSampler(dataset, batch_size, seed, 0, 0).batch(step) for step in reversed(range(start + 5))] == whole[
        ::-1
    ]
    assert all(len(batch) == batch_size for batch in whole)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 1000), st.integers(2, 12), st.integers(13, 300))
def test_an_epoch_visits_each_window_once(seed: int, context_length: int, length: int) -> None:
    dataset = TokenDataset(counting(length), context_length)
    sampler = StepSampler(dataset, 1, seed, 0, 0)
    for epoch in range(3):
        first = epoch * dataset.windows
        starts = sorted(start for step in range(first, first + dataset.windows) for start in sampler.batch(step))
        assert len(starts) == dataset.windows
        assert 0 <= starts[0] <= starts[-1] < len(dataset)
        assert np.all(np.diff(starts) == context_length)
        assert length - len(starts) * context_length <= 2 * context_length  # little is left over


def test_epochs_differ_in_order_and_in_where_they_begin() -> None:
    dataset = TokenDataset(counting(2000), 10)
    sampler = StepSampler(dataset, 1, 1, 0, 0)
    epochs = [
        [sampler.batch(epoch * dataset.windows + turn)[0] for turn in range(dataset.windows)] for epoch in range(9)
    ]
    assert len({min(epoch) for epoch in epochs}) > 3
    assert len({tuple(np.argsort(epoch)) for epoch in epochs}) == 9
    assert epochs[0] != sorted(epochs[0])


def test_another_seed_gives_other_batches() -> None:
    dataset = TokenDataset(counting(2000), 10)
    assert StepSampler(dataset, 8, 1, 0, 1).batch(0) != StepSampler(dataset, 8, 2, 0, 1).batch(0)


def test_only_one_permutation_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[list[int]] = []
    original = np.random.default_rng

    def recorded(seed: list[int]) -> np.random.Generator:
        made.append(seed)
        return original(seed)

    monkeypatch.setattr(np.random, "default_rng", recorded)
    sampler = StepSampler(TokenDataset(counting(101), 10), 3, 5, 0, 7)  # nine windows an epoch, twenty-one turns
    assert len(list(sampler)) == len(sampler) == 7
    assert made == [[5, 0], [5, 1], [5, 2]]


def test_a_loader_started_midway_goes_on_with_the_same_batches() -> None:
    text = TokenDataset(counting(1000), 8)
    whole = list(training_batches(text, 4, seed=3, start=0, stop=40))
    rest = list(training_batches(text, 4, seed=3, start=25, stop=40))
    assert len(whole) == 40
    assert len(rest) == 15
    for (inputs, targets), (again, shifted) in zip(whole[25:], rest, strict=True):
        assert torch.equal(inputs, again)
        assert torch.equal(targets, shifted)
        assert torch.equal(targets, inputs + 1)
        assert inputs.shape == (4, 8)


def test_loading_leaves_the_global_random_numbers_alone() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    legacy = np.random.get_state()[1].copy()  # type: ignore[index]
    assert len(list(training_batches(TokenDataset(counting(1000), 8), 4, seed=3, start=0, stop=5))) == 5
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], legacy)  # type: ignore[index]


# evaluation


def predicted(windows: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> list[int]:
    return [place for _, targets in windows for place in targets.flatten().tolist()]


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 200), st.integers(2, 20), st.integers(1, 9))
def test_every_token_but_the_first_is_predicted_once_in_order(length: int, context: int, batch_size: int) -> None:
    batches = list(evaluation_windows(counting(length), context, batch_size))
    assert predicted(iter(batches)) == list(range(1, length))
    for inputs, targets in batches:
        assert torch.equal(targets, inputs + 1)
        assert len(inputs) <= batch_size
        assert inputs.shape[1] == context or len(inputs) == 1


def test_the_last_window_comes_by_itself_at_its_own_length() -> None:
    shapes = [tuple(inputs.shape) for inputs, _ in evaluation_windows(counting(24), 5, 3)]
    assert shapes == [(3, 5), (1, 5), (1, 3)]


@settings(deadline=None, max_examples=100)
@given(st.integers(2, 300), st.integers(2, 20), st.integers(1, 400))
def test_a_limit_is_kept_in_whole_windows_spread_evenly(length: int, context: int, limit: int) -> None:
    places = predicted(evaluation_windows(counting(length), context, 4, limit))
    assert len(places) == len(set(places)) > 0
    assert len(places) <= max(limit, min(context, length - 1))
    assert len(places) > min(limit, length - 1) - context
    begins = np.array(places)[::context] - 1
    assert np.all(begins % context == 0)
    if len(begins) > 1 and limit < length - 1:
        gaps = np.diff(begins) // context
        assert gaps.max() - gaps.min() <= 1
        assert (length - 1) // context - begins[-1] // context <= gaps.max() + 1


def test_a_split_of_one_token_cannot_be_evaluated() -> None:
    with pytest.raises(ValueError, match="has 1 tokens"):
        list(evaluation_windows(counting(1), 5, 3))

import dataclasses
import os
from pathlib import Path

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import MaskedText, TextBytes

DATA = Path(os.environ.get("MESOCOSM_DATA", Path(__file__).parents[2].parent / "shared" / "data"))
TEXTS = ["tinyshakespeare/input.txt", "wikitext2/valid.txt", "wikitext2/test.txt"]


@pytest.fixture
def numbers(tmp_path):
    """A task on a file of 1003 bytes in 10 blocks, whose bytes tell their place."""
    path = tmp_path / "text"
    path.write_bytes(bytes(i % 251 for i in range(1003)))
    return TextBytes(path=str(path), length=7, blocks=10, valid_share=0.3)


def test_windows_are_bytes_of_the_file(numbers):
    content = Path(numbers.path).read_bytes()
    batch = numbers.sample(200, generator(0))
    for start, inputs, targets in zip(batch.position.tolist(), batch.inputs.tolist(), batch.targets.tolist()):
        assert bytes(inputs) == content[start : start + 7]
        assert bytes(targets) == content[start + 1 : start + 8]
        assert start // 100 == (start + 7) // 100, "a window crosses the end of its block"


def test_splits_share_no_byte_and_leave_none_out(numbers):
    valid = dataclasses.replace(numbers, split="valid")
    train_blocks, valid_blocks = numbers.block_starts.tolist(), valid.block_starts.tolist()
    assert sorted(train_blocks + valid_blocks) == [100 * i for i in range(10)]
    assert len(valid_blocks) == 3
    for task, blocks in ((numbers, train_blocks), (valid, valid_blocks)):
        positions = task.sample(3000, generator(1)).position
        assert set((positions // 100 * 100).tolist()) == set(blocks)


def test_windows_are_equally_likely(numbers):
    places = [start + i for start in numbers.block_starts.tolist() for i in range(93)]
    positions = numbers.sample(60_000, generator(2)).position
    counts = positions.bincount(minlength=1003)[places]
    assert counts.sum() == 60_000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_whole_predicts_every_byte_once(numbers):
    batch = numbers.whole()
    predicted = (batch.position[:, None] + 1 + torch.arange(7)).flatten()
    assert len(predicted.unique()) == len(predicted)
    expected = [start + i for start in numbers.block_starts.tolist() for i in range(1, 99)]
    assert predicted.tolist() == expected  # 14 windows of 7 in each block.


def test_frequencies_count_the_bytes_of_the_split(tmp_path):
    (tmp_path / "text").write_bytes(b"aab" * 40 + b"ccc")
    frequencies = TextBytes(path=str(tmp_path / "text"), length=2, blocks=20, valid_share=0.5).frequencies
    assert frequencies[list(b"abc")].tolist() == pytest.approx([2 / 3, 1 / 3, 0])
    assert frequencies.sum() == pytest.approx(1)


def test_help_pages_of_python_are_the_default():
    task = TextBytes()
    assert task.origin.startswith("Python's help pages: ")
    batch = task.whole()
    text = bytes(batch.targets.flatten().tolist()).decode(errors="replace")
    assert "statement" in text and "exception" in text
    assert len(text) > 200_000
    assert -(task.frequencies * task.frequencies.clamp_min(1e-12).log()).sum() == pytest.approx(3.2, abs=0.3)


def test_batch_is_what_the_task_declares(numbers):
    batch = numbers.sample(5, generator(0))
    assert batch._fields == tuple(numbers.fields)
    assert batch.inputs.shape == batch.targets.shape == batch.weights.shape == (5, *numbers.input_shape)
    assert numbers.output_shape == (7, len(numbers.tokens))
    assert len(set(numbers.tokens)) == 256
    assert torch.equal(batch.inputs, numbers.sample(5, generator(0)).inputs)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_no_split_is_empty(numbers, share):
    for split in ("train", "valid"):
        assert len(dataclasses.replace(numbers, valid_share=share, split=split).sample(3, generator(0)).inputs) == 3


@pytest.mark.parametrize("path", ["nowhere.txt", ".", "a\0b"])
def test_a_bad_path_is_named_in_one_sentence(path):
    with pytest.raises(ValueError, match=r"^path=.* is not legal: it must be a file that can be read \(.*\)$"):
        TextBytes(path=path).sample(1, generator(0))


@pytest.mark.parametrize("content", [b"", b"a", b"a" * 6499])
def test_a_short_file_is_refused(tmp_path, content):
    (tmp_path / "text").write_bytes(content)
    with pytest.raises(ValueError, match=r"blocks=100 and length=64 are not legal for .*a window needs 65"):
        TextBytes(path=str(tmp_path / "text")).sample(1, generator(0))


@pytest.mark.parametrize("name", TEXTS)
def test_published_texts(name):
    if not (DATA / name).is_file():
        pytest.skip(f"{name} is neither in MESOCOSM_DATA nor beside the repository")
    task = TextBytes(path=str(DATA / name), length=100)
    content = (DATA / name).read_bytes()
    assert task.origin == f"{DATA / name}: {len(content)} bytes"
    batch = task.sample(50, generator(0))
    for start, inputs in zip(batch.position.tolist(), batch.inputs.tolist()):
        assert bytes(inputs) == content[start : start + 100]
    held_out = dataclasses.replace(task, split="valid").whole().targets.numel()
    assert held_out == pytest.approx(0.1 * len(content), rel=0.02)


@pytest.fixture
def verse(tmp_path):
    path = tmp_path / "text"
    path.write_bytes("In the  beginning\n\tGod created\r\nthe heaven (and) the earth: É 1!\n".encode() * 20)
    return MaskedText(path=str(path), length=9, blocks=5, valid_share=0.3, mask_rate=0.5)


def as_text(task, numbers):
    return "".join("_" if n == task.mask else task.tokens[n] for n in numbers)


def test_masked_text_is_read_in_lower_case_with_single_spaces(verse):
    line = "in the beginning god created the heaven (and) the earth: 1! "
    assert verse.origin.endswith(f"{20 * len(line)} bytes")
    batch = verse.sample(100, generator(0))
    for start, numbers in zip(batch.position.tolist(), batch.targets.tolist()):
        assert as_text(verse, numbers) == (line * 21)[start : start + 9]
    frequencies = dict(zip(verse.tokens, verse.frequencies.tolist()))
    assert frequencies["MASK"] == 0
    assert verse.chance == frequencies[" "]
    assert frequencies["e"] == pytest.approx(line.count("e") / len(line), rel=0.1)


def test_only_chosen_characters_are_corrupted_in_the_shares_asked_for(verse):
    task = dataclasses.replace(verse, fates=(2.0, 1.0, 1.0))
    batch = task.sample(8000, generator(1))
    chosen = batch.weights == 1
    assert torch.equal(batch.inputs[~chosen], batch.targets[~chosen])
    assert chosen.float().mean().item() == pytest.approx(0.5, abs=0.01)
    assert (batch.inputs[chosen] == task.mask).float().mean().item() == pytest.approx(0.5, abs=0.01)
    same = (batch.inputs == batch.targets)[chosen].float().mean().item()
    assert same == pytest.approx(0.25 + 0.25 / task.mask, abs=0.01)
    assert batch.targets.max() < task.mask


def test_shuffled_text_keeps_each_windows_characters(verse):
    shuffled = dataclasses.replace(verse, shuffled=True).sample(50, generator(2))
    plain = verse.sample(50, generator(2))
    assert torch.equal(shuffled.position, plain.position)
    assert torch.equal(shuffled.targets.sort(1).values, plain.targets.sort(1).values)
    assert (shuffled.targets != plain.targets).any(1).float().mean() > 0.9


def test_the_whole_masked_text_is_always_the_same(verse):
    first, second = verse.whole(), verse.whole()
    assert all(torch.equal(a, b) for a, b in zip(first, second))
    assert torch.equal(first.position, dataclasses.replace(verse, shuffled=True).whole().position)


def test_masked_batch_is_what_the_task_declares(verse):
    batch = verse.sample(5, generator(0))
    assert batch._fields == tuple(verse.fields)
    assert batch.inputs.shape == (5, *verse.input_shape)
    assert verse.output_shape == (9, len(verse.tokens)) == (9, 49)
    with pytest.raises(ValueError, match=r"fates=\(0\.5,\) is not legal: it must hold 3 shares of a positive sum"):
        dataclasses.replace(verse, fates=(0.5,))

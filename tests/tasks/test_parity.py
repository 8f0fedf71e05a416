import itertools

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import BlockParity, SparseParity
from mesocosm.tasks.parity import cube, random_signs

TASKS = [SparseParity(n=10, k=3), BlockParity(n=12, k=4), SparseParity(n=7, k=7), SparseParity(n=3, k=1)]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("size", [1, 64, 100])
def test_batch_is_what_the_task_declares(task, size):
    batch = task.sample(size, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (size, *task.input_shape)
    assert batch.targets.shape == (size, *task.output_shape)
    assert all(field.dtype == torch.float32 for field in batch)
    assert (batch.inputs.abs() == 1).all()
    assert (batch.weights == 1).all()


def test_label_is_the_product_of_the_relevant_bits():
    sparse = SparseParity(n=6, k=2).sample(50, generator(0))
    assert torch.equal(sparse.clean, sparse.inputs[:, 0] * sparse.inputs[:, 1])
    block = BlockParity(n=6, k=3).sample(50, generator(0))
    assert torch.equal(block.clean, block.inputs[:, 0] * block.inputs[:, 2] * block.inputs[:, 4])


def test_inputs_are_uniform_on_the_cube():
    inputs = random_signs(80_000, 5, generator(1))
    patterns = ((inputs < 0).long() * 2 ** torch.arange(5)).sum(1)
    assert stats.chisquare(patterns.bincount(minlength=32)).pvalue > 1e-3


def test_bits_of_different_rows_are_independent():
    inputs = random_signs(20_000, 3, generator(2))
    patterns = ((inputs.view(-1, 6) < 0).long() * 2 ** torch.arange(6)).sum(1)
    assert stats.chisquare(patterns.bincount(minlength=64)).pvalue > 1e-3


@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_noise_replaces_labels_by_fair_coins(noise):
    task = SparseParity(n=10, k=3, noise=noise)
    batch = task.sample(20_000, generator(3))
    wrong = int((batch.targets != batch.clean).sum())
    assert stats.binomtest(wrong, 20_000, task.optimal_error).pvalue > 1e-3
    assert torch.equal(batch.inputs, SparseParity(n=10, k=3).sample(20_000, generator(3)).inputs)


def test_cube_holds_every_input_once():
    assert {tuple(row) for row in cube(4).tolist()} == set(itertools.product((-1.0, 1.0), repeat=4))
    assert len(cube(4)) == 16
    assert cube(3)[0b110].tolist() == [1, -1, -1]


def test_enumeration_is_exact():
    batch = SparseParity(n=5, k=2, noise=0.5).enumerate()
    assert torch.equal(batch.inputs, cube(5))
    assert torch.equal(batch.targets, cube(5)[:, :2].prod(1))
    assert torch.equal(batch.targets, batch.clean)


def test_generator_decides_the_samples():
    task = SparseParity(n=30, k=3, noise=0.1)
    first, again, other = (task.sample(40, generator(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SparseParity(n=0), "n=0 is not legal.*at least 1"),
        (lambda: SparseParity(n=3, k=4), "k=4 is not legal.*at most n=3"),
        (lambda: SparseParity(noise=1.5), "noise=1.5 is not legal.*from 0 to 1"),
        (lambda: BlockParity(n=10, k=4), "k=4 is not legal.*divide n=10"),
        (lambda: SparseParity(n=21, k=3).enumerate(), "n=21 is not legal.*from 1 to 20"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

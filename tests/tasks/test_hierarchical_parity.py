import itertools
import math

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import HierarchicalParity, SparseParity


def best_leaf(bits, k, n_classes):
    """The leaf of the highest score: a sum over its path of ±1 times the product of a block, + for the even child."""
    scores = []
    for leaf in range(n_classes):
        child, score = leaf + n_classes, 0  # node 1 is the root, 2i and 2i + 1 are the children of i
        while child > 1:
            node = child // 2
            score += (-1) ** child * math.prod(bits[(node - 1) * k : node * k])
            child = node
        scores.append(score)
    assert scores.count(max(scores)) == 1
    return scores.index(max(scores))


@pytest.mark.parametrize(("n", "k", "n_classes"), [(9, 3, 4), (8, 1, 8), (10, 4, 2), (11, 3, 4), (15, 1, 16)])
def test_labels_are_the_leaves_of_highest_score(n, k, n_classes):
    task = HierarchicalParity(n=n, k=k, n_classes=n_classes)
    batch = task.enumerate()
    for bits, label in itertools.islice(zip(batch.inputs.tolist(), batch.targets.tolist()), 0, None, 7):
        assert label == best_leaf(bits, k, n_classes)
    assert (batch.targets.bincount(minlength=n_classes) == 2**n / n_classes).all()
    assert task.chance == 1 / n_classes


def test_nodes_and_paths_by_hand():
    task = HierarchicalParity(n=7, k=2, n_classes=4)
    batch = task.label(torch.tensor([[1.0, 1, -1, 1, 1, 1, -1], [1, -1, 1, 1, -1, -1, 1]]))
    assert batch.nodes.tolist() == [[1, -1, 1], [-1, 1, 1]]
    assert batch.path.tolist() == [[0, 1], [0, 2]]
    assert batch.targets.tolist() == [1, 2]
    assert task.supports.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert task.node_levels.tolist() == [0, 1, 1]


def test_two_classes_are_a_sparse_parity():
    batch = HierarchicalParity(n=30, k=4, n_classes=2).sample(200, generator(0))
    parity = SparseParity(n=30, k=4).sample(200, generator(0))
    assert torch.equal(batch.inputs, parity.inputs)
    assert torch.equal(1.0 - 2 * batch.targets, parity.targets)


def test_batch_is_what_the_task_declares():
    task = HierarchicalParity(n=35, k=5, n_classes=8)
    batch = task.sample(4000, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (4000, *task.input_shape)
    assert task.output_shape == (8,)
    assert batch.nodes.shape == (4000, 7) and batch.path.shape == (4000, 3)
    assert stats.chisquare(batch.targets.bincount(minlength=8)).pvalue > 1e-3
    again = task.sample(4000, generator(0))
    assert all(torch.equal(a, b) for a, b in zip(batch, again))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_classes": 6}, "n_classes=6 is not legal: it must be a power of two"),
        ({"n": 10, "k": 4}, "k=4 is not legal: 3 nodes on n=10 bits leave 3 each"),
        ({"n_classes": 1}, "n_classes=1 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        HierarchicalParity(**settings)

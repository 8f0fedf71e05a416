"""Conditionals against enumeration of all paths of states, samples against exact laws."""

from itertools import pairwise, product

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import DiscreteHMM, GaussianHMM
from mesocosm.tasks.hidden_markov import conditional_moment, sinkhorn, state_posterior

TASK = DiscreteHMM(states=3, symbols=4, length=4, seen=(0, 3), predicted=(1, 2), table=5)
GAUSSIAN = GaussianHMM(states=3, dimensions=4, gap=2, table=5)
COUNT = 200_000


def joint_by_enumeration(task):
    """P(x_1, ..., x_T), summed over every path of states."""
    emission, transition = task.emission, task.transition
    law = torch.zeros((task.symbols,) * task.length, dtype=torch.float64)
    for path in product(range(task.states), repeat=task.length):
        weight = 1 / task.states
        for before, after in pairwise(path):
            weight = weight * transition[after, before]
        term = weight
        for state in path:
            term = torch.as_tensor(term)[..., None] * emission[:, state]
        law += term
    return law


JOINT = joint_by_enumeration(TASK)


@pytest.mark.parametrize(
    ("seen", "predicted"),
    [
        ((), (0, 1, 2, 3)), ((0,), (1,)), ((2,), (0,)), ((0,), (1, 2)), ((1,), (0, 2)), ((0, 1), (3,)),
        ((0, 3), (1, 2)), ((3,), (0, 1, 2)),
    ],
)  # fmt: skip
def test_conditionals_are_those_of_the_joint_law(seen, predicted):
    gone = [t for t in range(4) if t not in (*seen, *predicted)]
    law = JOINT.sum(gone) if gone else JOINT
    kept = [t for t in range(4) if t not in gone]
    law = law.permute([kept.index(t) for t in (*seen, *predicted)])
    total = law.sum(dim=tuple(range(len(seen), law.dim())), keepdim=True)
    torch.testing.assert_close(TASK.conditional(seen, predicted), law / total, rtol=0, atol=1e-15)


def test_the_joint_law_is_stationary_and_sums_to_one():
    assert JOINT.sum().item() == pytest.approx(1, abs=1e-14)
    pair = TASK.emission @ TASK.transition @ TASK.emission.mT / 3
    for first in range(3):
        others = tuple(t for t in range(4) if t not in (first, first + 1))
        torch.testing.assert_close(JOINT.sum(others), pair.mT, rtol=0, atol=1e-14)


def test_gaussian_moments_are_bayes_rule():
    means, transition = GAUSSIAN.means, GAUSSIAN.transition
    x = torch.randn(5, 2, 4, dtype=torch.float64, generator=generator(0))
    density = torch.exp(-(x[..., None] - means).square().sum(2) / 2)  # [5, 2, 3]
    exact = torch.zeros(5, 4, 4, dtype=torch.float64)
    total = torch.zeros(5, dtype=torch.float64)
    for h in product(range(3), repeat=4):
        weight = density[:, 0, h[0]] * density[:, 1, h[2]]
        for before, after in pairwise(h):
            weight = weight * transition[after, before]
        total += weight
        exact += weight[:, None, None] * torch.outer(means[:, h[1]], means[:, h[3]])
    seen = {0: state_posterior(means, x[:, 0]), 2: state_posterior(means, x[:, 1])}
    moment = conditional_moment(means, transition, seen, (1, 3))
    torch.testing.assert_close(moment, exact / total[:, None, None], rtol=0, atol=1e-14)
    first = conditional_moment(means, transition, {0: seen[0]}, (2,))
    torch.testing.assert_close(first, GAUSSIAN.optimal(x[:, 0]), rtol=0, atol=1e-14)


def test_samples_follow_the_joint_law():
    batch = TASK.sample(COUNT, generator(1))
    code = (batch.targets * 4 ** torch.arange(3, -1, -1)).sum(1)
    assert stats.chisquare(code.bincount(minlength=256).numpy(), COUNT * JOINT.flatten().numpy()).pvalue > 1e-3
    moved = (batch.states[:, 1:] * 3 + batch.states[:, :-1]).flatten().bincount(minlength=9) / (3 * COUNT)
    assert torch.allclose(moved.double(), TASK.transition.flatten() / 3, atol=4e-3)


def test_gaussian_samples_have_the_predicted_moments():
    batch = GAUSSIAN.sample(COUNT, generator(1))
    noise = batch.inputs - GAUSSIAN.means.float().mT[batch.states[:, 0]]
    assert stats.kstest(noise.flatten()[::9].numpy(), "norm").pvalue > 1e-3
    covariance = torch.cov(torch.cat([batch.inputs, batch.targets], 1).T)[:4, 4:]
    ahead = GAUSSIAN.transition @ GAUSSIAN.transition
    second = GAUSSIAN.means @ (ahead.mT / 3 - 1 / 9) @ GAUSSIAN.means.mT
    assert torch.allclose(covariance.double(), second, atol=0.012)
    loss = (GAUSSIAN.optimal(batch.inputs) - batch.targets).square().mean()
    nearby = (1.05 * GAUSSIAN.optimal(batch.inputs) - batch.targets).square().mean()
    assert loss < nearby


def test_masks_and_weights_stand_where_they_are_said_to():
    batch = TASK.sample(50, generator(2))
    assert batch._fields == tuple(TASK.fields)
    assert (batch.inputs[:, [1, 2]] == 4).all()
    assert torch.equal(batch.inputs[:, [0, 3]], batch.targets[:, [0, 3]])
    assert batch.weights.tolist() == [[0, 1, 1, 0]] * 50
    assert batch.inputs.shape == (50, *TASK.input_shape) and len(TASK.tokens) == 5
    assert GAUSSIAN.sample(7, generator(2)).targets.shape == (7, *GAUSSIAN.output_shape)


def test_the_optimal_loss_is_the_conditional_entropy():
    entropy = 0
    for place in (1, 2):
        law = JOINT.sum(3 - place)  # [seen 0, asked, seen 3]
        entropy -= (law * (law / law.sum(1, keepdim=True)).log()).sum().item() / 2
    assert TASK.optimal_loss == pytest.approx(entropy, abs=1e-12)


def test_draws_are_as_described():
    for table in range(5):
        task = DiscreteHMM(table=table)
        ones = torch.ones(3, dtype=torch.float64)
        for sums in (task.transition.sum(0), task.transition.sum(1), task.emission.sum(0)):
            torch.testing.assert_close(sums, ones, rtol=0, atol=1e-14)
        assert task.emission.min() >= 0.25 / 4
        assert torch.linalg.matrix_rank(task.emission) == 3
        torch.testing.assert_close(GaussianHMM(table=table).means.norm(dim=0), ones)
    assert not torch.equal(DiscreteHMM(table=0).transition, DiscreteHMM(table=1).transition)


def test_sinkhorn_keeps_cross_ratios():
    """Balancing only scales rows and columns."""
    matrix = torch.rand(4, 4, dtype=torch.float64, generator=generator(3)) + 0.1
    balanced = sinkhorn(matrix)
    ratio = (balanced / matrix).log()
    centred = ratio - ratio.mean(0) - ratio.mean(1, keepdim=True) + ratio.mean()
    assert centred.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: DiscreteHMM(states=5), "symbols=4 is not legal: it must be at least states=5"),
        (lambda: GaussianHMM(states=6), "dimensions=5 is not legal: it must be at least states=6"),
        (lambda: DiscreteHMM(seen=(0, 2)), r"predicted=\(2,\) is not legal with seen=\(0, 2\)"),
        (lambda: DiscreteHMM(predicted=(3,)), r"predicted=\(3,\) is not legal .* below length=3"),
        (lambda: DiscreteHMM(symbols=100, length=6).conditional((), range(6)), "6 places are not legal"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

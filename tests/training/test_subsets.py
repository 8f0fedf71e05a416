import pytest
import torch
from torch import nn

from mesocosm.measures import random_subsets
from mesocosm.seeding import generator
from mesocosm.tasks import Images
from mesocosm.training import SGD, Epochs, Population, cross_entropy, train
from mesocosm.training.subsets import Subsets, members, train_on_subsets

DATA = Images(size=4, count=40).train()
MASKS = random_subsets(3, 40, generator(0), 0.5)


def make():
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 10))


def by_hand(rows, steps, rate=0.5):
    """Full-batch gradient descent on these rows alone, from the population's initial weights."""
    population = Population(make, [7])
    weight, bias = (view[0].clone().requires_grad_() for view in population.layout.views(population.theta).values())
    for _ in range(steps):
        logits = DATA.inputs[rows].flatten(1) @ weight.T + bias
        gradients = torch.autograd.grad(nn.functional.cross_entropy(logits, DATA.targets[rows]), (weight, bias))
        with torch.no_grad():
            weight -= rate * gradients[0]
            bias -= rate * gradients[1]
    return torch.cat((weight.detach().flatten(), bias.detach()))


def weights(population, replica):
    return torch.cat([view[replica].flatten() for view in population.layout.views(population.theta).values()])


def test_a_subset_is_what_gradient_descent_sees():
    history = train_on_subsets(make, DATA, MASKS, cross_entropy, SGD(0.5), steps=5, seed=7)
    for replica, mask in enumerate(MASKS):
        expected = by_hand(mask.nonzero()[:, 0], 5)
        assert torch.allclose(weights(history.population, replica), expected, atol=1e-6)


def test_subsets_may_differ_in_size_and_one_be_empty():
    masks = torch.zeros(2, 40, dtype=torch.bool)
    masks[1, :3] = True
    history = train_on_subsets(make, DATA, masks, cross_entropy, SGD(0.5), steps=3, seed=7)
    assert torch.equal(weights(history.population, 0), weights(Population(make, [7]), 0))
    assert torch.allclose(weights(history.population, 1), by_hand(torch.arange(3), 3), atol=1e-6)


def test_minibatches_come_from_the_subset_alone():
    stream = Epochs(DATA, 5, [7] * 3, members(MASKS))
    for replica, mask in enumerate(MASKS):
        rows = torch.cat([stream(step, [replica], torch.device("cpu")).row[0] for step in range(4)])
        assert sorted(rows.tolist()) == DATA.row[mask].tolist()
    one = train_on_subsets(make, DATA, MASKS, cross_entropy, SGD(0.1), steps=8, batch_size=5, seed=7)
    population = Population(make, [7] * 3)
    train(population, stream, cross_entropy, SGD(0.1), steps=8)
    assert torch.equal(one.population.theta, population.theta)


def test_models_may_have_seeds_of_their_own():
    own = train_on_subsets(make, DATA, MASKS, cross_entropy, SGD(0.1), steps=4, batch_size=5, seed=[7, 8, 9])
    alone = train_on_subsets(make, DATA, MASKS[1:2], cross_entropy, SGD(0.1), steps=4, batch_size=5, seed=8)
    assert torch.equal(own.population.theta[1], alone.population.theta[0])
    with pytest.raises(ValueError, match="2 seeds for 3 subsets"):
        train_on_subsets(make, DATA, MASKS, cross_entropy, SGD(0.1), steps=4, seed=[7, 8])


def test_a_replica_sees_the_same_in_any_company():
    stream = Subsets(DATA, MASKS)
    alone, together = stream(3, [2], torch.device("cpu")), stream(0, [0, 1, 2], torch.device("cpu"))
    assert all(torch.equal(one[0], many[2]) for one, many in zip(alone, together))


def test_masks_must_fit():
    with pytest.raises(ValueError, match=r"masks \[3, 40\] must have one column for each of 39 samples"):
        Subsets(DATA._make(field[:39] for field in DATA), MASKS)
    with pytest.raises(ValueError, match="subsets of 2 to 3 examples"):
        members(torch.tensor([[1, 1, 0], [1, 1, 1]]).bool())
    with pytest.raises(ValueError, match="subsets of 0 to 0 examples"):
        members(torch.zeros(2, 3).bool())

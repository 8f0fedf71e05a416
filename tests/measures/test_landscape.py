import pytest
import torch
from torch import nn

from mesocosm.measures import gradient_direction, random_direction, weight_slice
from mesocosm.models import MLP
from mesocosm.seeding import generator
from mesocosm.tasks import PlantDemonstrations
from mesocosm.training import square

TASK = PlantDemonstrations(noise=0.3)
BATCH = TASK.sample(8, generator(0))
DISTANCES = torch.linspace(-0.5, 0.5, 11)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MLP.for_task(TASK, hidden=(6,), activation="tanh")


def loss(model):
    return square(model, BATCH)


@pytest.mark.parametrize("together", [True, False])
def test_slice_equals_weights_moved_by_hand(model, together):
    direction = random_direction(model, generator(1))
    found = weight_slice(model, direction, DISTANCES, lambda m: (loss(m), m(BATCH.inputs)), together)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    for i, distance in enumerate(DISTANCES):
        for name, parameter in model.named_parameters():
            parameter.data = before[name] + distance * direction[name]
        assert found[0][i].item() == pytest.approx(loss(model).item(), rel=1e-5)
        assert torch.allclose(found[1][i], model(BATCH.inputs), atol=1e-6)


def test_slice_leaves_the_model_as_it_was(model):
    model.dropout = nn.Dropout(0.5)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    weight_slice(model.train(), random_direction(model, generator(2)), DISTANCES, loss)
    assert model.training
    assert all(torch.equal(before[n], t) for n, t in model.state_dict().items())
    assert not any(p.grad is not None for p in model.parameters())


def test_loss_falls_fastest_against_the_gradient(model):
    steepest, other = gradient_direction(model, square, BATCH), random_direction(model, generator(3))
    for direction in (steepest, other):
        assert sum(t.square().sum() for t in direction.values()).item() == pytest.approx(1, rel=1e-5)
    h = torch.tensor([-1e-2, 1e-2])
    slopes = [(weight_slice(model, d, h, loss).diff() / 2e-2).item() for d in (steepest, other)]
    gradients = torch.autograd.grad(loss(model), list(model.parameters()))
    assert slopes[0] == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item(), rel=1e-2)
    assert slopes[0] > 2 * abs(slopes[1])


def test_frozen_weights_do_not_move(model):
    model.layers[0].weight.requires_grad_(False)
    for direction in (gradient_direction(model, square, BATCH), random_direction(model, generator(4))):
        assert "layers.0.weight" not in direction
        weight_slice(model, direction, DISTANCES, loss)


def test_random_directions_are_uniform():
    """Of a direction in 3 dimensions, each coordinate is uniform between -1 and 1."""
    from scipy import stats

    point = nn.Linear(3, 1, bias=False)
    first = [random_direction(point, generator("direction", i))["weight"][0, 0].item() for i in range(500)]
    assert stats.kstest(first, stats.uniform(-1, 2).cdf).pvalue > 1e-3

"""Weights of examples and shares of gradients against autograd and the closed form of the two branches."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mesocosm.measures import gradient_share, importance_weights
from mesocosm.models import TwoBranches
from mesocosm.seeding import generator
from mesocosm.tasks import RedundantFeatures
from mesocosm.training import Population, uphill

TASK = RedundantFeatures(d=5)


def made(seed: int = 0) -> TwoBranches:
    torch.manual_seed(seed)
    model = TwoBranches.for_task(TASK, reader_std=1.0)
    model.head.data = torch.tensor([1.5, 0.4])
    return model


def logistic(model, batch):
    return F.softplus(-batch.targets * model(batch.inputs)).mean()


def norms(model, batch, importance):
    """|w_i| times the norm of the mean of importance y x_i."""
    means = (importance * batch.targets)[:, None, None] * batch.inputs
    return model.head.abs() * means.mean(0).norm(dim=-1)


def test_importance_is_the_slope_of_the_logistic_loss() -> None:
    scores = torch.randn(20, requires_grad=True)
    targets = torch.randn(20).sign()
    slope = torch.autograd.grad(F.softplus(-targets * scores).sum(), scores)[0]
    torch.testing.assert_close(importance_weights(scores.detach(), targets), -targets * slope)


def test_the_share_is_that_of_the_logistic_gradient() -> None:
    model, batch = made(), TASK.sample(30, generator(0))
    logistic(model, batch).backward()
    importance = importance_weights(model(batch.inputs).detach(), batch.targets)
    share = gradient_share(model, batch, importance, hard="hard", easy="easy")
    assert share.item() == pytest.approx((model.hard.grad.norm() / model.easy.grad.norm()).item(), rel=1e-5)


def test_the_two_mechanisms_have_closed_forms() -> None:
    """With the importance held, only the last layer's ratio changes; with weights held, only the means."""
    model, phantom, batch = made(), made(), TASK.sample(30, generator(1))
    logistic(phantom, batch).backward()
    importance = importance_weights(model(batch.inputs).detach(), batch.targets)
    real = gradient_share(model, batch, importance, hard="hard", easy="easy")
    with uphill(phantom, 0.5, only=lambda name: name == "head"):
        moved = importance_weights(phantom(batch.inputs).detach(), batch.targets)
        rescaled = gradient_share(phantom, batch, importance, hard="hard", easy="easy")
        expected = (phantom.head[1] / phantom.head[0]) / (model.head[1] / model.head[0])
        assert (rescaled / real).item() == pytest.approx(expected.abs().item(), rel=1e-5)
    reweighted = gradient_share(model, batch, moved, hard="hard", easy="easy")
    easy, hard = norms(model, batch, moved).tolist()
    assert reweighted.item() == pytest.approx(hard / easy, rel=1e-5)


def test_encoders_may_hold_many_parameters() -> None:
    model = nn.ModuleDict({"easy": nn.Linear(3, 4), "hard": nn.Linear(3, 2)})
    model.forward = lambda x: model["easy"](x).sum(1) + 10 * model["hard"](x).sum(1)
    batch = RedundantFeatures().sample(6, generator(0))._replace(inputs=torch.randn(6, 3))
    importance = torch.rand(6)
    share = gradient_share(model, batch, importance, hard="hard.", easy="easy.")
    # Every output unit has the same gradient, so norms go with the square root of their number.
    assert share.item() == pytest.approx(10 * (2 / 4) ** 0.5, rel=1e-5)


def test_it_maps_over_a_population() -> None:
    population, batch = Population(lambda: TwoBranches.for_task(TASK), range(3)), TASK.sample(12, generator(0))
    importance = torch.rand(3, 12)
    shares = population.map(lambda model, weights: gradient_share(model, batch, weights, "hard", "easy"), importance)
    alone = [gradient_share(population.replica(r), batch, importance[r], "hard", "easy") for r in range(3)]
    torch.testing.assert_close(shares, torch.stack(alone))


def test_a_name_that_no_parameter_has_is_refused() -> None:
    batch = TASK.sample(4, generator(0))
    with pytest.raises(ValueError, match="hard='second' is not legal: it must begin one of easy, hard, head"):
        gradient_share(made(), batch, torch.ones(4), hard="second", easy="easy")

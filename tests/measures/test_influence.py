import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from mesocosm.measures import influence_functions
from mesocosm.models import MLP
from mesocosm.seeding import generator

N, D, M = 14, 3, 4
X, TESTS = (torch.randn(n, D, generator=generator(n), dtype=torch.float64) for n in (N, M))
Y = torch.randn(N, generator=generator("y"), dtype=torch.float64).sign()
ONES = torch.ones(N).double()


def linear(theta):
    model = nn.Linear(D, 1, bias=False).double()
    model.weight.data.copy_(theta[None])
    return model


def scores(model):
    return model(TESTS)[:, 0]


def penalty(model):
    return model.weight.square().sum() / 2


def ridge(model, weights):
    return (weights * (model(X)[:, 0] - Y).square()).sum() / 2 + penalty(model)


def logistic(model, weights):
    return (weights * softplus(-Y * model(X)[:, 0])).sum() + penalty(model)


def fit_ridge(weights):
    return torch.linalg.solve((X * weights[:, None]).T @ X + torch.eye(D).double(), X.T @ (weights * Y))


def fit_logistic(weights):
    theta = torch.zeros(D).double()
    for _ in range(30):
        chance = torch.sigmoid(-Y * (X @ theta))
        gradient = theta - X.T @ (weights * Y * chance)
        curvature = (X * (weights * chance * (1 - chance))[:, None]).T @ X + torch.eye(D).double()
        theta = theta - torch.linalg.solve(curvature, gradient)
    return theta


@pytest.mark.parametrize(("objective", "fit"), [(ridge, fit_ridge), (logistic, fit_logistic)])
def test_influence_is_the_derivative_of_training_again(objective, fit):
    weights = ONES + 0.3 * torch.sin(torch.arange(N))
    found = influence_functions(linear(fit(weights)), objective, scores, weights)
    step = 1e-5 * torch.eye(N).double()
    for i in range(N):
        expected = TESTS @ (fit(weights + step[i]) - fit(weights - step[i])) / 2e-5
        torch.testing.assert_close(found[i], expected, rtol=1e-6, atol=1e-9)


def test_influence_of_ridge_is_leaving_one_out_up_to_its_leverage():
    found = influence_functions(linear(fit_ridge(ONES)), ridge, scores, ONES)
    leverage = (X @ torch.linalg.inv(X.T @ X + torch.eye(D).double()) * X).sum(1)
    for i in range(N):
        without = ONES.clone().index_fill_(0, torch.tensor(i), 0)
        change = TESTS @ (fit_ridge(ONES) - fit_ridge(without))
        torch.testing.assert_close(found[i] / (1 - leverage[i]), change)


def test_influence_along_the_way_adds_up_to_taking_a_point_in():
    places, shares = np.polynomial.legendre.leggauss(20)
    total = torch.zeros(M).double()
    for place, share in zip((places + 1) / 2, shares / 2):
        weights = ONES.clone().index_fill_(0, torch.tensor(5), float(place))
        total += share * influence_functions(linear(fit_logistic(weights)), logistic, scores, weights)[5]
    without = ONES.clone().index_fill_(0, torch.tensor(5), 0)
    torch.testing.assert_close(total, TESTS @ (fit_logistic(ONES) - fit_logistic(without)))


def test_any_module_has_influences_and_damping_adds_to_the_diagonal():
    torch.manual_seed(0)
    model = MLP(d_input=D, d_output=None, hidden=(2,), activation="tanh").double()
    model.layers[0].bias.requires_grad_(False)

    def objective(model, weights):
        return (weights * (model(X) - Y).square()).sum()

    found = influence_functions(model, objective, lambda m: m(TESTS), ONES, damping=50.0)
    parameters = [p for p in model.parameters() if p.requires_grad]

    def gradient(value, **keep):
        return torch.cat([g.flatten() for g in torch.autograd.grad(value, parameters, **keep)])

    slope = gradient(objective(model, ONES), create_graph=True)
    curvature = torch.stack([gradient(s, retain_graph=True) for s in slope])
    each = torch.stack([gradient((model(X)[i] - Y[i]) ** 2) for i in range(N)])
    outputs = torch.stack([gradient(model(TESTS)[j]) for j in range(M)])
    expected = -each @ torch.linalg.inv(curvature + 50 * torch.eye(len(curvature)).double()) @ outputs.T
    torch.testing.assert_close(found, expected)


def test_illegal_arguments_are_refused():
    flat = linear(torch.zeros(D).double())
    with pytest.raises(ValueError, match="damping=-1 is not legal"):
        influence_functions(flat, ridge, scores, ONES, damping=-1)
    with pytest.raises(ValueError, match="the Hessian is singular"):
        influence_functions(flat, lambda m, w: (w * m(X)[:, 0]).sum() + 0 * penalty(m), scores, ONES)

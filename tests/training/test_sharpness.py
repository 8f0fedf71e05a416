"""SAM against its formula, in populations and in a loop of one's own."""

import pytest
import torch
from torch import nn

from mesocosm.models import MLP
from mesocosm.tasks import SparseParity
from mesocosm.training import SAM, SGD, Population, hinge, train, uphill
from mesocosm.training.streams import Online

TASK = SparseParity(n=10, k=2)


def mlp() -> MLP:
    return MLP.for_task(TASK, hidden=(16,))


def last(name: str) -> bool:
    return name.startswith("layers.1.")


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("only", [None, last])
def test_a_population_equals_one_network_by_the_formula(adaptive: bool, only) -> None:
    rhos, choice = [0.0, 0.3, 1.0], {"only": only} if only else {}
    population = Population(mlp, range(3))
    assert not only or any(only(name) for name in population.weights())
    models = [population.replica(r) for r in range(3)]
    train(population, TASK, hinge, SAM(SGD(0.1), rho=rhos, adaptive=adaptive, **choice), steps=5, batch_size=8)
    for r, (model, rho) in enumerate(zip(models, rhos)):
        stream = Online(TASK, 8, [r])
        for step in range(5):
            batch = stream(step, [0], torch.device("cpu"))
            batch = batch._make(field[0] for field in batch)
            names, weights = zip(*[(n, p) for n, p in model.named_parameters() if only is None or only(n)])
            gradients = torch.autograd.grad(hinge(model, batch), weights)
            scales = [w.detach().abs() if adaptive else torch.ones_like(w) for w in weights]
            norm = torch.cat([(s * g).flatten() for s, g in zip(scales, gradients)]).norm().clamp_min(1e-12)
            moved = {n: w + rho * s * s * g / norm for n, w, s, g in zip(names, weights, scales, gradients)}
            elsewhere = dict(model.named_parameters()) | {n: w.detach().requires_grad_() for n, w in moved.items()}
            loss = hinge(lambda x, m=model, w=elsewhere: torch.func.functional_call(m, w, x), batch)
            uphill_gradients = torch.autograd.grad(loss, list(elsewhere.values()))
            with torch.no_grad():
                for name, gradient in zip(elsewhere, uphill_gradients):
                    model.get_parameter(name).sub_(0.1 * gradient)
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(population.weights()[name][r], parameter.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("adaptive", [False, True])
def test_it_goes_the_way_of_pytorch_optimizer(adaptive: bool) -> None:
    peer = pytest.importorskip("pytorch_optimizer")
    population = Population(mlp, [7])
    model = population.replica(0)
    train(population, TASK, hinge, SAM(SGD(0.1, momentum=0.9), rho=0.2, adaptive=adaptive), steps=20, batch_size=8)
    stream = Online(TASK, 8, [7])
    optimiser = peer.SAM(model.parameters(), torch.optim.SGD, rho=0.2, adaptive=adaptive, lr=0.1, momentum=0.9)
    for step in range(20):
        batch = stream(step, [0], torch.device("cpu"))
        batch = batch._make(field[0] for field in batch)
        for advance in (optimiser.first_step, optimiser.second_step):
            hinge(model, batch).backward()
            advance(zero_grad=True)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(population.weights()[name][0], parameter.detach(), atol=1e-6, rtol=0)


def test_without_a_way_uphill_it_is_the_optimiser_alone() -> None:
    plain, flat = Population(mlp, range(2)), Population(mlp, range(2))
    train(plain, TASK, hinge, SGD(0.1, momentum=0.9), steps=10, batch_size=8)
    train(flat, TASK, hinge, SAM(SGD(0.1, momentum=0.9), rho=0.0), steps=10, batch_size=8)
    assert torch.equal(plain.theta, flat.theta)


def test_uphill_moves_by_rho_and_comes_back_even_after_an_error() -> None:
    model, x = nn.Linear(3, 2), torch.randn(4, 3)
    before = [p.detach().clone() for p in model.parameters()]
    loss = model(x).square().mean()
    loss.backward()
    with uphill(model, 0.2):
        distance = torch.cat([(p - q).flatten() for p, q in zip(model.parameters(), before)]).norm()
        assert distance.item() == pytest.approx(0.2, rel=1e-4)
        assert model(x).square().mean() > loss
    with pytest.raises(ZeroDivisionError), uphill(model, 0.2):
        raise ZeroDivisionError
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before))


def test_bad_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"rho=-1.0 is not legal: it must be finite and at least 0"):
        SAM(SGD(0.1), rho=-1.0).columns(2, torch.device("cpu"))
    with pytest.raises(ValueError, match="rho has 3 values for 2 replicas"):
        SAM(SGD(0.1), rho=[0.1, 0.2, 0.3]).columns(2, torch.device("cpu"))

import math

import pytest
import torch
from scipy import integrate, stats

from mesocosm.seeding import generator
from mesocosm.tasks import GaussianPair
from mesocosm.training import Online


def log_density(x: float, mean: float) -> float:
    return float(stats.norm.logpdf(x, mean))


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_samples_are_normal_around_the_two_means_in_equal_shares(shift: float) -> None:
    task = GaussianPair(d=3, distance=2.0, shift=shift)
    batch = task.sample(20_001, generator(0))
    assert batch.targets.sum() == 1
    for side, mean in ((1, shift + 2), (-1, shift)):
        noise = batch.inputs[batch.targets == side] - mean / math.sqrt(3)
        assert stats.kstest(noise.flatten().numpy(), "norm").pvalue > 1e-3
        assert (torch.corrcoef(noise.T) - torch.eye(3)).abs().max() < 0.05
    expected = stats.norm.logpdf(batch.inputs, (shift + 2) / math.sqrt(3)).sum(1)
    expected -= stats.norm.logpdf(batch.inputs, shift / math.sqrt(3)).sum(1)
    assert batch.log_ratio.numpy() == pytest.approx(expected, abs=1e-4)


def test_the_optimum_is_the_true_log_ratio() -> None:
    task = GaussianPair(d=5, distance=3.0, shift=1.0)
    batch = task.sample(50, generator(1))
    theta, c = task.optimum[:-1].float(), task.optimum[-1].float()
    assert torch.allclose(batch.inputs @ theta - c, batch.log_ratio, atol=1e-5)
    assert task.optimum[:-1].norm().item() == pytest.approx(3)
    centred = GaussianPair(d=5, distance=3.0).optimum
    assert centred[-1].item() == pytest.approx(4.5)


@pytest.mark.parametrize("shift", [0.0, 2.0])
@pytest.mark.parametrize("tau", [(0.0, 0.0), (1.5, 2.0), (4.0, -1.0)])
def test_closed_form_and_quadrature_are_the_integral(tau: tuple[float, float], shift: float) -> None:
    task = GaussianPair(distance=3.0, shift=shift)

    def integrand(x: float, side: int) -> float:
        mean = shift + 3 if side > 0 else shift
        return math.exp(log_density(x, mean) - side * (tau[0] * x - tau[1]) / 2) / 2

    expected = sum(integrate.quad(integrand, -20, 30, args=(side,), epsabs=0, limit=200)[0] for side in (1, -1))
    assert task.exponential_loss(torch.tensor(tau).double()).item() == pytest.approx(expected, rel=1e-8)
    batch = task.quadrature()
    z = tau[0] * batch.inputs[:, 0] - tau[1]
    assert ((-batch.targets * z / 2).exp() * batch.weights).sum().item() == pytest.approx(expected, rel=1e-8)
    assert batch.weights.sum().item() == pytest.approx(1, abs=1e-14)


def test_closed_form_in_several_dimensions_is_the_mean_over_samples() -> None:
    task = GaussianPair(d=3, distance=1.0, shift=0.5)
    tau = torch.tensor([0.5, -0.2, 0.3, 0.4]).double()
    batch = task.sample(400_000, generator(2))
    losses = (-batch.targets * (batch.inputs.double() @ tau[:-1] - tau[-1]) / 2).exp()
    error = losses.std().item() / math.sqrt(len(losses))
    assert task.exponential_loss(tau).item() == pytest.approx(losses.mean().item(), abs=4 * error)
    assert task.exponential_loss(task.optimum).item() == pytest.approx(task.bhattacharyya, rel=1e-12)


def test_every_step_of_a_stream_has_equal_shares() -> None:
    batch = Online(GaussianPair(d=2), 64, [0, 1])(5, [0, 1], torch.device("cpu"))
    assert (batch.targets.sum(1) == 0).all()


def test_quadrature_is_refused_where_it_has_no_meaning() -> None:
    with pytest.raises(ValueError, match="d=2 is not legal: quadrature is for d=1"):
        GaussianPair(d=2).quadrature()
    with pytest.raises(ValueError, match="points=1 is not legal"):
        GaussianPair().quadrature(1)

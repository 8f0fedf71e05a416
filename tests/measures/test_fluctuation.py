import numpy
import pytest
import torch

from mesocosm.measures import ema_variance_factor, stationary_variance
from mesocosm.seeding import generator


@pytest.mark.parametrize(("eta", "batch", "d"), [(0.05, 8, 4), (0.4, 4, 3), (0.5, 64, 2)])
def test_stationary_variance_is_that_of_simulated_sgd(eta, batch, d):
    stream, runs, sigma = generator(0), 2000, 0.3
    w = torch.zeros(runs, d)
    squares = []
    burn_in = int(6 / eta)
    for step in range(burn_in + 200):
        x = torch.randn(runs, batch, d, generator=stream)
        residual = torch.einsum("rbd,rd->rb", x, w) - sigma * torch.randn(runs, batch, generator=stream)
        w = w - eta * torch.einsum("rbd,rb->rd", x, residual) / batch
        if step >= burn_in:
            squares.append(w.square().mean(1))
    by_run = torch.stack(squares).double().mean(0)  # Runs are independent.
    error = by_run.std() / runs**0.5
    assert abs(by_run.mean() - stationary_variance(eta, sigma**2, batch, d)) < 3.5 * error
    assert error < 0.02 * by_run.mean()


def test_stationary_variance_solves_its_fixed_point():
    """v = v E|I - eta S|^2 + eta^2 sigma^2 / b, with E S^2 of Wishart matrices found by simulation."""
    eta, batch, d = 0.3, 5, 3
    x = torch.randn(400_000, batch, d, generator=generator(1))
    s = x.mT @ x / batch
    shrink = torch.eye(d) - eta * s
    factor = (shrink @ shrink)[:, range(d), range(d)].mean().item()
    v = stationary_variance(eta, 1.0, batch, d)
    assert v == pytest.approx(eta**2 / batch / (1 - factor), rel=0.01)


def test_large_batches_leave_the_isotropic_form():
    assert stationary_variance(0.05, 0.09, 10**6, 4) * 10**6 == pytest.approx(0.05 * 0.09 / 1.95, rel=1e-4)


@pytest.mark.parametrize(("eta", "beta"), [(0.05, 0.002), (0.05, 0.5), (1.0, 0.1), (1.5, 0.3), (0.3, 1.0)])
def test_ema_factor_is_the_variance_of_a_filtered_autoregression(eta, beta):
    """The weights of past noises in both series, summed over a long past."""
    steps = numpy.arange(20_000)
    c, a = 1 - eta, 1 - beta
    weights = c**steps
    kernel = beta * a**steps
    average = numpy.convolve(weights, kernel)[: len(steps)]
    assert ema_variance_factor(eta, beta) == pytest.approx((average**2).sum() / (weights**2).sum(), rel=1e-6)


def test_published_example():
    assert ema_variance_factor(0.05, 0.002) == pytest.approx(0.0376, abs=5e-5)
    assert ema_variance_factor(0.05, 1.0) == 1


def test_simulated_average_of_the_weights():
    """EMA of an AR(1) series with the training's own update."""
    from mesocosm.training import EMA

    stream, ema = generator(2), EMA(floor=0.1, power=10.0)
    w = torch.randn(4000, generator=stream, dtype=torch.float64) / (1 - 0.8**2) ** 0.5
    average = w.clone()
    for _ in range(150):
        w = 0.8 * w + torch.randn(4000, generator=stream, dtype=torch.float64)
        ema.update(average, w, torch.tensor(10**6))
    ratio = average.var().item() / (1 / (1 - 0.8**2))
    assert ratio == pytest.approx(ema_variance_factor(0.2, 0.1), rel=3.5 * (2 / 4000) ** 0.5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stationary_variance(2.0, 1.0, 8, 4), "learning_rate=2.0 is not legal.*below 1.23077"),
        (lambda: stationary_variance(0.0, 1.0, 8, 4), "learning_rate=0.0 is not legal"),
        (lambda: ema_variance_factor(2.0, 0.1), "learning_rate=2.0 is not legal"),
        (lambda: ema_variance_factor(0.1, 0.0), "beta=0.0 is not legal"),
    ],
)
def test_illegal_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()

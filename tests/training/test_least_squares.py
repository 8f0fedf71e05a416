"""Fits against closed forms and against scipy."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.optimize import least_squares

from mesocosm.seeding import generator
from mesocosm.training import least_squares as module
from mesocosm.training import levenberg_marquardt

X = torch.linspace(0, 2, 40, dtype=torch.float64)


def decay(theta, y):
    """Two exponentials less data."""
    return theta[0] * torch.exp(-theta[1] * X) + theta[2] * torch.exp(-theta[3] * X) - y


def rosenbrock(theta):
    return torch.stack([10 * (theta[1] - theta[0] ** 2), 1 - theta[0]])


def test_linear_problems_end_at_the_least_squares_solution():
    a = torch.randn(30, 4, dtype=torch.float64, generator=generator(0))
    y = torch.randn(30, dtype=torch.float64, generator=generator(1))
    start = torch.randn(5, 4, dtype=torch.float64, generator=generator(2))
    theta, loss = levenberg_marquardt(lambda t: a @ t - y, start)
    exact = torch.linalg.lstsq(a, y[:, None]).solution[:, 0]
    torch.testing.assert_close(theta, exact.expand(5, -1), rtol=0, atol=1e-8)
    torch.testing.assert_close(loss, (a @ exact - y).square().mean().expand(5))


def test_rosenbrocks_valley_is_followed_to_its_end():
    theta, loss = levenberg_marquardt(rosenbrock, torch.tensor([[-1.2, 1.0], [4.0, -3.0]], dtype=torch.float64))
    torch.testing.assert_close(theta, torch.ones(2, 2, dtype=torch.float64))
    assert (loss < 1e-25).all()


def test_noisy_fits_reach_the_minimum_that_scipy_finds():
    y = decay(torch.tensor([1.0, 0.5, 2.0, 4.0]), 0 * X)
    y = y + 0.05 * torch.randn(40, dtype=torch.float64, generator=generator(3))
    start = torch.tensor([[0.8, 0.3, 1.5, 3.0], [1.5, 1.0, 1.0, 6.0]], dtype=torch.float64)
    theta, loss = levenberg_marquardt(decay, start, y.expand(2, -1))
    for row, found, first in zip(theta, loss, start):
        other = least_squares(lambda t: decay(torch.from_numpy(t), y).numpy(), first.numpy(), xtol=1e-12, ftol=1e-14)
        assert found.item() == pytest.approx(2 * other.cost / 40, rel=1e-8)
        np.testing.assert_allclose(row.numpy(), other.x, rtol=1e-4)


def test_starts_do_not_touch(monkeypatch):
    y = decay(torch.tensor([1.0, 0.5, 2.0, 4.0]), 0 * X)
    start = torch.rand(6, 4, dtype=torch.float64, generator=generator(4)) * 3
    start[2] = torch.nan
    together, losses = levenberg_marquardt(decay, start, y.expand(6, -1), steps=30)
    assert losses[2].isnan()
    monkeypatch.setattr(module, "MEMORY", 1)
    alone, single = levenberg_marquardt(decay, start, y.expand(6, -1), steps=30)
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-8, equal_nan=True)
    torch.testing.assert_close(losses, single, rtol=1e-6, atol=1e-24, equal_nan=True)


def test_loss_never_rises():
    y = decay(torch.tensor([1.0, 0.5, 2.0, 4.0]), 0 * X)
    start = torch.rand(6, 4, dtype=torch.float64, generator=generator(5)) * 3
    losses = [levenberg_marquardt(decay, start, y.expand(6, -1), steps=n)[1] for n in range(8)]
    assert all((later <= earlier).all() for earlier, later in pairwise(losses))
    torch.testing.assert_close(losses[0], torch.stack([decay(t, y).square().mean() for t in start]))

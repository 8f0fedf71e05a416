"""Gini's coefficient and Lorenz' curve against brute force and closed forms."""

import pytest
import torch

from mesocosm.measures import gini, lorenz_curve


def test_gini_is_the_mean_difference_over_twice_the_mean() -> None:
    amounts = torch.rand(7, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    differences = (amounts[:, :, None] - amounts[:, None, :]).abs().mean((1, 2))
    torch.testing.assert_close(gini(amounts), differences / (2 * amounts.mean(1)))


def test_gini_is_twice_the_area_above_the_curve() -> None:
    amounts = torch.rand(50, generator=torch.Generator().manual_seed(1), dtype=torch.float64) ** 3
    area = torch.trapezoid(lorenz_curve(amounts), dx=1 / 50)
    assert gini(amounts).item() == pytest.approx(1 - 2 * area.item())


@pytest.mark.parametrize(
    ("quantile", "curve", "expected"),
    [
        (lambda p: p, lambda p: p**2, 1 / 3),
        (lambda p: -torch.log1p(-p), lambda p: p + (1 - p) * torch.log1p(-p), 1 / 2),
        (lambda p: (1 - p) ** (-1 / 3), lambda p: 1 - (1 - p) ** (2 / 3), 1 / 5),
    ],
    ids=["uniform", "exponential", "pareto"],
)
def test_known_distributions(quantile, curve, expected) -> None:
    count = 100_000
    amounts = quantile((torch.arange(count, dtype=torch.float64) + 0.5) / count).flip(0)
    assert gini(amounts).item() == pytest.approx(expected, abs=2e-3)
    p = torch.linspace(0, 1, count + 1, dtype=torch.float64)[:-1]
    torch.testing.assert_close(lorenz_curve(amounts)[:-1], curve(p), atol=2e-3, rtol=0)


def test_the_extremes() -> None:
    equal, one = torch.ones(8), torch.eye(8)[3]
    assert gini(equal) == 0
    assert gini(one) == 1 - 1 / 8
    torch.testing.assert_close(lorenz_curve(equal), torch.linspace(0, 1, 9))
    assert lorenz_curve(one).tolist() == [0] * 8 + [1]
    assert gini(10 * torch.arange(5.0)) == gini(torch.arange(5.0))


def test_they_map_over_replicas() -> None:
    amounts = torch.rand(3, 9)
    torch.testing.assert_close(torch.vmap(gini)(amounts), gini(amounts))
    torch.testing.assert_close(torch.vmap(lorenz_curve)(amounts), lorenz_curve(amounts))

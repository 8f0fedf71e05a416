import math

import pytest
import torch
from scipy import integrate, stats

from mesocosm.measures import bhattacharyya, effective_samples, jensen_shannon

X = torch.linspace(-30, 30, 6001, dtype=torch.float64)
WIDTHS = torch.full_like(X, 0.01)


def log_density(mean: float, deviation: float) -> torch.Tensor:
    return torch.tensor(stats.norm.logpdf(X, mean, deviation))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (2.0, 1.0), (1.0, 2.0), (6.0, 0.5)])
def test_against_adaptive_integration_and_closed_form(mean: float, deviation: float) -> None:
    nodes = (log_density(0, 1), log_density(mean, deviation), WIDTHS)
    variances = 1 + deviation**2
    expected = math.sqrt(2 * deviation / variances) * math.exp(-(mean**2) / (4 * variances))
    assert bhattacharyya(*nodes).item() == pytest.approx(expected, rel=1e-12)

    def integrand(x: float) -> float:
        p, q = stats.norm.pdf(x), stats.norm.pdf(x, mean, deviation)
        m = (p + q) / 2
        return sum(a * math.log(a / m) for a in (p, q) if a > 0) / 2

    reference = integrate.quad(integrand, -12, 20, epsabs=1e-13, limit=400, points=[0, mean])[0]
    assert jensen_shannon(*nodes).item() == pytest.approx(reference, abs=1e-10)


def test_extremes() -> None:
    same = (log_density(0, 1), log_density(0, 1), WIDTHS)
    assert bhattacharyya(*same).item() == pytest.approx(1)
    assert jensen_shannon(*same).item() == pytest.approx(0, abs=1e-15)
    apart = (log_density(-15, 1), log_density(15, 1), WIDTHS)
    assert jensen_shannon(*apart).item() == pytest.approx(math.log(2))


def test_effective_samples() -> None:
    weights = torch.tensor([[1.0, 1, 1, 1], [1, 0, 0, 0], [3, 1, 0, 0]]).double()
    assert effective_samples(weights.log() + 700).tolist() == pytest.approx([4, 1, 1.6])

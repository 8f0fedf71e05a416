import pytest
import torch

from mesocosm.measures import degree_coefficients
from mesocosm.seeding import generator
from mesocosm.tasks import BooleanPolynomial


@pytest.fixture
def whole():
    return BooleanPolynomial(n=9, degree=4, terms=3).enumerate()


def test_coefficients_of_mixed_components_are_exact(whole):
    alpha = torch.tensor([[0.5, -1.0, 0.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    assert torch.allclose(degree_coefficients(alpha @ whole.components.T, whole.components), alpha, atol=1e-5)


def test_other_monomials_and_constants_do_not_count(whole):
    rest = whole.inputs.prod(1) + 3  # The product of all nine bits has a degree of its own.
    assert degree_coefficients(rest, whole.components).abs().max() < 1e-5
    scores = 0.3 * whole.targets + rest
    assert torch.allclose(degree_coefficients(scores, whole.components), torch.full((4,), 0.3), atol=1e-5)


def test_one_lost_monomial_lowers_its_degree_by_its_part_of_the_variance():
    task = BooleanPolynomial(n=8, degree=2, terms=2)
    batch = task.enumerate()
    sets, coefficients = task.monomials
    scores = batch.targets - coefficients[1, 0] * batch.inputs[:, sets[1][0]].prod(1)
    lost = coefficients[1, 0] ** 2 / coefficients[1].square().sum()
    assert degree_coefficients(scores, batch.components).tolist() == pytest.approx([1, 1 - lost.item()], abs=1e-5)


def test_error_of_mixed_components_follows_from_coefficients():
    """MSE = sum_k (1 - alpha_k)^2 Var(P_k), and estimates from samples come near the exact values."""
    task = BooleanPolynomial()
    batch = task.sample(50_000, generator(0))
    alpha = torch.tensor([1.0, 0.9, 0.5, 0.2, 0.0])
    scores = batch.components @ alpha
    found = degree_coefficients(scores, batch.components)
    assert (found - alpha).abs().max() < 0.05
    error = ((1 - alpha).square() * task.degree_variances).sum().item()
    assert (scores - batch.targets).square().mean().item() == pytest.approx(error, rel=0.05)

import torch

from mesocosm.measures import condition_number, gradient_profile, newton_step

MATRIX = torch.tensor([[3.0, 1.0], [1.0, 2.0]]).double()
CENTRE = torch.tensor([1.0, -2.0]).double()


def quadratic(x: torch.Tensor) -> torch.Tensor:
    return (x - CENTRE) @ MATRIX @ (x - CENTRE) / 2


def quartic(x: torch.Tensor) -> torch.Tensor:
    return quadratic(x) + (x**4).sum()


def test_profile_is_the_norm_of_finite_differences() -> None:
    start, end, shares = torch.zeros(2).double(), CENTRE, torch.tensor([0.0, 0.4, 1.0]).double()
    found = gradient_profile(quartic, start, end, shares)
    for share, norm in zip(shares, found):
        at, h = start + share * (end - start), 1e-6
        slopes = [(quartic(at + h * e) - quartic(at - h * e)) / (2 * h) for e in torch.eye(2).double()]
        torch.testing.assert_close(norm, torch.stack(slopes).norm(), rtol=1e-7, atol=1e-7)


def test_condition_number_is_that_of_the_matrix() -> None:
    torch.testing.assert_close(condition_number(quadratic, CENTRE), torch.linalg.cond(MATRIX))
    assert condition_number(lambda x: x[0] ** 2 - x[1] ** 2, CENTRE) == torch.inf


def test_newton_reaches_the_minimum_of_a_quadratic_at_once() -> None:
    start = torch.tensor([5.0, 7.0]).double()
    torch.testing.assert_close(start + newton_step(quadratic, start), CENTRE)

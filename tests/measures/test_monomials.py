import itertools

import pytest
import torch

from mesocosm.measures import monomial_correlations, monomial_strength, walsh_hadamard
from mesocosm.seeding import generator
from mesocosm.tasks.parity import cube, random_signs


def test_correlations_on_the_cube_are_fourier_coefficients():
    inputs = cube(6)
    values = torch.rand(3, 64, dtype=torch.float64, generator=generator(0))
    coefficients = walsh_hadamard(values)
    for d in (1, 2, 3):
        sets = list(itertools.combinations(range(6), d))
        expected = torch.stack([coefficients[:, sum(2**i for i in A)] for A in sets], dim=1)
        torch.testing.assert_close(monomial_correlations(values, inputs, torch.tensor(sets)), expected)


def test_a_constant_correlates_with_nothing_on_any_sample():
    inputs = random_signs(101, 5, generator(1))
    sets = torch.tensor([[0], [3]])
    assert (inputs.mean(0)[[0, 3]] != 0).all()
    torch.testing.assert_close(monomial_correlations(torch.full((101,), 0.7), inputs, sets), torch.zeros(2))


def test_strength_by_hand():
    inputs = cube(9)
    x = inputs.double().T
    values = torch.stack([0.5 + 0.3 * x[0] * x[2] + 0.1 * x[1] + 0.2 * x[5], 0.5 - 0.4 * x[7] * x[8]])
    first, off = monomial_strength(values, inputs, (0, 1, 2), 1)
    torch.testing.assert_close(first, torch.tensor([0.1 / 3, 0], dtype=torch.float64))
    torch.testing.assert_close(off, torch.tensor([0.2 / 6, 0], dtype=torch.float64))
    second, off = monomial_strength(values, inputs, (0, 1, 2), 2)
    torch.testing.assert_close(second, torch.tensor([0.3 / 3, 0], dtype=torch.float64))
    torch.testing.assert_close(off, torch.tensor([0, 0.4 / 15], dtype=torch.float64))


def test_sets_away_from_the_support_are_drawn_where_they_are_many():
    """On noise both strengths are the mean of |normal|, sqrt(2/pi) std(p) / sqrt(N)."""
    inputs = random_signs(20_000, 30, generator(2))
    values = torch.rand(20_000, generator=generator(3))
    floor = (2 / torch.pi) ** 0.5 * float(values.std()) / 20_000**0.5
    on, off = monomial_strength(values, inputs, range(8), 3, count=400)
    assert on == pytest.approx(floor, rel=0.4)
    assert off == pytest.approx(floor, rel=0.15)
    again, other = (monomial_strength(values, inputs, range(8), 3, count=400, seed=seed)[1] for seed in (0, 1))
    assert off == again != other


def test_drawn_sets_lie_outside_and_have_no_repeats():
    """p = the sum of all products of 2 coordinates outside has |correlation| 1 with every set off the support."""
    inputs = cube(12)
    pairs = torch.tensor(list(itertools.combinations(range(2, 12), 2)))
    values = inputs[:, pairs].prod(-1).sum(1)
    on, off = monomial_strength(values, inputs, (0, 1), 2, count=20)
    assert on == pytest.approx(0) and off == pytest.approx(1)


@pytest.mark.parametrize(("support", "degree"), [((0, 1), 3), ((0, 1, 2, 3), 2), ((0,), 0)])
def test_illegal_degrees_are_named(support, degree):
    with pytest.raises(ValueError, match=f"degree={degree} is not legal: it must be from 1 to"):
        monomial_strength(torch.rand(32), cube(5), support, degree)

"""Jennrich's algorithm on tensors of known factors."""

import pytest
import torch

from mesocosm.measures import jennrich
from mesocosm.seeding import generator


def factors(k=3, shape=(5, 4, 6), seed=0):
    return [torch.rand(n, k, dtype=torch.float64, generator=generator(seed, i)) for i, n in enumerate(shape)]


def compose(a, b, c):
    return torch.einsum("mk,nk,lk->mnl", a, b, c)


def unit(matrix):
    return matrix / matrix.norm(dim=0)


def order_of(found, true):
    """Which true column each found one is parallel to."""
    cosines = (unit(found).mT @ unit(true)).abs()
    assert (cosines.amax(1) > 1 - 1e-8).all()
    order = cosines.argmax(1)
    assert sorted(order.tolist()) == list(range(true.shape[1]))
    return order


@pytest.mark.parametrize("seed", range(4))
def test_factors_of_an_exact_tensor_are_found(seed):
    a, b, c = factors(seed=seed)
    found = jennrich(compose(a, b, c), 3, generator(seed, "jennrich"))
    order = order_of(found.first, a)
    assert order.tolist() == order_of(found.second, b).tolist() == order_of(found.third, c).tolist()
    assert found.residual < 1e-9
    torch.testing.assert_close(compose(*found[:3]), compose(a, b, c), rtol=0, atol=1e-9)
    for part in (found.first, found.second):
        torch.testing.assert_close(part.norm(dim=0), torch.ones(3, dtype=torch.float64))


def test_the_third_factor_may_have_fewer_rows_than_terms():
    a, b, c = factors(k=3, shape=(3, 3, 2), seed=1)
    order_of(jennrich(compose(a, b, c), 3, generator(0)).first, a)


def test_parallel_columns_of_the_third_factor_leave_the_first_undetermined():
    a, b, c = factors(seed=2)
    c[:, 1] = 2 * c[:, 0]
    found = jennrich(compose(a, b, c), 3, generator(0))
    cosines = (unit(found.first).mT @ unit(a)).abs()
    assert cosines.amax(0)[2] > 1 - 1e-6
    assert cosines.amax(0)[:2].min() < 1 - 1e-4


def test_small_noise_moves_factors_in_proportion():
    a, b, c = factors(seed=3)
    noise = torch.randn(5, 4, 6, dtype=torch.float64, generator=generator(9))
    errors = []
    for size in (1e-6, 1e-7):
        found = jennrich(compose(a, b, c) + size * noise, 3, generator(4), draws=1)
        cosines = (unit(found.first).mT @ unit(a)).abs()
        gap = unit(a)[:, cosines.argmax(1)] * (unit(a)[:, cosines.argmax(1)] * unit(found.first)).sum(0).sign()
        errors.append((gap - unit(found.first)).norm().item())
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.01)


@pytest.mark.parametrize("rank", [0, 5])
def test_illegal_ranks_are_named(rank):
    with pytest.raises(ValueError, match=f"rank={rank} is not legal: it must be from 1 to 4"):
        jennrich(compose(*factors()), rank, generator(0))

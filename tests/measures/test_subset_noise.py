from math import sqrt

import pytest
import torch
from subset_laws import characters, law, subsets, table, whole_law

from mesocosm.measures import (
    biased_fourier,
    biased_subsets,
    correlated_subsets,
    datamodel_r2_from_pairs,
    degree_weights,
    fit_degree_weights,
    noise_stability,
    stability_polynomial,
    walsh_hadamard,
)
from mesocosm.seeding import generator
from mesocosm.tasks.parity import cube

RHOS = torch.tensor([0.1, 0.3, 0.5, 0.7, 0.9], dtype=torch.float64)


def index_of(masks):
    return (masks.long() << torch.arange(masks.shape[1])).sum(1)


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.8, 1.0])
def test_correlated_subsets_have_the_right_moments(rho):
    masks = biased_subsets(40_000, 3, 0.2, generator(1))
    partners = correlated_subsets(masks, rho, 0.2, generator(2))
    assert (partners.double().mean(0) - 0.2).abs().max() < 4 * sqrt(0.16 / 40_000)
    correlation = characters(masks, 0.2).T @ characters(partners, 0.2) / 40_000
    bound = 4 * sqrt(correlation.new_tensor(0.2**-2) / 40_000)
    assert (correlation - rho * torch.eye(3)).abs().max() < bound
    if rho == 1:
        assert torch.equal(masks, partners)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_stability_polynomial_equals_enumeration_of_pairs(p):
    f, masks = table(3), subsets(3).double()
    f_centred = f - (f * law(3, p)).sum(1, keepdim=True)
    for rho in (0.0, 0.4, 1.0):
        again = masks[None] * p + (1 - masks[None]) * (1 - p)
        step = (rho * (masks[:, None] == masks[None]) + (1 - rho) * again).prod(2)  # [from, to]
        expected = torch.einsum("bx,x,xy,by->b", f_centred, law(3, p), step, f_centred)
        found = stability_polynomial(degree_weights(biased_fourier(f, p)), torch.tensor([rho]))
        torch.testing.assert_close(found[:, 0], expected)


def test_noise_stability_of_the_whole_law_of_pairs_is_exact():
    # At rho = 1/2 a bit of a partner differs with probability 1/4: each set of flips as often as `whole_law` says.
    flips = whole_law(3, 0.25)
    first = torch.arange(8).repeat_interleave(len(flips))
    second = first ^ flips.repeat(8)
    f = table(3) + 7
    found = noise_stability(f.T[first][None], f.T[second][None])
    exact = stability_polynomial(degree_weights(biased_fourier(f)), torch.tensor([0.5]))
    torch.testing.assert_close(found[0], exact[:, 0])
    torch.testing.assert_close(noise_stability(f[0][first][None], f[0][second][None]), found[:, 0])


def test_fit_recovers_the_weights_of_a_polynomial():
    weights = torch.tensor([[0.0, 1.0], [3.0, 0.0], [0.2, 0.5], [0.0, 2.0]], dtype=torch.float64)
    rhos = torch.cat((RHOS, torch.ones(1)))
    stability = rhos[:, None] ** torch.arange(1, 5) @ weights
    torch.testing.assert_close(fit_degree_weights(rhos, stability), weights, atol=1e-7, rtol=0)
    torch.testing.assert_close(fit_degree_weights(rhos, stability[:, 1]), weights[:, 1], atol=1e-7, rtol=0)
    stability[-1] += 0.7
    with_jump = torch.cat((weights, torch.full((1, 2), 0.7)))
    torch.testing.assert_close(fit_degree_weights(rhos, stability, jump=True), with_jump, atol=1e-6, rtol=0)


def test_pairs_tell_how_linear_a_function_is():
    n, count = 8, 20_000
    x = cube(n).double()
    linear = x @ torch.randn(n, generator=generator(5), dtype=torch.float64)
    parity = x[:, :6].prod(1)
    mixed = linear / linear.std() + 0.8 * x[:, 0] * x[:, 1] + 100
    f = torch.stack((linear, parity, mixed, torch.ones(2**n)))
    random = generator(6)
    first = [biased_subsets(count, n, 0.5, random) for _ in RHOS]
    second = [correlated_subsets(masks, float(rho), 0.5, random) for masks, rho in zip(first, RHOS)]
    outputs, partners = (torch.stack([f.T[index_of(masks)] for masks in side]) for side in (first, second))
    found = datamodel_r2_from_pairs(RHOS, outputs, partners)
    weights = degree_weights(walsh_hadamard(f))
    true = weights[:, 1] / weights[:, 1:].sum(1)
    assert found.r2[0] > 0.95 and found.r2[1] < 0.1
    assert found.r2[2] == pytest.approx(float(true[2]), abs=0.1) and 0.5 < true[2] < 0.7
    assert found.residual[2] == pytest.approx(0.64, abs=0.15)
    assert found.r2[3].isnan()
    with_jump = datamodel_r2_from_pairs(RHOS, outputs, partners, jump=True).weights[:, 1]
    sample = torch.cat((outputs, partners))[..., 1]  # The jump makes up for what degree 4 leaves of the variance.
    assert with_jump[-1] > 0.2 and float(with_jump.sum()) == pytest.approx(float(sample.var(unbiased=False)), abs=1e-9)
    alone = datamodel_r2_from_pairs(RHOS, outputs[..., 2], partners[..., 2])
    torch.testing.assert_close(alone.r2, found.r2[2])


def test_illegal_arguments_are_refused():
    with pytest.raises(ValueError, match=r"rho=1\.5"):
        correlated_subsets(subsets(2), 1.5, 0.5, generator(0))
    with pytest.raises(ValueError, match="p=0"):
        correlated_subsets(subsets(2), 0.5, 0, generator(0))
    with pytest.raises(ValueError, match="degree=6"):
        fit_degree_weights(RHOS, RHOS, degree=6)

import itertools
from math import sqrt

import pytest
import torch
from subset_laws import characters, law, subsets, table, whole_law

from mesocosm.measures import (
    biased_fourier,
    biased_subsets,
    degree_weights,
    group_influence,
    harmonic_datamodel,
    linear_datamodel,
    pair_coefficients,
    walsh_hadamard,
)
from mesocosm.seeding import generator
from mesocosm.tasks.parity import cube


def test_biased_subsets_have_the_right_shares():
    masks = biased_subsets(20_000, 5, 0.2, generator(0))
    assert masks.dtype == torch.bool
    assert (masks.double().mean(0) - 0.2).abs().max() < 4 * sqrt(0.2 * 0.8 / 20_000)


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_biased_fourier_equals_the_definition_and_expands_f(p):
    f, coefficients = table(5), biased_fourier(table(5), p)
    phi = characters(subsets(5), p)
    basis = torch.stack([phi[:, [i for i in range(5) if t >> i & 1]].prod(1) for t in range(32)])
    torch.testing.assert_close(coefficients, (f * law(5, p)) @ basis.T)
    torch.testing.assert_close(coefficients @ basis, f)
    torch.testing.assert_close(degree_weights(coefficients).sum(-1), (f.square() * law(5, p)).sum(-1))


def test_biased_fourier_at_one_half_is_the_walsh_hadamard_transform():
    signs = torch.tensor([(-1) ** t.bit_count() for t in range(64)])
    torch.testing.assert_close(biased_fourier(table(6)), walsh_hadamard(table(6)) * signs)


def test_degree_weights_of_a_known_function():
    x = cube(4).double()
    f = 2 + 3 * x[:, 0] - x[:, 2] + 0.5 * x[:, 1] * x[:, 3] + 4 * x.prod(1)
    torch.testing.assert_close(degree_weights(walsh_hadamard(f)), torch.tensor([4, 10, 0.25, 0, 16]).double())


@pytest.mark.parametrize("p", [0.5, 0.25])
@pytest.mark.parametrize("fit", [linear_datamodel, harmonic_datamodel])
def test_datamodel_of_all_subsets_is_the_degree_one_part(p, fit):
    f, coefficients = table(5), biased_fourier(table(5), p)
    rows = whole_law(5, p)
    masks, outputs = subsets(5)[rows], f.T[rows]
    found = fit(masks, outputs, p)
    singles = coefficients[:, [2**i for i in range(5)]].T
    torch.testing.assert_close(found.theta, singles)
    torch.testing.assert_close(found.intercept, coefficients[:, 0])
    torch.testing.assert_close(found.residual(masks, outputs), degree_weights(coefficients)[:, 2:].sum(1))
    alone = torch.stack([group_influence(coefficients, [i], p) for i in range(5)])
    torch.testing.assert_close(found.influences, alone)
    torch.testing.assert_close(fit(masks, outputs[:, 1], p).theta, singles[:, 1])


def test_datamodel_of_large_subsets_only_is_something_else():
    large = subsets(6).sum(1) > 3
    f = table(6)
    found = linear_datamodel(subsets(6)[large], f.T[large])
    assert (found.theta - biased_fourier(f)[:, [2**i for i in range(6)]].T).abs().max() > 0.05


def test_penalties_shrink_as_for_an_orthonormal_design():
    masks, f = subsets(6), table(6)
    plain = linear_datamodel(masks, f.T).theta
    torch.testing.assert_close(linear_datamodel(masks, f.T, ridge=0.5).theta, plain / 1.5)
    soft = plain.sign() * (plain.abs() - 0.05).clamp_min(0)
    torch.testing.assert_close(linear_datamodel(masks, f.T, lasso=0.05).theta, soft)
    torch.testing.assert_close(linear_datamodel(masks, f.T, lasso=0.05, ridge=0.5).theta, soft / 1.5)
    torch.testing.assert_close(linear_datamodel(masks, f[0], lasso=0.05).theta, soft[:, 0])


def test_fewer_subsets_than_points_are_interpolated_by_the_shortest_theta():
    masks = biased_subsets(5, 12, 0.5, generator(3))
    f = torch.randn(5, generator=generator(4), dtype=torch.float64)
    found = linear_datamodel(masks, f)
    torch.testing.assert_close(found.predict(masks), f)
    phi = characters(masks, 0.5)
    torch.testing.assert_close(found.theta, torch.linalg.pinv(phi - phi.mean(0)) @ (f - f.mean()))


@pytest.mark.parametrize("p", [0.5, 0.25])
def test_pair_coefficients_of_all_subsets_are_exact(p):
    f, coefficients = table(4), biased_fourier(table(4), p)
    rows = whole_law(4, p)
    found = pair_coefficients(subsets(4)[rows], f.T[rows] - biased_fourier(f, p)[:, 0], p)
    for i, j in itertools.product(range(4), repeat=2):
        expected = coefficients[:, 2**i + 2**j] if i != j else torch.zeros(2).double()
        torch.testing.assert_close(found[i, j], expected)
    torch.testing.assert_close(pair_coefficients(subsets(4)[rows], f[1][rows], p), found[..., 1])


@pytest.mark.parametrize("p", [0.5, 0.3])
@pytest.mark.parametrize("group", [[1], [0, 3], [4, 1, 2], [0, 1, 2, 3, 4]])
def test_group_influence_equals_enumeration(p, group):
    f, inside = table(5), subsets(5)[:, group]
    expected = torch.zeros(2).double()
    for sign, rows in ((1, inside.all(1)), (-1, (~inside).all(1))):
        share = law(5, p) * rows
        expected += sign * (f * share).sum(1) / share.sum()
    torch.testing.assert_close(group_influence(biased_fourier(f, p), group, p), expected)


def test_influences_of_two_points_add_up_and_those_of_three_need_not():
    coefficients = biased_fourier(table(5))
    alone = [group_influence(coefficients, [i]) for i in range(3)]
    torch.testing.assert_close(group_influence(coefficients, [0, 1]), alone[0] + alone[1])
    assert (group_influence(coefficients, [0, 1, 2]) - sum(alone)).abs().min() > 0.01
    linear = biased_fourier(subsets(5).double() @ torch.arange(5.0).double(), 0.3)
    torch.testing.assert_close(group_influence(linear, range(5), 0.3), torch.tensor(10.0).double())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: biased_subsets(2, 3, 1.0, generator(0)), "p=1.0"),
        (lambda: linear_datamodel(subsets(2), torch.ones(4), ridge=-1.0), "ridge=-1.0"),
        (lambda: biased_fourier(torch.ones(3)), "last axis of 3"),
        (lambda: group_influence(torch.ones(8), [0, 0]), r"group=\[0, 0\]"),
        (lambda: group_influence(torch.ones(8), [3]), "from 0 to 2"),
    ],
)
def test_illegal_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()

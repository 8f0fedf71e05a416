import math

import pytest
import torch

from mesocosm.seeding import generator
from mesocosm.tasks import BooleanPolynomial


def value(task, bits, degree):
    """One component at one input, from the definition."""
    sets, coefficients = task.monomials
    return sum(
        c * math.prod(bits[i] for i in chosen)
        for chosen, c in zip(sets[degree - 1].tolist(), coefficients[degree - 1].tolist())
    )


def test_components_are_sums_of_monomials():
    task = BooleanPolynomial(n=7, degree=3, terms=2)
    batch = task.enumerate()
    for bits, target, components in zip(batch.inputs.tolist(), batch.targets.tolist(), batch.components.tolist()):
        expected = [value(task, bits, degree) for degree in (1, 2, 3)]
        assert components == pytest.approx(expected, abs=1e-6)
        assert target == pytest.approx(sum(expected), abs=1e-6)


@pytest.mark.parametrize("settings", [{"n": 8}, {"n": 6, "degree": 6, "terms": 1}, {"n": 9, "degree": 2, "terms": 9}])
def test_variances_and_orthogonality_are_exact(settings):
    task = BooleanPolynomial(**settings)
    batch = task.enumerate()
    gram = batch.components.T @ batch.components / len(batch.inputs)
    assert torch.allclose(gram, torch.diag(task.degree_variances), atol=1e-6)
    assert batch.targets.var(correction=0).item() == pytest.approx(task.variance, rel=1e-5)
    assert batch.targets.mean().item() == pytest.approx(0, abs=1e-6)


def test_monomials_are_distinct_and_coefficients_normalised():
    task = BooleanPolynomial(n=5, degree=3, terms=5)
    for degree, sets in enumerate(task.monomials.sets, start=1):
        assert sets.shape == (5, degree)
        assert (sets.diff(dim=1) > 0).all()
        assert len(sets.unique(dim=0)) == 5
    variances = [BooleanPolynomial(table=table).variance for table in range(300)]
    # The mean of 20 squared normals has mean 1 and variance 2/20.
    assert sum(variances) / 300 == pytest.approx(1, abs=3.3 * math.sqrt(0.1 / 300))


def test_samples_are_fair_bits_with_the_polynomials_value():
    task = BooleanPolynomial()
    batch = task.sample(20_000, generator(0))
    assert batch.inputs.mean(0).abs().max() < 4.5 / math.sqrt(20_000)
    assert torch.allclose(batch.components.sum(1), batch.targets)
    bits = batch.inputs[17].tolist()
    assert batch.components[17].tolist() == pytest.approx([value(task, bits, k) for k in range(1, 6)], abs=1e-6)
    assert batch.targets.var().item() == pytest.approx(task.variance, rel=0.05)
    assert torch.equal(batch.targets, task.sample(20_000, generator(0)).targets)


def test_batch_is_what_the_task_declares():
    task = BooleanPolynomial(n=10, degree=4)
    batch = task.sample(6, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (6, *task.input_shape)
    assert batch.targets.shape == batch.weights.shape == (6, *task.output_shape)
    assert batch.components.shape == (6, 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 3}, "terms=4 is not legal: n=3 bits have only 3 monomials of degree 1"),
        ({"n": 4, "degree": 5, "terms": 1}, "n=4 bits have only 0 monomials of degree 5"),
        ({"degree": 0}, "degree=0 is not legal"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        BooleanPolynomial(**settings)


def test_too_many_bits_are_not_enumerated():
    with pytest.raises(ValueError, match="n=24 is not legal"):
        BooleanPolynomial().enumerate()

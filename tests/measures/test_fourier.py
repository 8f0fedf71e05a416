import itertools
from fractions import Fraction
from math import prod

import pytest
import torch

from mesocosm import models
from mesocosm.measures import (
    majority_fourier,
    parity_gradient_of_relu_neuron,
    parity_gradients,
    population_gradient,
    walsh_hadamard,
)
from mesocosm.measures.fourier import parities
from mesocosm.seeding import generator
from mesocosm.tasks.parity import cube

GAPS = {
    (7, 2): Fraction(5),
    (9, 4): Fraction(5, 3),
    (11, 4): Fraction(7, 3),
    (13, 4): Fraction(3),
    (13, 6): Fraction(7, 5),
}


def relu_neuron(parameters, inputs):
    return (inputs @ parameters["w"]).relu()


def relu_network(parameters, inputs):
    return (inputs @ parameters["w"].T + parameters["b"]).relu() @ parameters["a"]


def test_walsh_hadamard_equals_the_definition():
    values = torch.randn(3, 32, generator=generator(0), dtype=torch.float64)
    inputs = cube(5).double()
    for s in range(32):
        members = [i for i in range(5) if s >> i & 1]
        expected = (values * inputs[:, members].prod(dim=1)).mean(dim=1)
        torch.testing.assert_close(walsh_hadamard(values)[:, s], expected)


def test_walsh_hadamard_keeps_the_norm_and_is_its_own_inverse():
    values = torch.randn(2, 2, 1024, generator=generator(1), dtype=torch.float64)
    coefficients = walsh_hadamard(values)
    torch.testing.assert_close(coefficients.square().sum(-1), values.square().mean(-1))
    torch.testing.assert_close(walsh_hadamard(coefficients) * 1024, values)


@pytest.mark.parametrize("n", [1, 3, 5, 9])
def test_majority_fourier_equals_enumeration(n):
    coefficients = walsh_hadamard(cube(n).double().sum(1).sign())
    for s in range(2**n):
        assert float(majority_fourier(n, s.bit_count())) == pytest.approx(float(coefficients[s]), abs=1e-12)


@pytest.mark.parametrize(("n", "k"), GAPS)
def test_neuron_gradient_equals_enumeration(n, k):
    signs = 1 - 2 * torch.randint(2, (n,), generator=generator(n, k)).double()
    inputs = cube(n).double()
    gradient = population_gradient(relu_neuron, {"w": signs}, inputs, parities(inputs, torch.arange(k)[None]))["w"][0]
    assert (parity_gradient_of_relu_neuron(signs, k) - gradient).abs().max() <= 1e-9


@pytest.mark.parametrize(("n", "k"), GAPS)
def test_fourier_gap_is_exact(n, k):
    gap = abs(majority_fourier(n, k - 1) / majority_fourier(n, k + 1))
    assert gap == Fraction(n - k, k - 1) == GAPS[n, k]


def test_neuron_gradient_broadcasts_over_replicas():
    signs = 1 - 2 * torch.randint(2, (4, 3, 9), generator=generator(0)).double()
    together = parity_gradient_of_relu_neuron(signs, 4)
    assert torch.equal(together[2, 1], parity_gradient_of_relu_neuron(signs[2, 1], 4))


def test_population_gradient_equals_autograd_of_the_loss_written_out():
    n, draws = 5, generator(3)
    parameters = {
        name: torch.randn(shape, generator=draws, dtype=torch.float64)
        for name, shape in (("w", (4, n)), ("b", 4), ("a", 4))
    }
    sets = torch.tensor([[0, 1], [1, 4], [2, 3]])
    inputs = cube(n).double()
    gradients = population_gradient(relu_network, parameters, inputs, parities(inputs, sets))
    for row, members in enumerate(sets.tolist()):
        leaves = {name: p.clone().requires_grad_() for name, p in parameters.items()}
        losses = [
            -prod(x[i] for i in members) * relu_network(leaves, torch.tensor(x, dtype=torch.float64))
            for x in itertools.product((-1.0, 1.0), repeat=n)
        ]
        torch.stack(losses).mean().backward()
        for name, leaf in leaves.items():
            torch.testing.assert_close(gradients[name][row], leaf.grad)


def test_parity_gradients_are_those_of_the_trainable_parameters():
    model = models.MLP(d_input=6, d_output=None, hidden=(5, 4))
    model.layers[1].requires_grad_(False)
    inputs, sets = cube(6), torch.tensor([[0, 1, 2], [1, 3, 5]])
    gradients = parity_gradients(model, inputs, sets)
    for row, labels in enumerate(parities(inputs, sets)):
        trained = [p for p in model.parameters() if p.requires_grad]
        loss = -(labels * model(inputs)).mean()
        expected = torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss, trained)])
        torch.testing.assert_close(gradients[row], expected)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: walsh_hadamard(torch.zeros(6)), "last axis of 6.*power of two"),
        (lambda: majority_fourier(4, 1), "n=4 is not legal.*odd"),
        (lambda: majority_fourier(5, 6), "d=6 is not legal.*from 0 to n=5"),
        (lambda: parity_gradient_of_relu_neuron(torch.ones(7), 3), "k=3 is not legal.*even"),
        (lambda: parity_gradient_of_relu_neuron(torch.ones(8), 4), "n=8 is not legal.*odd"),
        (lambda: parity_gradient_of_relu_neuron(torch.full((7,), 0.5), 2), "signs is not legal"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

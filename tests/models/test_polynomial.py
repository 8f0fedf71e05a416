"""Each net against its formula, and as an exact parity."""

from itertools import product
from math import prod

import pytest
import torch
from torch import Tensor, nn

from mesocosm.models.polynomial import DisjointPolyNet, PolyNet, SingleNeuron

CUBE = torch.tensor(list(product([-1.0, 1.0], repeat=6)))


def neuron(degree: int, activation: str) -> SingleNeuron:
    """The neuron that adds the first `degree` coordinates."""
    model = SingleNeuron(d_input=6, degree=degree, activation=activation)
    nn.init.zeros_(model.neuron.weight)[0, :degree] = 1
    nn.init.zeros_(model.neuron.bias)
    return model


def activation_of(model: SingleNeuron, z: Tensor) -> Tensor:
    """s(z), through an input whose first coordinate is z."""
    nn.init.zeros_(model.neuron.weight)[0, 0] = 1
    return model(torch.cat([z[:, None], torch.zeros(len(z), 5)], 1))


def test_polynet_is_its_formula() -> None:
    torch.manual_seed(0)
    model = PolyNet(d_input=6, degree=4)
    weight, bias = model.factors.weight, model.factors.bias
    expected = torch.stack([prod(w @ x + b for w, b in zip(weight, bias)) for x in CUBE])
    torch.testing.assert_close(model(CUBE), expected)


def test_disjoint_polynet_is_its_formula_and_starts_uniform() -> None:
    torch.manual_seed(0)
    model = DisjointPolyNet(d_input=6, degree=3)
    expected = torch.stack([prod(model.weight[i] @ x[2 * i : 2 * i + 2] for i in range(3)) for x in CUBE])
    torch.testing.assert_close(model(CUBE), expected)
    weight = DisjointPolyNet(d_input=2000, degree=2).weight
    assert weight.abs().max().item() == pytest.approx(1000**-0.5, rel=1e-2)


def test_gradients_survive_a_factor_of_zero() -> None:
    model = DisjointPolyNet(d_input=3, degree=3)
    nn.init.constant_(model.weight, 2.0)
    model(torch.tensor([[0.0, 1.0, 1.0]])).backward()
    assert model.weight.grad.flatten().tolist() == [0.0, 0.0, 0.0]
    model.zero_grad()
    model.weight.data[0] = 0.0
    model(torch.tensor([[1.0, 1.0, 1.0]])).backward()
    assert model.weight.grad.flatten().tolist() == [4.0, 0.0, 0.0]


@pytest.mark.parametrize("activation", ["zigzag", "infinite-zigzag", "sinusoid"])
@pytest.mark.parametrize("degree", [1, 2, 3, 4, 5])
def test_a_neuron_can_be_a_parity(activation: str, degree: int) -> None:
    with torch.no_grad():
        torch.testing.assert_close(neuron(degree, activation)(CUBE), CUBE[:, :degree].prod(-1), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_the_zigzags_are_straight_between_their_points() -> None:
    z = torch.tensor([3.0, 2.5, 2.0, 1.0, 0.0, -1.0, -2.0, -3.0])
    expected = torch.tensor([1.0, 0.5, 0.0, -1.0, 0.0, 1.0, 0.0, -1.0])
    for activation in ("zigzag", "infinite-zigzag"):
        torch.testing.assert_close(activation_of(neuron(3, activation), z), expected)
    outside = torch.tensor([4.0, 5.0, 9.0, -4.0, -5.0])
    triangle, zigzag = (activation_of(neuron(3, a), outside) for a in ("infinite-zigzag", "zigzag"))
    torch.testing.assert_close(triangle, torch.tensor([0.0, -1.0, -1.0, 0.0, 1.0]))
    torch.testing.assert_close(zigzag, torch.tensor([2.0, 3.0, 7.0, -2.0, -3.0]))
    torch.testing.assert_close(activation_of(neuron(2, "zigzag"), outside), torch.tensor([3.0, 4.0, 8.0, 3.0, 4.0]))


def test_the_sinusoid_is_its_formula() -> None:
    z = torch.linspace(-5, 5, 21)
    with torch.no_grad():
        torch.testing.assert_close(activation_of(neuron(1, "sinusoid"), z), torch.sin(torch.pi / 2 * z))

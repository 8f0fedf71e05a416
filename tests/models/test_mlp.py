"""The MLP against its formula and its start."""

import math

import pytest
import torch

from mesocosm.models.mlp import MLP


@pytest.mark.parametrize(
    ("activation", "function"),
    [
        ("relu", lambda z: z * (z > 0)),
        ("gelu", lambda z: z * (1 + torch.erf(z / math.sqrt(2))) / 2),
        ("tanh", torch.tanh),
        ("quadratic", lambda z: z * z),
        ("cubic", lambda z: z * z * z),
        ("quartic", lambda z: z * z * z * z),
    ],
)
def test_it_is_its_formula(activation: str, function) -> None:
    torch.manual_seed(0)
    model = MLP(d_input=12, hidden=(5,), d_output=None, activation=activation)
    first, second = model.layers
    x = torch.randn(4, 3, 4)
    hidden = function(x.reshape(4, 12) @ first.weight.T + first.bias)
    torch.testing.assert_close(model(x), (hidden @ second.weight.T + second.bias)[:, 0])


@pytest.mark.parametrize("gain", [1.0, 3.0])
def test_weights_start_uniform_times_the_gain(gain: float) -> None:
    torch.manual_seed(0)
    layer = MLP(d_input=100, hidden=(400,), d_output=10, init_gain=gain).layers[0]
    assert layer.weight.abs().max().item() == pytest.approx(gain / 10, rel=1e-3)
    assert layer.weight.std().item() == pytest.approx(gain / 10 / math.sqrt(3), rel=0.02)
    assert layer.bias.abs().max().item() <= 0.1

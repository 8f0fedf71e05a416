"""The residual MLP: what it computes, its options, and what every model promises."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mesocosm.models import ResidualMLP
from mesocosm.tasks import BooleanPolynomial, FlipFlop
from mesocosm.training import scaled_layers

TASK = BooleanPolynomial(n=6, degree=2, terms=2)


def small(**options) -> ResidualMLP:
    return ResidualMLP.for_task(TASK, d_model=4, d_hidden=5, n_layers=3, **options)


def standardised(x: Tensor, ln: nn.Module) -> Tensor:
    x = x - x.mean(1, keepdim=True)
    return x / (x.square().mean(1, keepdim=True) + 1e-5).sqrt() * ln.weight + ln.bias


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("residual", [True, False])
def test_its_blocks_add_two_linear_layers_of_the_normed_stream(norm: bool, residual: bool) -> None:
    torch.manual_seed(0)
    model, x = small(norm=norm, residual=residual), torch.randn(7, 6)
    y = x @ model.embed.weight.T + model.embed.bias
    for block in model.blocks:
        z = standardised(y, block.ln) if norm else y
        hidden = (z @ block.fc_in.weight.T + block.fc_in.bias).clamp_min(0)
        added = hidden @ block.fc_out.weight.T + block.fc_out.bias
        y = y + added if residual else added
    y = standardised(y, model.ln_final) if norm else y
    expected = y @ model.unembed.weight[0] + model.unembed.bias
    torch.testing.assert_close(model(x), expected)


def test_sizes_come_from_the_task_and_the_hidden_layer_is_twice_as_wide() -> None:
    assert small()(torch.randn(2, 6)).shape == (2,)
    model = ResidualMLP(d_input=12, d_output=3, d_model=4, activation="gelu")
    assert model(torch.randn(2, 3, 4)).shape == (2, 3)
    assert model.blocks[0].fc_in.weight.shape == (8, 4)
    assert len(model.blocks) == 8


@pytest.mark.parametrize("residual", [True, False])
def test_a_path_is_the_network_of_its_layers(residual: bool) -> None:
    model, x = small(residual=residual), torch.randn(5, 6)
    with scaled_layers(model.blocks, torch.tensor([1.0, 0.0, 1.0])):
        path = model(x)
    model.blocks = nn.ModuleList([model.blocks[0], model.blocks[2]])
    torch.testing.assert_close(path, model(x))


@pytest.mark.parametrize("options", [{}, {"norm": False, "residual": False}])
def test_a_mapped_stack_equals_its_replicas_and_compiles_to_one_graph(options: dict) -> None:
    torch.compiler.reset()
    models, inputs = [small(**options) for _ in range(3)], torch.randn(3, 4, 6)
    alone = torch.stack([model(x) for model, x in zip(models, inputs)])
    alone.square().sum().backward()
    parameters, buffers = stack_module_state(models)

    def forward(parameters: dict, buffers: dict, x: Tensor) -> Tensor:
        return vmap(lambda p, b, x: functional_call(models[0], (p, b), x), randomness="error")(parameters, buffers, x)

    compiled = torch.compile(forward, fullgraph=True, dynamic=False, backend="aot_eager")
    for run in (forward, compiled):
        outputs = run(parameters, buffers, inputs)
        torch.testing.assert_close(outputs, alone)
        gradients = torch.autograd.grad(outputs.square().sum(), list(parameters.values()))
        for name, gradient in zip(parameters, gradients):
            torch.testing.assert_close(gradient, torch.stack([model.get_parameter(name).grad for model in models]))


def test_what_does_not_fit_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"ResidualMLP needs .* but FlipFlop has tokens"):
        ResidualMLP.for_task(FlipFlop(length=8))
    for options, message in (
        ({"n_layers": 0}, "n_layers=0 is not legal: it must be an integer, at least 1"),
        ({"d_hidden": 0}, "d_hidden=0 is not legal"),
        ({"d_output": 0}, "d_output=0 is not legal"),
        ({"activation": "tanh"}, "activation='tanh' is not legal: it must be one of relu, gelu"),
    ):
        with pytest.raises(ValueError, match=message):
            ResidualMLP(**{"d_input": 4, "d_output": None} | options)

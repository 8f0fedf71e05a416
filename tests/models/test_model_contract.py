"""What every model promises: it maps over replicas, compiles, fits itself to a task, refuses in one sentence."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap

from mesocosm.models import (
    CNN,
    GRU,
    LSTM,
    MLP,
    DisjointPolyNet,
    PolyNet,
    RecencyHead,
    ResNet,
    SingleNeuron,
    Transformer,
)
from mesocosm.models.dropout import Dropout
from mesocosm.pieces import pieces
from mesocosm.tasks import FlipFlop
from mesocosm.tasks.base import Task

R, B, T, V = 3, 4, 6, 5


@dataclass(frozen=True, kw_only=True)
class Parity(Task):
    input_shape = (6,)
    output_shape = ()


@dataclass(frozen=True, kw_only=True)
class Images(Task):
    input_shape = (8, 8)
    output_shape = (10,)


@dataclass(frozen=True, kw_only=True)
class Language(Task):
    input_shape = (T,)
    output_shape = (T, V)
    tokens = tuple("abcde")


@dataclass(frozen=True, kw_only=True)
class Long(Language):
    """Long enough for fused attention."""

    input_shape = (40,)
    output_shape = (40, V)


def transformer(task: Task = Language(), **options) -> Callable[[], nn.Module]:
    return lambda: Transformer.for_task(task, d_model=8, n_heads=2, n_layers=1, **options)


MODELS: dict[str, tuple[Task, Callable[[], nn.Module]]] = {
    "mlp": (Parity(), lambda: MLP.for_task(Parity(), hidden=(7, 5))),
    "mlp-classes": (Images(), lambda: MLP.for_task(Images(), activation="gelu", init_gain=2.0)),
    "linear": (Images(), lambda: MLP.for_task(Images(), hidden=())),
    "poly-net": (Parity(), lambda: PolyNet.for_task(Parity())),
    "disjoint-poly-net": (Parity(), lambda: DisjointPolyNet.for_task(Parity(), degree=2)),
    "zigzag": (Parity(), lambda: SingleNeuron.for_task(Parity())),
    "infinite-zigzag": (Parity(), lambda: SingleNeuron.for_task(Parity(), activation="infinite-zigzag")),
    "sinusoid": (Parity(), lambda: SingleNeuron.for_task(Parity(), activation="sinusoid")),
    "cnn": (Images(), lambda: CNN.for_task(Images(), channels=4)),
    "res-net": (Images(), lambda: ResNet.for_task(Images(), width=8)),
    "recency-head": (FlipFlop(length=T + 2), lambda: RecencyHead(length=T + 2)),
    "transformer": (Language(), transformer()),
    "rotary-swiglu": (Language(), transformer(positions="rotary", activation="swiglu", norm="post")),
    "alibi-tied": (Language(), transformer(positions="alibi", tied=True)),
    "sinusoidal-encoder": (Language(), transformer(positions="sinusoidal", causal=False, activation="relu")),
    "long-transformer": (Long(), transformer(Long())),
    "attention-only": (Language(), transformer(positions="relative", d_mlp=0, bias=False, weight_std=0.1)),
    "long-hard-alibi": (Long(), transformer(Long(), positions="hard-alibi", window=9)),
    "dropout": (Language(), transformer(dropout=0.2, embedding_dropout=0.1)),
    "attention-dropout": (Language(), transformer(attention_dropout=0.3)),
}
COMPILED = ["long-hard-alibi", "mlp-classes", "zigzag", "cnn", "rotary-swiglu", "alibi-tied", "attention-dropout"]
COMPILED += ["attention-only"]


def inputs_of(task: Task) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if task.tokens:
        return torch.randint(len(task.tokens), (R, B, *task.input_shape), generator=generator)
    return torch.randn(R, B, *task.input_shape, generator=generator)


def replicas(make: Callable[[], nn.Module]) -> list[nn.Module]:
    models = []
    for seed in range(R):
        torch.manual_seed(seed)
        models.append(make())
        for i, dropout in enumerate(m for m in models[-1].modules() if isinstance(m, Dropout)):
            dropout.keyed = True
            dropout.key.fill_(100 * seed + i)
    return models


def loss(output: Tensor) -> Tensor:
    return (output * torch.linspace(0.5, 1.5, output.shape[-1])).sin().sum()


@pytest.mark.parametrize("name", MODELS)
def test_a_mapped_stack_equals_its_replicas(name: str) -> None:
    task, make = MODELS[name]
    models, inputs = replicas(make), inputs_of(task)
    alone = [model(x) for model, x in zip(models, inputs)]
    for output in alone:
        assert output.shape == (B, *task.output_shape)
        loss(output).backward()

    parameters, buffers = stack_module_state(models)
    expected = {name: torch.stack([model.get_parameter(name).grad for model in models]) for name in parameters}

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return functional_call(models[0], (parameters, buffers), x)

    together = vmap(forward, randomness="error")(parameters, buffers, inputs)
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-5, atol=1e-5)

    outer = torch.autograd.grad(sum(map(loss, together)), list(parameters.values()))
    inner = vmap(grad(lambda p, b, x: loss(forward(p, b, x))), randomness="error")(parameters, buffers, inputs)
    for i, (name, gradient) in enumerate(expected.items()):
        tolerance = 1e-5 * max(1.0, gradient.abs().max().item())
        torch.testing.assert_close(outer[i], gradient, rtol=0, atol=tolerance)
        torch.testing.assert_close(inner[name], gradient, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", COMPILED)
def test_a_mapped_stack_compiles_to_one_graph(name: str) -> None:
    torch.compiler.reset()
    task, make = MODELS[name]
    models, inputs = replicas(make), inputs_of(task)
    parameters, buffers = stack_module_state(models)

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor], x: Tensor) -> Tensor:
        return vmap(lambda p, b, x: functional_call(models[0], (p, b), x), randomness="error")(parameters, buffers, x)

    compiled = torch.compile(forward, fullgraph=True, dynamic=False, backend="aot_eager")(parameters, buffers, inputs)
    torch.testing.assert_close(compiled, forward(parameters, buffers, inputs), rtol=1e-5, atol=1e-5)
    gradients = torch.autograd.grad(loss(compiled), list(parameters.values()))
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("model", [LSTM, GRU])
def test_recurrent_models_take_their_sizes_from_a_task(model: type[LSTM | GRU]) -> None:
    """They are not mapped: PyTorch's LSTM and GRU have no vmap rule."""
    assert model.for_task(Language(), d_model=8)(inputs_of(Language())[0]).shape == (B, T, V)


def test_every_model_is_under_contract_or_has_a_test_file_of_its_own() -> None:
    here = {type(make()).__name__ for _, make in MODELS.values()}
    for piece in pieces("model").values():
        room, _, file = piece.module.rpartition(".")
        if room == "mesocosm.models" and piece.attribute not in here:
            assert Path(__file__).with_name(f"test_{file}.py").exists(), piece.attribute


@pytest.mark.parametrize(
    ("model", "task", "has"),
    [
        (Transformer, Parity(), r"Parity has numbers \(6,\) in and \(\) out"),
        (LSTM, Images(), r"Images has numbers \(8, 8\) in and \(10,\) out"),
        (MLP, Language(), r"Language has tokens \(6,\) in and \(6, 5\) out"),
        (PolyNet, Images(), r"Images has"),
        (CNN, Parity(), r"Parity has"),
        (ResNet, Language(), r"Language has"),
    ],
)
def test_a_task_that_does_not_fit_is_refused(model: type, task: Task, has: str) -> None:
    with pytest.raises(ValueError, match=rf"{model.__name__} needs .* but {has}"):
        model.for_task(task)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MLP(d_input=0, d_output=None), "d_input=0 is not legal: it must be an integer, at least 1"),
        (lambda: MLP(d_input=2, d_output=None, hidden=(4, 0)), r"hidden\[1\]=0 is not legal"),
        (lambda: MLP(d_input=2, d_output=2, activation="zig"), "activation='zig' is not legal: it must be one of relu"),
        (lambda: MLP(d_input=2, d_output=2, init_gain=0.0), "init_gain=0.0 is not legal"),
        (lambda: PolyNet(d_input=4, degree=0), "degree=0 is not legal"),
        (lambda: DisjointPolyNet(d_input=7, degree=3), "degree=3 is not legal: it must divide d_input=7"),
        (lambda: SingleNeuron(d_input=7, activation="relu"), "activation='relu' is not legal"),
        (lambda: CNN(image_shape=(1, 3, 8), n_classes=2), "height=3 is not legal: it must be an integer, at least 4"),
        (lambda: ResNet(image_shape=(1, 8, 8), n_classes=2, width=12), "width=12 is not legal"),
        (lambda: LSTM(d_vocab=4, n_layers=0), "n_layers=0 is not legal"),
        (lambda: Dropout(1.0), "p=1.0 is not legal: it must be a number from 0 to 0.99"),
        (transformer(norm="both"), "norm='both' is not legal: it must be one of pre, post"),
        (transformer(d_mlp=True), "d_mlp=True is not legal"),
        (transformer(d_mlp=-1), "d_mlp=-1 is not legal: it must be an integer, at least 0"),
        (transformer(window=0), "window=0 is not legal: it must be an integer, at least 1"),
        (transformer(n_masked_heads=1), "n_masked_heads=1 is not legal: it is for positions='hard-alibi', at most"),
        (transformer(positions="hard-alibi", n_masked_heads=3), "n_masked_heads=3 is not legal"),
        (transformer(causal=False, window=3), "causal=False is not legal with a window"),
        (transformer(causal=False, positions="relative"), "causal=False is not legal"),
        (transformer(weight_std=0.0), "weight_std=0.0 is not legal: it must be a number above 0"),
        (transformer(attention_dropout=-0.1), "attention_dropout=-0.1 is not legal"),
        (transformer(embedding_std=0.0), "embedding_std=0.0 is not legal"),
        (transformer(tied=True, n_outputs=7), "n_outputs=7 is not legal: a tied head has d_vocab=5 outputs"),
        (lambda: Transformer(d_vocab=5, max_length=6, d_model=10), "n_heads=4 is not legal: it must divide d_model=10"),
        (
            lambda: Transformer(d_vocab=5, max_length=6, d_model=6, n_heads=2, positions="rotary"),
            "n_heads=2 is not legal: rotary positions need an even d_model / n_heads",
        ),
        (
            lambda: Transformer(d_vocab=5, max_length=6, d_model=7, n_heads=1, positions="sinusoidal"),
            "d_model=7 is not legal",
        ),
    ],
)
def test_bad_arguments_are_refused_by_name(make: Callable[[], nn.Module], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()

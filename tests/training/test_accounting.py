"""What the loop says a training has cost, against closed forms."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mesocosm.models import MLP, Transformer
from mesocosm.tasks import FlipFlop, SparseParity
from mesocosm.training import (
    SAM,
    SGD,
    Growth,
    Population,
    RandomPaths,
    Taught,
    along_paths,
    cross_entropy,
    distil,
    layer_sources,
    train,
)
from mesocosm.training.gradients import flop_counter
from mesocosm.training.streams import Online

TASK = FlipFlop(length=8)
BATCH, STEPS = 4, 6
WIDTH, MLP_WIDTH, T, VOCABULARY = 8, 32, TASK.input_shape[0], len(TASK.tokens)
TOKENS = BATCH * T
BLOCK = 3 * 2 * TOKENS * (4 * WIDTH**2 + 2 * WIDTH * MLP_WIDTH)
ATTENTION = 2 * 2 * BATCH * T * T * WIDTH
HEAD = 3 * 2 * TOKENS * WIDTH * VOCABULARY


def transformer(layers: int) -> Transformer:
    return Transformer.for_task(TASK, d_model=WIDTH, n_heads=2, n_layers=layers, d_mlp=MLP_WIDTH)


def spent(objective=cross_entropy, stream=None, optimiser=None, make=None, seeds=(0,), **options):
    make, stream = make or partial(transformer, 2), stream or Online(TASK, BATCH, list(seeds))
    history = train(Population(make, seeds), stream, objective, optimiser or SGD(0.1), steps=STEPS, every=1, **options)
    return history.metrics["flops"], history.metrics["tokens"]


def layers(count: int) -> float:
    """Operations of a step: each product once forward and twice backward."""
    return count * (BLOCK + 3 * ATTENTION) + HEAD


def test_a_transformer_costs_what_its_products_say() -> None:
    flops, tokens = spent(seeds=(0, 1))
    steps = torch.arange(STEPS + 1).double()[:, None].expand(-1, 2)
    assert torch.equal(tokens, steps * TOKENS)
    assert torch.equal(flops, steps * layers(2))


def test_an_mlp_costs_what_its_products_say_and_its_inputs_need_no_gradient() -> None:
    task = SparseParity(n=10, k=3)
    make = partial(MLP.for_task, task, hidden=(16,))
    history = train(Population(make, [0]), Online(task, BATCH, [0]), lambda m, b: m(b.inputs).sum(), SGD(0.1), steps=2)
    assert history.last("flops").item() == 2 * (2 * 2 * BATCH * 10 * 16 + 3 * 2 * BATCH * 16)
    assert history.last("tokens").item() == 2 * BATCH


def test_going_uphill_first_costs_twice() -> None:
    assert torch.equal(spent(optimiser=SAM(SGD(0.1)))[0], 2 * spent()[0])


def test_a_teacher_costs_its_forward_pass_in_the_steps_in_which_it_is_asked() -> None:
    teacher = partial(transformer, 3)
    for teachers in (Population(teacher, [7]), teacher()):
        stream = Taught(Online(TASK, BATCH, [0]), [teachers], weight=lambda step: 1.0 if step < 2 else 0.0)
        forward = 3 * (BLOCK / 3 + ATTENTION) + HEAD / 3
        expected = torch.arange(STEPS + 1).double() * layers(2) + torch.arange(STEPS + 1).clamp_max(2) * forward
        assert torch.equal(spent(distil, stream)[0][:, 0], expected)


def test_a_path_costs_its_layers_stacked_or_not() -> None:
    stream = RandomPaths(Online(TASK, BATCH, [0, 1]), 4, lambda step: 3, seeds=[0, 1])
    objective = along_paths(cross_entropy, lambda model: model.blocks)
    flops = spent(objective, stream, make=partial(transformer, 4), seeds=(0, 1))[0]
    lengths = torch.stack([stream.kept(step, [0, 1]).sum(1) for step in range(STEPS)])
    assert lengths.unique().numel() > 1
    assert torch.equal(flops[1:], (lengths * layers(1) - (lengths - 1) * HEAD).double().cumsum(0))


def test_what_grows_costs_its_size_and_what_is_interrupted_costs_no_more() -> None:
    grow = [Growth(4, partial(transformer, 2), layer_sources("blocks.{}.", [0, 0]))]
    flops = spent(make=partial(transformer, 1), grow=grow)[0]
    assert flops[-1].item() == 4 * layers(1) + 2 * layers(2)


def test_what_has_stopped_costs_nothing_more() -> None:
    measure = lambda population, step: {"place": torch.tensor(population.index)}
    history = train(
        Population(partial(transformer, 2), [0, 1]),
        Online(TASK, BATCH, [0, 1]),
        cross_entropy,
        SGD(0.1),
        steps=4,
        every=2,
        measure=measure,
        stop=lambda values: values["place"] == 0,
    )
    assert history.last("flops").tolist() == [0, 4 * layers(2)]


@pytest.mark.parametrize("shape", [(2, 4, 64, 16), (1, 2, 37, 8)])
def test_fused_attention_counts_as_the_plain_one(shape: tuple[int, ...]) -> None:
    counts = []
    for kind in (nn.attention.SDPBackend.FLASH_ATTENTION, nn.attention.SDPBackend.MATH):
        q = torch.randn(shape, requires_grad=True)
        with flop_counter() as counter, nn.attention.sdpa_kernel(kind):
            F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward()
        counts.append(counter.get_total_flops())
    forward = 2 * 2 * shape[0] * shape[1] * shape[2] ** 2 * shape[3]
    assert counts == [3.5 * forward, 3 * forward]

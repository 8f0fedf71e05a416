from functools import partial

import pytest
import torch
from torch import nn

from mesocosm.measures import attention_entropy
from mesocosm.models import Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop
from mesocosm.training import AdamW, Population, cross_entropy, entropy_penalty, train

TASK = FlipFlop(length=12)


def model(n_layers: int = 2) -> nn.Module:
    return Transformer.for_task(TASK, d_model=8, n_heads=2, n_layers=n_layers)


def test_penalty_is_the_mean_entropy_of_all_patterns() -> None:
    net, batch = model(), TASK.sample(6, generator(0))
    names = ["blocks.0.attn.hook_pattern", "blocks.1.attn.hook_pattern"]
    entropy = torch.stack([attention_entropy(p) for p in net(batch.inputs, capture=names)[1].values()]).mean()
    penalised = entropy_penalty(cross_entropy, 0.3)(net, batch)
    torch.testing.assert_close(penalised, cross_entropy(net, batch) + 0.3 * entropy)


def test_gradient_is_finite_and_equals_finite_differences() -> None:
    net, batch = model().double(), TASK.sample(4, generator(1))
    loss = entropy_penalty(cross_entropy, 2.0)
    weight = net.get_parameter("blocks.0.attn.qkv.weight")
    loss(net, batch).backward()
    step = 1e-6 * torch.randn(weight.shape, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        weight += step
        above = loss(net, batch)
        weight -= 2 * step
        below = loss(net, batch)
    assert (above - below).item() == pytest.approx(2 * (weight.grad * step).sum().item(), rel=1e-4)


@pytest.mark.parametrize("compile", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_stack_trains_as_its_replicas_do_and_grows_sharper(compile: bool) -> None:
    def trained(seeds: list[int], weight: float, compile: bool = False) -> Population:
        population = Population(partial(model, n_layers=1), seeds)
        objective = entropy_penalty(cross_entropy, weight)
        # Biases of keys have no gradient but rounding errors, which a smaller eps would blow up.
        train(population, TASK, objective, AdamW(1e-2, eps=1e-3), steps=12, batch_size=8, compile=compile)
        return population

    inputs = TASK.sample(50, generator(3)).inputs

    def entropy(net: nn.Module) -> torch.Tensor:
        return attention_entropy(net(inputs, capture=["blocks.0.attn.hook_pattern"])[1].popitem()[1]).mean()

    together, alone, plain = trained([4, 5, 6], 1.0, compile), trained([5], 1.0), trained([4, 5, 6], 0.0)
    torch.testing.assert_close(together.theta[1], alone.theta[0], rtol=0, atol=1e-6)
    assert (together.map(entropy) < plain.map(entropy)).all()

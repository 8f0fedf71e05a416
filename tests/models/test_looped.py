"""Looped transformers: equal to deep ones with copied weights, with one set of weights for all loops."""

import pytest
import torch

from mesocosm.models import Looped, Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import SGD, Population, cross_entropy, grow_module, layer_sources, train

SIZES = {"d_vocab": 5, "max_length": 6, "d_model": 8, "n_heads": 2}
TOKENS = torch.randint(5, (3, 6), generator=torch.Generator().manual_seed(1))


def looped(loops: int = 3, layers: int = 2) -> Looped:
    torch.manual_seed(0)
    return Looped(**SIZES, n_layers=layers, loops=loops)


def test_it_computes_as_the_deep_network_of_the_same_layers() -> None:
    model = looped()
    deep = Transformer(**SIZES, n_layers=6)
    grow_module(model, deep, layer_sources("blocks.{}.", [0, 1, 0, 1, 0, 1]))
    torch.testing.assert_close(model(TOKENS), deep(TOKENS))
    torch.testing.assert_close(model.forward_with_cache(TOKENS)[0], deep(TOKENS))
    assert model.hook_names == deep.hook_names


def test_its_weights_are_those_of_a_shallow_one_and_get_the_gradients_of_all_loops() -> None:
    model, deep = looped(), Transformer(**SIZES, n_layers=6)
    shallow = Transformer(**SIZES, n_layers=2)
    assert {n: p.shape for n, p in model.named_parameters()} == {n: p.shape for n, p in shallow.named_parameters()}
    grow_module(model, deep, layer_sources("blocks.{}.", [0, 1, 0, 1, 0, 1]))
    for network in (model, deep):
        network(TOKENS).sin().sum().backward()
    expected = sum(deep.blocks[i].mlp.fc_in.weight.grad for i in (1, 3, 5))
    torch.testing.assert_close(model.blocks[1].mlp.fc_in.weight.grad, expected)


def test_it_trains_in_populations_and_stays_looped() -> None:
    task = FlipFlop(length=6)
    make = lambda: Looped.for_task(task, d_model=8, n_heads=2, n_layers=1, loops=2)
    population = Population(make, seeds=[0, 1])
    before = population.theta.clone()
    train(population, task, cross_entropy, SGD(0.1), steps=3, batch_size=4)
    model = population.replica(1)
    assert model.blocks[0] is model.blocks[1]
    assert not torch.equal(population.theta, before)
    inputs = task.sample(4, torch.Generator()).inputs
    torch.testing.assert_close(population.map(lambda m: m(inputs))[1], model(inputs))


def test_bad_loops_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match="loops=0 is not legal: it must be an integer, at least 1"):
        looped(loops=0)

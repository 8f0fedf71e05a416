"""Random paths: how they are drawn and scaled, and that a path is the network of its layers."""

from functools import partial

import pytest
import torch
from torch import nn

from mesocosm.models import Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import (
    AdamW,
    Lazy,
    Population,
    RandomPaths,
    along_paths,
    cross_entropy,
    path_scales,
    scaled_layers,
    train,
)
from mesocosm.training.gradients import flops_of_step, gradients_of
from mesocosm.training.population import row
from mesocosm.training.streams import Online

TASK = FlipFlop(length=8)
CPU = torch.device("cpu")
PATHS = along_paths(cross_entropy, lambda model: model.blocks)


def transformer(layers: int = 4, bias: bool = True) -> Transformer:
    return Transformer.for_task(TASK, d_model=8, n_heads=2, n_layers=layers, bias=bias)


def test_scales_restore_the_norm_of_independent_layers() -> None:
    kept = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 1, 1], [0, 0, 1, 0, 1]], dtype=torch.bool)
    expected = torch.tensor([[1, 1, 1, 1, 1], [1, 0, 0, 3, 1], [0, 0, 3, 0, 2]]).float().sqrt()
    assert torch.allclose(path_scales(kept), expected)
    kept = torch.rand(50, 12) < 0.5
    kept[:, -1] = True
    assert torch.allclose(path_scales(kept).square().sum(1), torch.full((50,), 12.0))


def test_paths_have_the_mean_length_of_their_stage_and_the_layers_that_stay() -> None:
    stream = RandomPaths(Online(TASK, 2, [0]), 6, length=lambda step: 3.0 if step < 2000 else 6.0, seeds=[0])
    paths = torch.stack([stream.kept(step, [0])[0] for step in range(2000)])
    assert paths[:, [0, 5]].all()
    share = paths[:, 1:5].float().mean(0)
    assert ((share - 0.25).abs() < 4 * (0.25 * 0.75 / 2000) ** 0.5).all()
    assert stream.kept(2000, [0]).all()
    assert torch.equal(stream(7, [0], CPU).layer_scale[0], path_scales(stream.kept(7, [0])[0]))


def test_a_path_is_the_network_of_its_layers() -> None:
    torch.manual_seed(0)
    model, inputs = transformer(), TASK.sample(3, torch.Generator().manual_seed(0)).inputs
    whole = model(inputs)
    with scaled_layers(model.blocks, torch.tensor([1.0, 0.0, 1.0, 0.0])):
        path = model(inputs)
    torch.testing.assert_close(model(inputs), whole)
    model.blocks = nn.ModuleList([model.blocks[0], model.blocks[2]])
    torch.testing.assert_close(path, model(inputs), atol=1e-6, rtol=1e-5)


def test_layers_off_the_path_get_no_gradient() -> None:
    model, batch = transformer(), RandomPaths(Online(TASK, 4, [3]), 4, lambda step: 3, seeds=[3])(0, [0], CPU)
    batch = batch._make(field[0] for field in batch)._replace(layer_scale=torch.tensor([1.0, 0.0, 2**0.5, 1.0]))
    along_paths(cross_entropy, lambda m: m.blocks)(model, batch).backward()
    found = [any(p.grad is not None and p.grad.abs().sum() > 0 for p in block.parameters()) for block in model.blocks]
    assert found == [True, False, True, True]


def test_skipped_layers_are_not_computed_alone_and_are_in_a_stack_with_equal_results() -> None:
    population = Population(transformer, [0, 1])
    stream = RandomPaths(Online(TASK, 4, [0, 1]), 4, lambda step: 3, seeds=[0, 1])
    step = next(s for s in range(100) if stream.kept(s, [0, 1]).sum(1).tolist() == [2, 4])
    batch = stream(step, [0, 1], CPU)
    gradients = gradients_of(population, PATHS)(population.theta, population.state, batch)[0]
    flops = []
    for r in range(2):
        alone = population.select([r])
        flops.append(flops_of_step(alone, PATHS, row(batch, [r])))
        alone.mappable = False
        lone = gradients_of(alone, PATHS)(alone.theta, alone.state, row(batch, [r]))[0]
        torch.testing.assert_close(lone[0], gradients[r], atol=1e-6, rtol=1e-5)
    whole = flops_of_step(population, cross_entropy, batch)
    ends = Population(lambda: transformer(2), [0])
    assert flops == [flops_of_step(ends, cross_entropy, row(batch, [0])), whole]


def test_lazy_leaves_skipped_layers_and_what_it_knows_of_them_alone() -> None:
    # Biases of keys have no gradient but rounding, which Adam would blow up.
    population = Population(partial(transformer, bias=False), [0])
    reference = population.replica(0)
    # The whole network first, so that there are moments to fade.
    stream = RandomPaths(Online(TASK, 4, [0]), 4, lambda step: 4 if step < 2 else 2, seeds=[0])
    train(population, stream, PATHS, Lazy(AdamW(1e-2, weight_decay=0.1)), steps=4)
    # PyTorch's AdamW passes over parameters without a gradient; its moments' correction counts a parameter's own steps.
    optimiser = torch.optim.AdamW(reference.parameters(), lr=1e-2, weight_decay=0.1)
    for step in range(4):
        batch = row(stream(step, [0], CPU), 0)
        optimiser.zero_grad()
        PATHS(reference, batch).backward()
        optimiser.step()
        moved = [p.grad is not None for p in reference.blocks[1].parameters()]
        assert all(moved) if step < 2 else not any(moved)
    for name, weights in reference.named_parameters():
        torch.testing.assert_close(population.weights()[name][0], weights, atol=1e-6, rtol=1e-5)


def test_every_replica_has_paths_of_its_own_and_is_the_same_alone() -> None:
    def trained(seeds: list[int]) -> Population:
        population = Population(transformer, seeds)
        stream = RandomPaths(Online(TASK, 4, seeds), 4, lambda step: 3 if step < 4 else 4, seeds=seeds)
        train(population, stream, along_paths(cross_entropy, lambda m: m.blocks), AdamW(1e-2), steps=8)
        assert population.reason == "stacked"
        return population

    together = trained([0, 1, 2])
    assert torch.equal(trained([1]).theta[0], together.theta[1])


def test_a_small_llama_trains_along_paths_in_a_loop_of_ones_own() -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 5}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=3, **sizes))
    tokens = TASK.sample(3, torch.Generator().manual_seed(0)).inputs
    forward = partial(model, use_cache=False)
    with scaled_layers(model.model.layers, torch.tensor([1.0, 0.0, 1.0])):
        path = forward(tokens).logits
    path.sum().backward()
    assert all(p.grad is None for p in model.model.layers[1].parameters())
    model.model.layers = nn.ModuleList([model.model.layers[0], model.model.layers[2]])
    torch.testing.assert_close(forward(tokens).logits, path, atol=1e-6, rtol=1e-5)


def test_bad_arguments_are_named() -> None:
    stream = Online(TASK, 2, [0])
    with pytest.raises(ValueError, match=r"always=\[4\] is not legal: layers are from 0 to 3"):
        RandomPaths(stream, 4, lambda step: 3, seeds=[0], always=[4])
    with pytest.raises(ValueError, match=r"length=1 is not legal: it must be from 2 to n_layers=4"):
        RandomPaths(stream, 4, lambda step: 1, seeds=[0])(0, [0], CPU)

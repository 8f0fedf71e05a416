"""Gaps and growth against residual networks whose paths are known in closed form."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from mesocosm.measures import norm_growth, paths_of_length, power_law, stream_norms, transition_gap
from mesocosm.models import ResidualMLP
from mesocosm.seeding import generator
from mesocosm.training import Population, path_scales, scaled_layers


class Stretch(nn.Module):
    """y + A y for a diagonal A."""

    def __init__(self, a: torch.Tensor) -> None:
        super().__init__()
        self.a = a

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        return y + self.a * y


class Power(nn.Sequential):
    """Mean squared norm of what linear residual layers give."""

    def loss(self, inputs: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        with scaled_layers(list(self), scale):
            return self(inputs).square().sum(-1).mean()


def test_paths_are_all_there_are_or_random_ones_with_their_ends() -> None:
    every = paths_of_length(5, 4, 64, generator(0))
    assert every.tolist() == [
        [True, True, True, False, True],
        [True, True, False, True, True],
        [True, False, True, True, True],
    ]
    some = paths_of_length(22, 10, 400, generator(0))
    assert some.shape == (400, 22)
    assert (some.sum(1) == 10).all() and some[:, [0, -1]].all()
    share = some[:, 1:-1].float().mean(0)
    assert ((share - 0.4).abs() < 4 * (0.24 / 400) ** 0.5).all()
    assert paths_of_length(4, 4, 8, generator(0)).tolist() == [[True] * 4]
    free = paths_of_length(4, 1, 64, generator(0), always=[])
    assert free.sum(0).tolist() == [1] * 4
    with pytest.raises(ValueError, match="length=1 is not legal: it must be from 2 to n_layers=5"):
        paths_of_length(5, 1, 8, generator(0))


def test_the_gap_of_a_linear_network_has_its_closed_form() -> None:
    a = torch.empty(6, 3).uniform_(-0.3, 0.3, generator=generator("stretch"))
    model, x = Power(*map(Stretch, a)), torch.randn(50, 3, generator=generator("inputs"))
    paths = paths_of_length(6, 4, 64, generator(0))
    assert len(paths) == 6
    gap = transition_gap(lambda scale: model.loss(x, scale), paths.float())
    lengths = lambda chosen: (x * (1 + a[list(chosen)]).prod(0)).square().sum(1).mean()
    mean = torch.stack([lengths((0, i, j, 5)) for i, j in itertools.combinations(range(1, 5), 2)]).mean()
    torch.testing.assert_close(gap, mean - lengths(range(6)))
    whole = transition_gap(lambda scale: model.loss(x, scale), path_scales(torch.ones(1, 6, dtype=torch.bool)))
    assert whole == 0


def test_dropping_a_linear_layer_changes_the_norm_by_no_more_than_its_factor() -> None:
    a = torch.empty(6, 3).uniform_(-0.3, 0.3, generator=generator("stretch"))
    model, x = Power(*map(Stretch, a)), torch.randn(1, 3, generator=generator("inputs"))
    whole = model.loss(x, torch.ones(6)).sqrt()
    for layer, path in enumerate(~torch.eye(6, dtype=torch.bool)):
        ratio, norm = model.loss(x, path.float()).sqrt() / whole, a[layer].abs().max()
        assert 1 / (1 + norm) <= ratio <= 1 / (1 - norm)


def test_the_gap_falls_as_one_over_depth_where_layers_add_one_over_depth() -> None:
    depths, gaps = [32, 64, 128], []
    for depth in depths:
        model = Power(*(Stretch(torch.full((2,), 1 / depth)) for _ in range(depth)))
        paths = paths_of_length(depth, depth - 1, 8, generator(0)).float()
        gaps.append(transition_gap(lambda scale, model=model: model.loss(torch.ones(1, 2), scale), paths).abs().item())
    assert power_law(np.array(depths), np.array(gaps)).exponent == pytest.approx(-1, abs=0.06)


def test_the_gap_maps_over_replicas() -> None:
    population = Population(lambda: ResidualMLP(d_input=5, d_output=None, d_model=4, n_layers=4), [0, 1, 2])
    x, scales = torch.randn(7, 5, generator=generator("x")), path_scales(paths_of_length(4, 3, 64, generator(0)))

    def gap(model: nn.Module) -> torch.Tensor:
        def loss(scale: torch.Tensor) -> torch.Tensor:
            with scaled_layers(model.blocks, scale):
                return model(x).square().mean()

        return transition_gap(loss, scales)

    alone = torch.stack([gap(population.replica(r)) for r in range(3)])
    torch.testing.assert_close(population.map(gap), alone.detach(), rtol=1e-4, atol=1e-6)


def test_norms_are_those_of_the_stream() -> None:
    model, x = ResidualMLP(d_input=5, d_output=2, d_model=4, n_layers=3), torch.randn(7, 5)
    y, expected = model.embed(x), []
    for block in [lambda y: y, *model.blocks]:
        y = block(y)
        expected.append(y.norm(dim=1).square().mean().sqrt())
    torch.testing.assert_close(stream_norms(model, model.blocks, x), torch.stack(expected))
    assert not model.blocks[0]._forward_hooks


def test_independent_layers_grow_like_the_root_of_depth_and_aligned_ones_do_not() -> None:
    depth = torch.arange(9.0)
    slope, r2 = norm_growth(torch.stack([(2 + 3 * depth).sqrt(), 1.3**depth]))
    assert slope[0] == pytest.approx(3, abs=1e-5) and r2[0] == pytest.approx(1, abs=1e-6)
    assert r2[1] < 0.9
    torch.manual_seed(0)
    norms = stream_norms(model := ResidualMLP(d_input=24, d_output=1, n_layers=16), model.blocks, torch.randn(200, 24))
    assert norm_growth(norms).r2 > 0.98

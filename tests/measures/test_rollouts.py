import math

import pytest
import torch
from torch import nn

from mesocosm.measures import quadratic_reward, rollout, survival
from mesocosm.seeding import generator
from mesocosm.tasks import PlantDemonstrations
from mesocosm.training import Population

MARGINAL = PlantDemonstrations()


@pytest.mark.parametrize("contraction", [0.5, 0.9, 0.995])
def test_experts_reward_is_a_geometric_series(contraction):
    task = PlantDemonstrations(contraction=contraction)
    starts = task.starts(10, generator(0))
    states = rollout(task, task.expert, starts, 100)
    assert states.shape == (101, 10, 4)
    assert torch.equal(states[0], starts)
    series = sum(contraction ** (2 * t) for t in range(1, 101)) / 100
    assert torch.allclose(quadratic_reward(states), -series * starts.square().sum(1), rtol=1e-3)


def test_a_gain_error_grows_at_the_spectral_radius():
    error = 0.02 * torch.eye(4)
    states = rollout(MARGINAL, lambda x: x @ (MARGINAL.gain - error).T, MARGINAL.starts(5, generator(1)), 2000).double()
    drift = MARGINAL.step(torch.eye(4), torch.eye(4) @ (MARGINAL.gain - error).T).T
    radius = torch.linalg.eigvals(drift).abs().max().item()
    growth = (states[2000].norm(dim=1) / states[1000].norm(dim=1)).log() / 1000
    assert growth.tolist() == pytest.approx([math.log(radius)] * 5, abs=1e-3)


def test_runaway_states_cost_the_cap_and_do_not_survive():
    states = rollout(MARGINAL, lambda x: -1e20 * x, MARGINAL.starts(3, generator(2)), 20)
    assert not states.isfinite().all()
    assert quadratic_reward(states, cap=100.0).tolist() == [-100] * 3
    assert survival(states).tolist() == [0] * 3


def test_rewards_by_hand():
    states = torch.tensor([[[9.0, 0.0], [0.0, 0.0]], [[1.0, 2.0], [3.0, 0.0]], [[0.0, 10.0], [4.9, -4.9]]])
    assert quadratic_reward(states, cap=50.0).tolist() == pytest.approx([-(5 + 50) / 2, -(9 + 48.02) / 2])
    assert survival(states).tolist() == [0, 1]
    assert survival(states, limit=10.5).tolist() == [1, 1]


def test_saturated_expert_mostly_survives():
    task = PlantDemonstrations(plant="saturated")
    starts = task.starts(2000, generator(3))
    alive = survival(rollout(task, task.expert, starts, 300)).mean()
    idle = survival(rollout(task, lambda x: torch.zeros(len(x), 2), starts, 300)).mean()
    assert 0.96 < alive < 0.99
    assert idle < 0.05


def test_every_replica_is_rolled_out_as_if_alone():
    population = Population(lambda: nn.Linear(4, 4), seeds=[0, 1, 2])
    starts = MARGINAL.starts(6, generator(4))
    together = population.map(lambda model: rollout(MARGINAL, model, starts, 10))
    assert together.shape == (3, 11, 6, 4)
    for r in range(3):
        alone = rollout(MARGINAL, population.replica(r), starts, 10)
        assert torch.allclose(together[r], alone, rtol=1e-4)

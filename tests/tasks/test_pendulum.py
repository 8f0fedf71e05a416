import math

import numpy
import pytest
import torch

from mesocosm.measures import rollout
from mesocosm.seeding import generator
from mesocosm.tasks import PendulumSwingUp

TASK = PendulumSwingUp()


def test_every_step_is_that_of_gymnasium():
    gymnasium = pytest.importorskip("gymnasium")
    environment = gymnasium.make("Pendulum-v1").unwrapped
    stream = numpy.random.default_rng(0)
    for episode in range(5):
        environment.reset(seed=episode)
        for _ in range(200):
            angle, speed = environment.state
            observation = torch.tensor([math.cos(angle), math.sin(angle), speed], dtype=torch.float64)
            action = stream.uniform(-3, 3, size=1)
            expected, reward, *_ = environment.step(action)
            torque = torch.from_numpy(action)
            assert TASK.step(observation, torque).numpy() == pytest.approx(expected, abs=1e-6)
            assert TASK.reward(observation, torque).item() == pytest.approx(reward, abs=1e-6)


def test_a_free_swing_keeps_its_energy_about():
    """A semi-implicit step keeps the energy of a small swing bounded around its start."""
    start = torch.tensor([[math.cos(3.0), math.sin(3.0), 0.0]], dtype=torch.float64)
    path = rollout(TASK, lambda x: torch.zeros(len(x), 1), start, 500)[:, 0]
    energy = path[:, 2].square() / 2 + 15 * path[:, 0]
    assert energy.max() - energy.min() < 0.05
    assert path[:, 2].max() > 0.5


def test_expert_swings_up_and_stays():
    starts = TASK.starts(200, generator(0))
    path = rollout(TASK, TASK.expert, starts, 200)
    upright = path[-50:, :, 0].min(0).values > 0.99
    assert upright.float().mean() > 0.95
    cost = -TASK.reward(path[:-1], TASK.expert(path[:-1])).sum(0).mean()
    assert 100 < cost < 250


def test_starts_are_those_of_gymnasium():
    from scipy import stats

    cosine, sine, speed = TASK.starts(5000, generator(1)).T
    assert stats.kstest(torch.atan2(sine, cosine), stats.uniform(-math.pi, 2 * math.pi).cdf).pvalue > 1e-3
    assert stats.kstest(speed, stats.uniform(-1, 2).cdf).pvalue > 1e-3


def test_episodes_follow_the_expert():
    task = PendulumSwingUp(steps=30)
    batch = task.episodes(10, generator(0))
    observation, action = (field.unflatten(0, (10, 30)) for field in (batch.inputs, batch.action))
    assert torch.equal(observation[:, 0], task.starts(10, generator(0)))
    assert torch.allclose(observation[:, 1:], task.step(observation[:, :-1], action[:, :-1]), atol=1e-5)
    sample = task.sample(500, generator(2))
    assert torch.equal(sample.targets, task.expert(sample.inputs))
    assert sample.time.unique().tolist() == list(range(30))


def test_batch_is_what_the_task_declares():
    batch = TASK.sample(7, generator(0))
    assert batch._fields == tuple(TASK.fields)
    assert batch.inputs.shape == (7, *TASK.input_shape)
    assert batch.targets.shape == (7, *TASK.output_shape)
    assert torch.equal(batch.inputs, TASK.sample(7, generator(0)).inputs)
    with pytest.raises(ValueError, match="steps=0 is not legal"):
        PendulumSwingUp(steps=0)

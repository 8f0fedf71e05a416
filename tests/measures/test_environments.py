import numpy
import pytest
import torch

from mesocosm.measures import environment_rewards, rollout
from mesocosm.tasks import PendulumSwingUp
from mesocosm.tasks.environments import play

gymnasium = pytest.importorskip("gymnasium")


def test_rewards_are_those_of_episodes_played_by_hand():
    policy = torch.nn.Linear(3, 1)
    found = environment_rewards(policy, "Pendulum-v1", [3, 7], 30)
    for column, seed in enumerate([3, 7]):
        environment = gymnasium.make("Pendulum-v1")
        observation, _ = environment.reset(seed=seed)
        for t in range(30):
            action = policy(torch.from_numpy(observation)).detach().clamp(-2, 2).numpy()
            observation, reward, *_ = environment.step(action)
            assert found[t, column].item() == pytest.approx(reward, abs=1e-4)


def test_our_pendulum_earns_the_same():
    task = PendulumSwingUp()
    found = play(task.expert, "Pendulum-v1", range(4), 100)
    observations, actions, returns = found.observations[found.alive], found.actions[found.alive], found.rewards.sum(0)
    assert observations.shape == (400, 3)
    start = observations.unflatten(0, (100, 4))[0]
    path = rollout(task, task.expert, start, 20)
    ours = task.reward(path[:-1], task.expert(path[:-1])).sum(0)
    assert ours.tolist() == pytest.approx(
        environment_rewards(task.expert, "Pendulum-v1", range(4), 20).sum(0).tolist(), rel=1e-3
    )
    assert torch.equal(actions, task.expert(observations).clamp(-2, 2))
    assert returns.tolist() == pytest.approx(
        environment_rewards(task.expert, "Pendulum-v1", range(4), 100).sum(0).tolist()
    )


def test_nothing_is_earned_after_an_episodes_end(monkeypatch):
    """An environment that ends after as many steps as its seed says, and would then go on with another reward."""

    class Counting(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1, 1, (1,), numpy.float64)
        action_space = gymnasium.spaces.Box(-1, 1, (1,))

        def reset(self, seed=None, options=None):
            self.left = seed if seed is not None else 99
            return numpy.zeros(1), {}

        def step(self, action):
            self.left -= 1
            return numpy.zeros(1), 1.0, self.left == 0, False, {}

    gymnasium.register("Counting-v0", Counting)
    rewards = environment_rewards(lambda x: x, "Counting-v0", [2, 5, 30], 10)
    assert rewards.sum(0).tolist() == [2, 5, 10]
    assert environment_rewards(lambda x: x, "Counting-v0", [2, 3], 10).shape == (10, 2)
    found = play(lambda x: x, "Counting-v0", [2, 5], 10)
    observations, returns = found.observations[found.alive], found.rewards.sum(0)
    assert (len(observations), returns.tolist()) == (7, [2, 5])
    gymnasium.registry.pop("Counting-v0")


@pytest.mark.parametrize(("name", "why"), [("Nowhere-v1", "does not know it"), ("CartPole-v1", "not continuous")])
def test_illegal_environments_are_named(name, why):
    with pytest.raises(ValueError, match=f"environment='{name}' is not legal: .*{why}"):
        environment_rewards(lambda x: x, name, [0], 5)

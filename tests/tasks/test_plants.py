import numpy
import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import PlantDemonstrations
from mesocosm.tasks.plants import DRIFT, PUSH, regulator_gain

SATURATED = PlantDemonstrations(plant="saturated", steps=50)


@pytest.mark.parametrize("contraction", [0.0, 0.5, 0.995, 1.0])
def test_expert_shrinks_every_state_of_the_linear_plant_by_one_factor(contraction):
    task = PlantDemonstrations(contraction=contraction)
    state = task.starts(50, generator(0))
    after = task.step(state, task.expert(state))
    assert torch.allclose(after.norm(dim=1), contraction * state.norm(dim=1), atol=1e-5)
    if contraction:
        q = (DRIFT - task.gain) / contraction
        assert torch.allclose(q @ q.T, torch.eye(4), atol=1e-5)
        assert not torch.allclose(task.gain, PlantDemonstrations(contraction=contraction, table=1).gain)


def test_random_rotations_are_uniform():
    """The first entry of a uniform orthogonal 4x4 matrix has the law of a coordinate on the 3-sphere."""
    entries = [(DRIFT - PlantDemonstrations(contraction=1.0, table=t).gain)[0, 0].item() for t in range(400)]
    square = stats.beta(0.5, 1.5).cdf
    assert stats.kstest(numpy.square(entries), square).pvalue > 1e-3
    assert stats.binomtest(int((numpy.array(entries) > 0).sum()), 400).pvalue > 1e-3


def test_regulator_equals_iterating_the_values():
    """Dynamic programming over a long horizon, and the cost that simulation finds."""
    a, b = DRIFT.double().numpy(), PUSH.double().numpy()
    cost = numpy.zeros((4, 4))
    for _ in range(3000):
        gain = numpy.linalg.solve(numpy.eye(2) + b.T @ cost @ b, b.T @ cost @ a)
        cost = numpy.eye(4) + gain.T @ gain + (a - b @ gain).T @ cost @ (a - b @ gain)
    found = regulator_gain(DRIFT, PUSH).double().numpy()
    assert found == pytest.approx(gain, abs=1e-5)

    state = start = numpy.array([1.0, -0.5, 0.3, 0.2])
    paid = 0.0
    for _ in range(3000):
        action = -found @ state
        paid += state @ state + action @ action
        state = a @ state + b @ action
    assert paid == pytest.approx(start @ cost @ start, rel=1e-5)


def test_forces_are_limited():
    state = torch.tensor([[9.0, 9.0, 9.0, 9.0], [0.01, 0.0, 0.0, 0.01]])
    action = SATURATED.expert(state)
    assert action[0].tolist() == [-2, -2]
    assert torch.allclose(action[1], state[1] @ SATURATED.gain.T)
    assert torch.equal(SATURATED.step(state, torch.full((2, 2), 7.0)), SATURATED.step(state, torch.full((2, 2), 2.0)))
    pushed = SATURATED.step(torch.zeros(4), torch.tensor([1.0, -3.0]))
    assert pushed.tolist() == pytest.approx([0, 0.05, 0, -0.1])


def test_plants_run_away_without_steering():
    for task in (PlantDemonstrations(), SATURATED):
        state = torch.ones(1, 4)
        for _ in range(500):
            state = task.step(state, torch.zeros(1, *task.output_shape))
        assert state.abs().max() > 100


@pytest.mark.parametrize("task", [SATURATED, PlantDemonstrations(contraction=0.9, steps=6)])
def test_episodes_follow_the_expert(task):
    batch = task.episodes(20, generator(0))
    states, actions = (field.unflatten(0, (20, task.steps)) for field in (batch.inputs, batch.action))
    assert torch.equal(states[:, 0], task.starts(20, generator(0)))
    assert torch.allclose(states[:, 1:], task.step(states[:, :-1], actions[:, :-1]), atol=1e-5)
    assert torch.allclose(batch.action, task.expert(batch.inputs))
    assert batch.time.tolist() == list(range(task.steps)) * 20


def test_samples_have_the_law_of_states_at_a_uniform_time():
    """Under a uniform rotation and a contraction c, states at time t have covariance c^2t I."""
    task = PlantDemonstrations(contraction=0.5, steps=4)
    batch = task.sample(40_000, generator(1))
    assert stats.chisquare(batch.time.bincount(minlength=4)).pvalue > 1e-3
    for t in range(4):
        scaled = batch.inputs[batch.time == t] / 0.5**t
        assert stats.kstest(scaled.flatten().numpy(), "norm").pvalue > 1e-3


def test_noise_is_on_the_actions_only():
    task = PlantDemonstrations(noise=0.3)
    batch = task.sample(20_000, generator(2))
    assert stats.kstest(((batch.targets - batch.action) / 0.3).flatten().numpy(), "norm").pvalue > 1e-3
    assert torch.equal(batch.action, task.expert(batch.inputs))
    clean = PlantDemonstrations().sample(50, generator(2))
    assert torch.equal(clean.targets, clean.action)


@pytest.mark.parametrize("task", [PlantDemonstrations(), SATURATED])
def test_batch_is_what_the_task_declares(task):
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert batch.inputs.shape == (7, *task.input_shape)
    assert batch.targets.shape == batch.action.shape == (7, *task.output_shape)
    assert torch.equal(batch.inputs, task.sample(7, generator(0)).inputs)


@pytest.mark.parametrize("settings", [{"contraction": 1.1}, {"limit": 0.0}, {"noise": -1.0}, {"steps": 0}])
def test_bad_parameters_are_named(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value} is not legal"):
        PlantDemonstrations(**settings)

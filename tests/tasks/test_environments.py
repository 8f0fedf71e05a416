import sys

import numpy
import pytest
import torch

from mesocosm.measures import environment_rewards
from mesocosm.seeding import generator
from mesocosm.tasks import EnvironmentDemonstrations
from mesocosm.tasks.environments import BALANCED, balancing_expert


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "demonstrations.npz"
    observations = numpy.arange(60.0).reshape(20, 3)
    numpy.savez(path, observations=observations, actions=observations[:, :2] / 2, returns=numpy.array([5.0, 7.0]))
    return str(path)


def test_samples_are_pairs_of_a_recording(file):
    task = EnvironmentDemonstrations(environment="Hopper-v5", file=file)
    assert (task.input_shape, task.output_shape) == ((3,), (2,))
    batch = task.sample(500, generator(0))
    assert batch._fields == tuple(task.fields)
    assert torch.equal(batch.targets, batch.inputs[:, :2] / 2)
    assert torch.equal(batch.inputs, task.recording.observations[batch.row])
    assert batch.row.unique().tolist() == list(range(20))
    assert task.recording.returns.tolist() == [5, 7]


def test_what_is_no_recording_is_refused(tmp_path, file):
    with pytest.raises(ValueError, match="environment='Hopper-v5' is not legal without a file"):
        EnvironmentDemonstrations(environment="Hopper-v5")
    with pytest.raises(ValueError, match="there is no such file"):
        EnvironmentDemonstrations(file=str(tmp_path / "nothing.npz"))
    for name, arrays in {
        "short": {"observations": numpy.ones((3, 2)), "actions": numpy.ones((2, 1)), "returns": numpy.ones(1)},
        "poor": {"observations": numpy.ones((3, 2))},
        "pickled": {"observations": numpy.array([{}]), "actions": numpy.ones((2, 1)), "returns": numpy.ones(1)},
    }.items():
        numpy.savez(tmp_path / f"{name}.npz", **arrays)
        task = EnvironmentDemonstrations(file=str(tmp_path / f"{name}.npz"))
        with pytest.raises(ValueError, match="is not legal: it must"):
            task.sample(2, generator(0))


def test_without_gymnasium_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"pip install 'mesocosm\[mujoco\]'"):
        environment_rewards(lambda x: x, "Pendulum-v1", [0], 5)


def test_regulator_balances_the_double_pendulum():
    pytest.importorskip("mujoco")
    pytest.importorskip("gymnasium")
    rewards = environment_rewards(balancing_expert(), BALANCED, range(5), 300)
    assert (rewards > 8).all()  # 10 a step, less small penalties, until it falls
    idle = environment_rewards(lambda x: torch.zeros(len(x), 1), BALANCED, range(5), 300)
    assert (idle > 0).sum(0).max() < 50
    task = EnvironmentDemonstrations(episodes=2, steps=40)
    batch = task.sample(30, generator(0))
    assert batch.inputs.shape == (30, *task.input_shape)
    assert torch.allclose(batch.targets, balancing_expert()(batch.inputs), atol=1e-5)

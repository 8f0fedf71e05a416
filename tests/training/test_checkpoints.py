import pytest
import torch
from torch import nn

from mesocosm.tasks import SparseParity
from mesocosm.training import SGD, Checkpoints, Population, train
from mesocosm.training.objectives import square


def make_model():
    return nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0))


def trained(steps, measure=None, stop=None, seeds=(0, 1, 2)):
    population = Population(make_model, seeds)
    task = SparseParity(n=6, k=2)
    return train(
        population, task, square, SGD(0.1), steps=steps, batch_size=4, measure=measure, every=5, stop=stop
    ).population


@pytest.mark.parametrize("on_disk", [False, True])
def test_a_checkpoint_is_what_a_shorter_training_ends_with(on_disk, tmp_path):
    kept = Checkpoints(folder=tmp_path / "kept" if on_disk else None)
    population = trained(20, kept)
    final = population.theta.clone()
    again = Checkpoints(folder=tmp_path / "kept") if on_disk else kept
    earlier = again.at(population, [5, 0, 20])
    for r, steps in enumerate([5, 0, 20]):
        expected = trained(steps)
        assert torch.equal(earlier.theta[r], expected.theta[r])
        for name, value in earlier.state.items():
            assert torch.equal(value[r], expected.state[name][r])
    assert torch.equal(population.theta, final)
    assert not torch.equal(earlier.theta[0], final[0])


def test_replicas_that_stopped_keep_their_own_rows():
    """After replica 0 has stopped, replicas 1 and 2 move up in the stack."""

    def index(population, step):
        return {"index": torch.tensor(population.index), "step": torch.full((len(population),), float(step))}

    kept = Checkpoints(index)
    population = trained(15, kept, stop=lambda values: (values["index"] == 0) & (values["step"] == 5))
    assert torch.equal(kept.at(population, [5, 15, 15]).theta, population.theta)
    with pytest.raises(ValueError, match="step=15 is not legal: nothing was kept of replica 0 there"):
        kept.at(population, [15, 15, 15])


def test_what_else_is_measured_is_handed_on():
    kept = Checkpoints(lambda population, step: {"step": torch.full((len(population),), float(step))})
    population = Population(make_model, [0, 1])
    history = train(population, SparseParity(n=6, k=2), square, SGD(0.1), steps=4, batch_size=4, measure=kept, every=2)
    assert history.metrics["step"].tolist() == [[0, 0], [2, 2], [4, 4]]

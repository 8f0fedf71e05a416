import math

import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks import RedundantFeatures

TASK = RedundantFeatures(d=6, easy=0.4, hard=0.2)
COUNT = 100_000


@pytest.fixture(scope="module")
def batch():
    return TASK.sample(COUNT, generator(0))


def misses(scores, targets):
    return int((scores * targets < 0).sum())


def test_features_are_normal_around_their_signed_means(batch):
    noise = (batch.inputs - batch.targets[:, None, None] * TASK.strengths[:, None] * TASK.direction) / TASK.noise
    assert stats.kstest(noise.flatten()[::7].numpy(), "norm").pvalue > 1e-3
    covariance = torch.corrcoef(noise.flatten(1).T)
    assert (covariance - torch.eye(12)).abs().max() < 5 / math.sqrt(COUNT)
    assert TASK.direction.norm().item() == pytest.approx(1)
    assert stats.binomtest(int((batch.targets == 1).sum()), COUNT).pvalue > 1e-3


def test_errors_in_closed_form_are_those_counted(batch):
    readers = torch.randn(3, 2, 6, generator=generator(1)) + 1
    for reader, branch, both in zip(readers, TASK.branch_errors(readers), TASK.linear_error(readers)):
        scores = (batch.inputs * reader).sum(2)  # [B, 2]
        for i in range(2):
            assert stats.binomtest(misses(scores[:, i], batch.targets), COUNT, branch[i].item()).pvalue > 1e-3
        assert stats.binomtest(misses(scores.sum(1), batch.targets), COUNT, both.item()).pvalue > 1e-3


def test_margins_of_best_readers_err_at_the_optimal_rate(batch):
    assert torch.allclose(batch.margins, batch.targets[:, None] * (batch.inputs @ TASK.direction), atol=1e-6)
    for i in range(2):
        wrong = int((batch.margins[:, i] < 0).sum())
        assert stats.binomtest(wrong, COUNT, TASK.optimal_errors[i].item()).pvalue > 1e-3


def test_no_linear_reader_beats_the_optimum():
    """The best weights of the branches are the strengths; others, and other directions, do worse."""
    best = TASK.strengths[:, None] * TASK.direction
    assert TASK.linear_error(best).item() == pytest.approx(TASK.optimal_error)
    others = best + 0.05 * torch.randn(200, 2, 6, generator=generator(2))
    assert (TASK.linear_error(others) > TASK.optimal_error).all()
    assert (TASK.branch_errors(others) > TASK.optimal_errors - 1e-7).all()
    assert torch.allclose(TASK.branch_errors(-others), 1 - TASK.branch_errors(others))


def test_published_hard_error():
    """Phi(-0.35 / 0.3) is 12.2 %."""
    assert RedundantFeatures().optimal_errors[1].item() == pytest.approx(0.1217, abs=1e-4)


def test_batch_is_what_the_task_declares(batch):
    assert batch._fields == tuple(TASK.fields)
    assert batch.inputs.shape == (COUNT, *TASK.input_shape)
    assert batch.targets.shape == batch.weights.shape == (COUNT, *TASK.output_shape)
    assert torch.equal(batch.inputs, TASK.sample(COUNT, generator(0)).inputs)


@pytest.mark.parametrize("settings", [{"d": 0}, {"noise": 0.0}, {"hard": -0.1}])
def test_bad_parameters_are_named(settings):
    ((name, value),) = settings.items()
    with pytest.raises(ValueError, match=f"{name}={value} is not legal"):
        RedundantFeatures(**settings)

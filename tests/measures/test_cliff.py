import pytest
import torch
from scipy import stats

from mesocosm.measures import cliff_reward, expected_cliff_reward
from mesocosm.seeding import generator


def test_by_hand():
    deviation = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-9.0, 0.0], [2.0, 2.0]])
    assert cliff_reward(deviation, torch.tensor([2.0, 0.0]), 2.5, 10.0).tolist() == [-10, 0, 0, 0]
    assert cliff_reward(deviation, torch.tensor([1.0, 1.0]), 2.5).tolist() == [0, 0, 0, -1]


@pytest.mark.parametrize("margin", [-0.3, 0.0, 0.5, 1.2])
def test_expectation_is_that_of_normal_weights(margin):
    deviation = 0.4 * torch.randn(400_000, 3, generator=generator(0))
    fallen = -cliff_reward(deviation, torch.tensor([1.0, -2.0, 0.5]), margin)
    probability = -expected_cliff_reward(margin, 0.4)
    assert stats.binomtest(int(fallen.sum()), len(fallen), probability).pvalue > 1e-3
    assert probability == pytest.approx(stats.norm.sf(margin / 0.4))


def test_averaging_that_divides_the_deviation_removes_nearly_all_falls():
    assert expected_cliff_reward(1.0, 1.0, 100.0) == pytest.approx(-15.866, abs=1e-3)
    assert expected_cliff_reward(1.0, 0.2, 100.0) == pytest.approx(-100 * stats.norm.sf(5), rel=1e-6)


def test_illegal_deviation_is_named():
    with pytest.raises(ValueError, match=r"deviation=0\.0 is not legal"):
        expected_cliff_reward(1.0, 0.0)

import pytest
import torch

from mesocosm.seeding import generator
from mesocosm.tasks import BernoulliBandit


def test_arms_pay_by_their_means_and_the_best_is_uniform():
    batch = BernoulliBandit(arms=4, gap=0.5, horizon=50).sample(4000, generator(0))
    assert batch.inputs.shape == (4000, 4, 50)
    rows = torch.arange(4000)
    assert torch.equal(batch.means.argmax(1), batch.targets)
    assert batch.inputs[rows, batch.targets].mean().item() == pytest.approx(0.75, abs=0.005)
    batch.inputs[rows, batch.targets] = torch.nan
    assert batch.inputs.nanmean().item() == pytest.approx(0.25, abs=0.005)
    # Standard error of a share of a quarter among 4,000: 0.007.
    assert (batch.targets.bincount() / 4000).tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_the_best_arm_can_be_set():
    best = torch.tensor([2, 0, 1])
    batch = BernoulliBandit(arms=3, gap=1, horizon=4).tapes(best, generator(0))
    expected = torch.nn.functional.one_hot(best, 3).float()
    assert torch.equal(batch.means, expected)
    assert torch.equal(batch.inputs, expected[..., None].expand(3, 3, 4))


def test_settings_out_of_range_are_named():
    with pytest.raises(ValueError, match=r"gap=1\.5 is not legal: it must be a finite number from 0 to 1"):
        BernoulliBandit(gap=1.5)

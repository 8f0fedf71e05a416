import numpy as np
import pytest
import torch
from scipy.optimize import isotonic_regression

from mesocosm.measures import tolerated_sparsity

LEVELS = torch.tensor([0.0, 0.2, 0.3, 0.5, 0.7])


@pytest.mark.parametrize(
    ("accuracies", "tolerated"),
    [
        ([1.0, 1.0, 0.96, 0.9, 0.2], 0.3),
        ([1.0, 1.0, 1.0, 1.0, 1.0], 0.7),
        ([1.0, 0.9, 0.9, 0.9, 0.9], 0.0),
        ([1.0, 0.6, 1.0, 0.1, 0.1], 0.0),  # 0.6 and 1.0 are 0.8 after smoothing
        ([0.8, 0.9, 0.72, 0.4, 0.9], 0.2),  # 0.85, 0.85, 0.72, 0.65, 0.65, of which 0.76 is enough
        ([0.0, 0.0, 0.0, 0.0, 0.0], 0.7),
    ],
)
def test_by_hand(accuracies, tolerated):
    assert tolerated_sparsity(LEVELS, torch.tensor(accuracies)).item() == pytest.approx(tolerated)


def test_smoothing_is_that_of_scipy():
    rows = torch.rand(200, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = (rows - 0.15 * torch.arange(5)).clamp_min(0)
    for row, found in zip(rows, tolerated_sparsity(LEVELS, rows, share=0.6)):
        fitted = isotonic_regression(row.numpy(), increasing=False).x
        assert found.item() == pytest.approx(LEVELS[np.flatnonzero(fitted >= 0.6 * row[0].item())[-1]].item())


def test_illegal_levels_are_named():
    with pytest.raises(ValueError, match="they must rise from 0"):
        tolerated_sparsity(torch.tensor([0.2, 0.5]), torch.ones(2))
    with pytest.raises(ValueError, match="they must rise from 0"):
        tolerated_sparsity(torch.tensor([0.0, 0.5, 0.5]), torch.ones(3))
    with pytest.raises(ValueError, match="accuracies of 3 levels are not legal: there are 2 sparsities"):
        tolerated_sparsity(torch.tensor([0.0, 0.5]), torch.ones(4, 3))

"""Calibration by hand, and choices with the frequencies of a softmax."""

import pytest
import torch
from scipy import stats

from mesocosm.models import calibrate, choose


def test_calibration_divides_by_the_mean_neutral_probability() -> None:
    scores = torch.tensor([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]]).log()
    neutral = torch.tensor([[0.6, 0.2, 0.2], [0.2, 0.6, 0.2]]).log()  # mean 0.4, 0.4, 0.2
    weights = torch.tensor([[1.25, 0.75, 1.0], [0.25, 0.25, 4.0]])
    expected = weights / weights.sum(1, keepdim=True)
    torch.testing.assert_close(calibrate(scores, neutral).exp(), expected)
    shifts = torch.tensor([[-7.0], [3.0]])  # how much mass the labels have together says nothing
    torch.testing.assert_close(calibrate(scores + shifts, neutral + shifts).exp(), expected)


def test_a_neutral_prompt_is_calibrated_to_no_preference() -> None:
    neutral = torch.randn(1, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(calibrate(neutral, neutral).exp(), torch.full((1, 4), 0.25))


def test_a_liking_for_labels_alone_is_removed() -> None:
    evidence = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    liking = torch.tensor([4.0, 0.0, -4.0])
    assert (choose(evidence + liking) == 0).all()
    found = calibrate(evidence + liking, liking[None])
    torch.testing.assert_close(found, evidence)
    assert torch.equal(choose(found), evidence.argmax(-1))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_choices_are_as_frequent_as_their_softmax_says(temperature: float) -> None:
    scores, count = torch.tensor([0.3, -1.0, 0.9]), 20_000
    uniform = torch.rand(count, generator=torch.Generator().manual_seed(0))
    counts = choose(scores.expand(count, -1), temperature, uniform).bincount(minlength=3)
    expected = (scores.double() / temperature).softmax(-1) * count
    assert stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


def test_bad_arguments_are_refused() -> None:
    scores = torch.zeros(2, 3)
    with pytest.raises(ValueError, match=r"neutral of shape \[1, 2\] is not legal: it must be \[N, 3\]"):
        calibrate(scores, torch.zeros(1, 2))
    with pytest.raises(ValueError, match=r"neutral of shape \[0, 3\] is not legal"):
        calibrate(scores, torch.zeros(0, 3))
    with pytest.raises(ValueError, match=r"temperature=-1 is not legal"):
        choose(scores, -1)
    with pytest.raises(ValueError, match=r"uniform of shape None is not legal: temperature=1 needs \[2\]"):
        choose(scores, 1)
    with pytest.raises(ValueError, match=r"uniform of shape \[3\] is not legal"):
        choose(scores, 1, torch.zeros(3))

"""Excess at equal loss: known curves, noise, and losses that cannot be compared."""

import torch

from mesocosm.measures import iso_loss_excess


def test_the_excess_is_the_distance_to_the_other_curve_at_the_same_loss() -> None:
    base_losses = torch.tensor([3.0, 2.0, 1.0])
    base_scores = torch.tensor([0.1, 0.3, 0.9])
    losses = torch.tensor([3.0, 2.5, 1.25])
    excess = iso_loss_excess(losses, torch.tensor([0.1, 0.5, 0.5]), base_losses, base_scores)
    torch.testing.assert_close(excess, torch.tensor([0.0, 0.3, -0.25], dtype=torch.float64))


def test_the_speed_of_training_does_not_matter() -> None:
    loss = torch.linspace(3, 1, 50, dtype=torch.float64)
    score = lambda loss: 1 / (1 + (5 * (loss - 2)).exp())
    sooner = loss[::7]
    assert iso_loss_excess(sooner, score(sooner), loss, score(loss)).abs().max() < 1e-9


def test_the_other_curve_is_fitted_as_a_falling_one_in_any_order() -> None:
    base_losses, base_scores = torch.tensor([1.0, 3.0, 2.0]), torch.tensor([0.4, 0.0, 0.6])  # 0.5 fits 1 and 2 best
    excess = iso_loss_excess(torch.tensor([1.0, 1.5, 2.0, 3.0]), torch.zeros(4), base_losses, base_scores)
    torch.testing.assert_close(excess, torch.tensor([-0.5, -0.5, -0.5, 0.0], dtype=torch.float64))


def test_what_cannot_be_compared_is_not_a_number() -> None:
    nan = torch.nan
    base = torch.tensor([3.0, 2.0, nan]), torch.tensor([0.1, 0.3, 0.9])
    losses = torch.tensor([3.5, 2.5, 1.5, nan])
    excess = iso_loss_excess(losses, torch.tensor([0.2, 0.2, 0.2, 0.2]), *base)
    assert excess.isnan().tolist() == [True, False, True, True]
    assert iso_loss_excess(losses, losses, torch.tensor([nan]), torch.tensor([0.5])).isnan().all()

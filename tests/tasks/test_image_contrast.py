import pytest
import torch

from mesocosm.seeding import generator
from mesocosm.tasks import ImageContrast
from mesocosm.tasks.image_contrast import MARGIN, _gaussian

TASK = ImageContrast()


def test_both_sides_have_the_same_mean_and_covariance() -> None:
    batch = TASK.sample(40_000, generator(0))
    assert batch.inputs.shape == (40_000, 16)
    assert batch.targets.sum() == 0
    for side in (1, -1):
        inputs = batch.inputs[batch.targets == side]
        assert inputs.mean(0).abs().max() < 0.06
        assert (inputs.T.cov() - torch.eye(16)).abs().max() < 0.1


def test_images_are_recovered_from_their_coordinates() -> None:
    """Unwhitening, the logistic function and rounding down give the grey levels back."""
    task = ImageContrast(size=8)
    mean, factor = _gaussian(task)
    data = task.held_out(generator(1)).inputs[:797]
    smooth = ((data @ factor.T + mean).sigmoid() - MARGIN) / (1 - 2 * MARGIN)
    assert (smooth > -1e-3).all() and (smooth < 1 + 1e-3).all()
    grey = task.images().test().inputs.flatten(1)
    levels = (grey - grey.min()) / (grey.max() - grey.min()) * 16
    assert ((smooth * 17).clamp(0, 16.999).floor() == levels.round()).double().mean() > 0.999


def test_held_out_images_are_those_of_the_test_split() -> None:
    batch = TASK.held_out(generator(1))
    assert len(batch.inputs) == 2 * 797
    assert batch.targets[:797].eq(1).all() and batch.targets[797:].eq(-1).all()
    other = TASK.held_out(generator(2))
    close = torch.nn.functional.cosine_similarity(batch.inputs[:797], other.inputs[:797])
    assert close.median() > 0.8


def test_a_size_that_does_not_divide_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match="size=5 is not legal: it must divide 8"):
        ImageContrast(size=5)

import numpy
import pytest

from mesocosm.measures import checkpoint_fluctuation, noise_amplification


def test_fluctuation_by_hand():
    assert checkpoint_fluctuation([1.0, 3.0, 5.0], -4.0) == pytest.approx(2 / 4)
    two = checkpoint_fluctuation([[1.0, 3.0], [5.0, 5.0]], [2.0, 8.0])
    assert two.tolist() == pytest.approx([2**0.5 / 2, 0])


def test_amplification_of_a_multiplied_noise_is_the_factor():
    noise = numpy.random.default_rng(0).standard_normal((5, 40))
    found = noise_amplification(-3 + 7 * noise, expert=-2, losses=0.01 + 0.02 * noise, idle=10)
    assert found.tolist() == pytest.approx([7 / 2 / (0.02 / 10)] * 5)


def test_amplification_does_not_depend_on_how_small_the_loss_is():
    rewards, losses = [1.0, 2.0, 4.0], numpy.array([1e-6, 3e-6, 2e-6])
    near, far = (noise_amplification(rewards, 1.0, losses + shift, 1.0) for shift in (0, 5))
    assert near == pytest.approx(far)


def test_a_loss_that_stands_still_gives_infinity():
    assert noise_amplification([1.0, 2.0], 1.0, [3.0, 3.0], 1.0) == numpy.inf


def test_illegal_arguments_are_named():
    with pytest.raises(ValueError, match=r"1 checkpoint\(s\) are not legal"):
        checkpoint_fluctuation([1.0], 1.0)
    with pytest.raises(ValueError, match="scale=0 is not legal"):
        checkpoint_fluctuation([1.0, 2.0], [1.0, 0.0])

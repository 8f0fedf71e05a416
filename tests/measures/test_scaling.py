import numpy as np
import pytest
from scipy.stats import linregress

from mesocosm.measures import power_law


def test_exact_power_law():
    x = np.array([10, 20, 40])
    fit = power_law(x, 3 * x**1.5)
    assert fit == pytest.approx((1.5, 3, 1))


def test_fit_equals_linear_regression_of_logarithms_on_every_leading_axis():
    x, y = np.array([10, 15, 20, 30]), np.random.default_rng(0).uniform(1, 9, (5, 2, 4))
    fit = power_law(x, y)
    expected = linregress(np.log(x), np.log(y[3, 1]))
    assert fit.exponent[3, 1] == pytest.approx(expected.slope)
    assert np.log(fit.factor[3, 1]) == pytest.approx(expected.intercept)
    assert fit.r2[3, 1] == pytest.approx(expected.rvalue**2)


def test_constant():
    fit = power_law([1, 2], [[5, 5], [1, 2]])
    assert fit.exponent == pytest.approx([0, 1])
    assert fit.r2 == pytest.approx([np.nan, 1], nan_ok=True)


def test_one_size_is_refused():
    with pytest.raises(ValueError, match=r"x=\[3, 3\] is not legal.*two different"):
        power_law([3, 3], [1, 2])

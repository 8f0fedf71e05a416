"""How one quantity grows with another."""

from typing import NamedTuple

import numpy as np

__all__ = ["power_law"]


class PowerLaw(NamedTuple):
    exponent: np.ndarray
    factor: np.ndarray
    r2: np.ndarray
    """Share of the variance of log y that the line takes."""


def power_law(x: np.ndarray, y: np.ndarray) -> PowerLaw:
    """The least-squares line through log y on log x: y is about factor * x^exponent.

    Args:
        x: `[N]`, positive, N at least 2.
        y: `[..., N]`, positive; leading axes are fits of their own, as in a bootstrap.

    Returns:
        Exponent, factor and R^2, each `[...]`; R^2 is NaN where y does not vary.

    Raises:
        ValueError: when there are fewer than two different x.
    """
    log_x, log_y = np.log(np.asarray(x, dtype=float)), np.log(np.asarray(y, dtype=float))
    if np.ptp(log_x) == 0:
        raise ValueError(f"x={np.asarray(x).tolist()} is not legal: it must hold two different numbers at least")
    dx, dy = log_x - log_x.mean(), log_y - log_y.mean(-1, keepdims=True)
    exponent = (dx * dy).sum(-1) / (dx**2).sum()
    with np.errstate(invalid="ignore", divide="ignore"):
        r2 = (dx * dy).sum(-1) ** 2 / ((dx**2).sum() * (dy**2).sum(-1))
    return PowerLaw(exponent, np.exp(log_y.mean(-1) - exponent * log_x.mean()), r2)

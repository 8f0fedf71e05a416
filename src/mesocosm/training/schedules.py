"""Learning-rate schedules: functions from the number of updates done to a factor of the base rate."""

import math
from collections.abc import Callable

__all__ = ["cosine", "linear", "trapezoid"]

Schedule = Callable[[int], float]


def linear(steps: int, warmup: int = 0) -> Schedule:
    """Rise over `warmup` steps, then fall in a straight line to 0 at step `steps` + 1.

    Raises:
        ValueError: for a warm-up longer than the training.
    """
    if warmup > steps:
        raise ValueError(f"warmup={warmup} is not legal: it must be at most steps={steps}")
    return lambda step: min((step + 1) / max(warmup, 1), (steps + 1 - step) / (steps + 1 - warmup), 1.0)


def cosine(steps: int, warmup: int = 0, floor: float = 0.0) -> Schedule:
    """Rise over `warmup` steps, then fall along half a cosine to `floor` at the last step."""

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        done = (step - warmup) / max(steps - warmup, 1)
        return floor + (1 - floor) * (1 + math.cos(math.pi * min(done, 1.0))) / 2

    return factor


def trapezoid(steps: int, warmup: int = 0, decay: float = 0.2) -> Schedule:
    """Rise over `warmup` steps, stay, and fall in a straight line to 0 in the last share `decay` of the steps."""
    return lambda step: min((step + 1) / max(warmup, 1), (steps - step) / max(decay * steps, 1), 1.0)

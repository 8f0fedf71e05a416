"""Mean lengths of random paths along training: functions of the step, for `RandomPaths`."""

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise

__all__ = ["mean_share", "progressive_drop", "stage_lengths"]


def stage_lengths(lengths: Sequence[float], changes: Sequence[int] = ()) -> Callable[[int], float]:
    """One mean length a stage; stage i + 1 begins at step `changes[i - 1]`, i = 1, 2, ...

    Rising to all layers this is RaPTr's schedule, one stage alone is LayerDrop's. For stages of equal numbers of steps,
    `changes` are `proportional_stages(steps, len(lengths), power=0)`.

    Raises:
        ValueError: when `changes` are not as many as there are stages after the first, or do not rise from 1 or more.

    Source: Panigrahi et al. (2024), Efficient Stagewise Pretraining via Progressive Subnetworks, section 3,
    arXiv 2402.05913; Fan et al. (2019), Reducing transformer depth on demand with structured dropout, arXiv 1909.11556
    """
    lengths, changes = tuple(lengths), tuple(changes)
    if len(changes) != len(lengths) - 1 or any(later <= earlier for earlier, later in pairwise((0, *changes))):
        count = len(lengths) - 1
        raise ValueError(f"changes={list(changes)} is not legal: it must be {count} rising step(s), from 1 on")
    return lambda step: lengths[bisect_right(changes, step)]


def progressive_drop(steps: int, n_layers: int, floor: float = 0.5, rate: float = 100.0) -> Callable[[int], float]:
    """Progressive layer dropping: all L layers at step 0, then fewer and fewer.

    At step t layer l is kept with probability 1 - (l / L)(1 - theta), where theta = (1 - floor) exp(-rate t / steps) +
    floor; this gives the mean length, L - (1 - theta)(L + 1) / 2. `RandomPaths` then drops all layers alike.

    Raises:
        ValueError: for a floor outside [0, 1].

    Source: Zhang & He (2020), Accelerating training of transformer-based language models with progressive layer
    dropping, section 4, arXiv 2010.13369
    """
    if not 0 <= floor <= 1:
        raise ValueError(f"floor={floor!r} is not legal: it must be a number from 0 to 1")

    def length(step: int) -> float:
        dropped = (1 - floor) * (1 - math.exp(-rate * step / steps))
        return n_layers - dropped * (n_layers + 1) / 2

    return length


def mean_share(length: Callable[[int], float], steps: int, n_layers: int) -> float:
    """Mean length over all steps divided by L: the compute of the layers relative to training all of them as long."""
    return sum(length(step) for step in range(steps)) / (steps * n_layers)

"""Reward with a cliff in the space of weights: the simplest place where a little noise costs a lot."""

import math

from torch import Tensor

__all__ = ["cliff_reward", "expected_cliff_reward"]


def cliff_reward(deviation: Tensor, normal: Tensor, margin: float, cost: float = 1.0) -> Tensor:
    """J = -cost where the weights lie beyond a half-space's edge, else 0.

    Args:
        deviation: `[..., P]`, weights minus those of the expert.
        normal: `[P]`, direction of the cliff, of any length above 0.
        margin: distance of the expert's weights from the edge.
        cost: C, what a fall costs.

    Returns:
        `[...]`.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, whose CliffLQR it reduces to the weights, arXiv
    2310.11428
    """
    return -cost * (deviation @ normal / normal.norm() > margin).to(deviation.dtype)


def expected_cliff_reward(margin: float, deviation: float, cost: float = 1.0) -> float:
    """E J = -C Phi(-margin / deviation) of weights that are normal around the expert's.

    Averaging the weights, which divides `deviation`, raises it exponentially while the squared loss gains little.

    Args:
        margin: distance of the expert's weights from the edge.
        deviation: standard deviation of the weights along the cliff's normal, above 0.
        cost: C, what a fall costs.

    Raises:
        ValueError: for a standard deviation that is not above 0.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, whose CliffLQR it reduces to the weights, arXiv
    2310.11428
    """
    if not deviation > 0:
        raise ValueError(f"deviation={deviation!r} is not legal: it must be a standard deviation above 0")
    return -cost * math.erfc(margin / deviation / math.sqrt(2)) / 2

"""Comparison of times to learn that the end of training may cut off."""

import warnings

from torch import Tensor

__all__ = ["log_rank"]


def log_rank(times: Tensor, other_times: Tensor, budget: float) -> tuple[float, float]:
    """Log-rank test that two groups of replicas learn at equal rates, with times cut off at the budget.

    Args:
        times, other_times: `[N]` and `[M]` in steps, infinite where a replica did not learn: `time_to_threshold` of
            errors gives them.
        budget: steps of training, at which those replicas left the comparison.

    Returns:
        the statistic, standard normal under equal rates and positive where the first group is the faster; and the
        two-sided p-value. 0 and 1 where nothing can be told apart, as when nobody learns.

    Raises:
        ValueError: for times below 0 or finite ones beyond the budget, and for NaN.

    Source: Mantel (1966), Evaluation of survival data and two new rank order statistics arising in its consideration
    """
    from scipy.stats import CensoredData, logrank

    groups = []
    for group in (times.double(), other_times.double()):
        learned = group <= budget
        if not ((group >= 0) & (learned | group.isposinf())).all():
            raise ValueError(f"times={group.tolist()} are not legal: each must be from 0 to {budget=} or infinite")
        groups.append(CensoredData.right_censored(group.clamp(max=budget).numpy(), ~learned.numpy()))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # 0 / 0 where the statistic has no variance
        result = logrank(*groups)
    statistic, p = float(result.statistic), float(result.pvalue)
    return (statistic, p) if p == p else (0.0, 1.0)

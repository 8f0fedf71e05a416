"""How far stochastic gradient descent and its averages fluctuate around the optimum of a least-squares problem."""

__all__ = ["ema_variance_factor", "stationary_variance"]


def stationary_variance(learning_rate: float, noise_variance: float, batch_size: int, dimension: int) -> float:
    """Variance of every weight under stationary SGD on least squares with standard normal inputs and noisy targets.

    A step is w <- w - eta mean_i x_i (x_i.w - y_i) with fresh x ~ N(0, I_d), y = x.w* + noise of variance sigma^2 and a
    batch of b. From E[S^2] = (1 + (d + 1)/b) I for the batch's mean S of x x^T follows, without any approximation,

        variance = eta sigma^2 / (b (2 - eta (1 + (d + 1)/b))).

    For large b it is eta sigma^2 / (b (2 - eta)). The autocovariance falls by 1 - eta a step.

    Args:
        learning_rate: eta.
        noise_variance: sigma^2.
        batch_size: b.
        dimension: d, number of inputs.

    Raises:
        ValueError: where there is no stationary law, because the learning rate is 0 or too large.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, whose linear case this makes exact, arXiv 2310.11428
    """
    largest = 2 / (1 + (dimension + 1) / batch_size)
    if not 0 < learning_rate < largest:
        raise ValueError(f"learning_rate={learning_rate} is not legal: it must be above 0 and below {largest:g}")
    return learning_rate * noise_variance / (batch_size * (2 - 2 * learning_rate / largest))


def ema_variance_factor(learning_rate: float, beta: float) -> float:
    """Variance of the average of weights over that of the weights: V = beta (1 + a c) / ((2 - beta) (1 - a c)).

    The weights' deviations have autocorrelation c^k over k steps, c = 1 - eta, and the exponential moving average
    is average <- (1 - beta) average + beta weights, a = 1 - beta; both are stationary.

    Args:
        learning_rate: eta, above 0 and below 2.
        beta: share of the newest weights, above 0 and at most 1.

    Raises:
        ValueError: when one of them is out of range.

    Source: Block et al. (2024), Butterfly Effects of SGD Noise, whose linear case this makes exact, arXiv 2310.11428
    """
    if not 0 < learning_rate < 2:
        raise ValueError(f"learning_rate={learning_rate} is not legal: it must be above 0 and below 2")
    if not 0 < beta <= 1:
        raise ValueError(f"beta={beta} is not legal: it must be above 0 and at most 1")
    product = (1 - beta) * (1 - learning_rate)
    return beta * (1 + product) / ((2 - beta) * (1 - product))

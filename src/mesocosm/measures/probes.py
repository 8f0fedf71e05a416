"""What can be read off representations."""

import warnings

from torch import Tensor

__all__ = ["linear_probe"]


def linear_probe(features: Tensor, labels: Tensor, n_classes: int, train_share: float = 0.8, l2: float = 1.0) -> float:
    """Held-out accuracy of a linear classifier of representations.

    The classifier is a multinomial logistic regression on standardised features, with a penalty of l2/2 times the
    squared norm of its weights on the summed loss in nats. It learns from the first rows and is judged on the others,
    so rows must be in no order.

    Args:
        features: `[N, D]`.
        labels: `[N]`, from 0 to n_classes - 1.
        train_share: share of the rows to learn from.
        l2: strength of the penalty, above 0.

    Raises:
        ValueError: for labels out of range, for an illegal share or penalty, and when the rows to learn from hold
            fewer than two classes or no row is left over.

    Source: Alain & Bengio (2016), Understanding intermediate layers using linear classifier probes, arXiv 1610.01644
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    if not 0 < train_share < 1:
        raise ValueError(f"train_share={train_share} is not legal: it must be between 0 and 1")
    if not l2 > 0:
        raise ValueError(f"l2={l2} is not legal: it must be above 0")
    x, y = features.double().cpu().numpy(), labels.cpu().numpy()
    if len(y) and not 0 <= y.min() <= y.max() < n_classes:
        raise ValueError(f"labels from {y.min()} to {y.max()} are not legal: they must be from 0 to {n_classes - 1}")
    count = round(train_share * len(y))
    if count == len(y) or len(set(y[:count].tolist())) < 2:
        raise ValueError(f"{len(y)} rows are too few: a probe learns from two classes at least, and is tested on more")
    scaler = StandardScaler().fit(x[:count])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # A probe stopped after 1,000 iterations is good enough.
        probe = LogisticRegression(C=1 / l2, max_iter=1000).fit(scaler.transform(x[:count]), y[:count])
    return float(probe.score(scaler.transform(x[count:]), y[count:]))

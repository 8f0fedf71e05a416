"""How copies of one network disagree, how calibrated their votes are, and how both bear on the test error.

R copies vote: q_k(x) is the share of them that predict class k. A vote takes few values v, so the calibration errors
here are exact, without bins. With A(v) the mean number of classes per input that have vote v and are the label, and
B(v) the mean number that have vote v, votes are calibrated when A(v) = v B(v).
"""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = [
    "class_aggregated_calibration_error",
    "class_wise_calibration_error",
    "disagreement_rate",
    "disagreement_report",
    "gde_gap",
    "gde_gap_bound",
    "reliability_curve",
    "top_label_ece",
    "vote_fractions",
]


class Reliability(NamedTuple):
    votes: Tensor
    """`[V]`: the distinct values v, increasing."""
    correct: Tensor
    """`[V]`: A(v)."""
    total: Tensor
    """`[V]`: B(v); the accuracy at v is `correct / total`."""

    @property
    def miscalibration(self) -> Tensor:
        """`[V]`: A(v) - v B(v)."""
        return self.correct - self.votes * self.total


def vote_fractions(predictions: Tensor, classes: int) -> Tensor:
    """Share q_k(x) of copies that predict each class, `[..., N, K]` float64, from predicted classes `[..., R, N]`.

    Raises:
        ValueError: when a prediction is not from 0 to classes-1.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    low, high = int(predictions.min()), int(predictions.max())
    if low < 0 or high >= classes:
        raise ValueError(f"classes={classes} is not legal: predictions go from {low} to {high}, outside 0 to classes-1")
    return torch.nn.functional.one_hot(predictions, classes).double().mean(dim=-3)


def disagreement_rate(predictions: Tensor, self_pairs: bool = False) -> Tensor:
    """Mean probability that two of the copies predict different classes.

    dis = mean over pairs i < j of P[h_i(x) != h_j(x)]. With self-pairs, i and j are drawn independently, which gives
    dis_V = 1 - E sum_k q_k^2 = (1 - 1/R) dis.

    Args:
        predictions: `[..., R, N]`, classes predicted by R copies for N inputs.
        self_pairs: whether a copy is also paired with itself.

    Returns:
        `[...]` float64.

    Raises:
        ValueError: when there are no pairs, R < 2.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    copies = predictions.shape[-2]
    if copies < 2:
        raise ValueError(f"predictions holds R={copies} copies: it must hold at least 2 to compare")
    votes = vote_fractions(predictions, int(predictions.max()) + 1)
    with_self_pairs = 1 - votes.square().sum(dim=-1).mean(dim=-1)
    return with_self_pairs if self_pairs else with_self_pairs * copies / (copies - 1)


def gde_gap(votes: Tensor, labels: Tensor) -> Tensor:
    """Test error less disagreement with self-pairs, err_V - dis_V = E[sum_k q_k(x)^2 - q_y(x)].

    Where it is 0 the generalisation disagreement equality (GDE) holds: unlabelled data show the error.

    Args:
        votes: `[..., N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Returns:
        `[...]`

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    vote_for_label = votes.gather(-1, labels.expand(votes.shape[:-1])[..., None]).squeeze(-1)
    return (votes.square().sum(dim=-1) - vote_for_label).mean(dim=-1)


def reliability_curve(votes: Tensor, labels: Tensor) -> Reliability:
    """How often classes of each vote are the label: A(v) and B(v) over v, all classes together.

    Args:
        votes: `[N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    return _reliability(votes, labels[:, None] == torch.arange(votes.shape[1], device=votes.device))


def class_aggregated_calibration_error(votes: Tensor, labels: Tensor) -> Tensor:
    """CACE = sum_v |A(v) - v B(v)|: miscalibration of votes, all classes together.

    It bounds the gap of the generalisation disagreement equality, |err_V - dis_V| <= CACE, for any votes and labels.

    Args:
        votes: `[N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Returns:
        A scalar, at least 0.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    return reliability_curve(votes, labels).miscalibration.abs().sum()


def gde_gap_bound(votes: Tensor, labels: Tensor) -> Tensor:
    """The bound sum_v v |A(v) - v B(v)| on |err_V - dis_V|, which is |sum_v v (A(v) - v B(v))|; at most CACE.

    Args:
        votes: `[N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Returns:
        A scalar, at least 0.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    curve = reliability_curve(votes, labels)
    return (curve.votes * curve.miscalibration.abs()).sum()


def class_wise_calibration_error(votes: Tensor, labels: Tensor) -> Tensor:
    """Miscalibration of each class on its own, summed over classes: sum_k sum_v |A_k(v) - v B_k(v)|; at least CACE.

    Args:
        votes: `[N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Returns:
        A scalar, at least 0.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    curves = [_reliability(votes[:, k], labels == k) for k in range(votes.shape[1])]
    return torch.stack([curve.miscalibration.abs().sum() for curve in curves]).sum()


def top_label_ece(votes: Tensor, labels: Tensor) -> Tensor:
    """Expected calibration error of the most voted class: sum_v |P[right, top vote v] - v P[top vote v]|.

    Ties go to the first class. Unlike CACE it does not bound the gap between error and disagreement.

    Args:
        votes: `[N, K]`, from `vote_fractions`.
        labels: `[N]`, classes.

    Returns:
        A scalar, at least 0.

    Source: Guo et al. (2017), On Calibration of Modern Neural Networks, arXiv 1706.04599
    """
    top, predicted = votes.max(dim=1)
    return _reliability(top, predicted == labels).miscalibration.abs().sum()


def disagreement_report(predictions: Tensor, labels: Tensor, classes: int) -> dict[str, float]:
    """All of this file's numbers for one ensemble; `gap` is signed, err_V - dis_V, and also taken from the curve.

    Args:
        predictions: `[R, N]`, classes predicted by R >= 2 copies for N inputs.
        labels: `[N]`, classes.

    Source: Jiang et al. (2022), Assessing Generalization of SGD via Disagreement, arXiv 2106.13799
    """
    votes = vote_fractions(predictions, classes)
    curve, gap = reliability_curve(votes, labels), gde_gap(votes, labels)
    report = {
        "error": (predictions != labels).double().mean(),
        "disagreement": disagreement_rate(predictions),
        "disagreement with self-pairs": disagreement_rate(predictions, self_pairs=True),
        "gap": gap,
        "absolute gap": gap.abs(),
        "gap from the curve": -(curve.votes * curve.miscalibration).sum(),
        "gap bound": gde_gap_bound(votes, labels),
        "cace": class_aggregated_calibration_error(votes, labels),
        "class-wise calibration error": class_wise_calibration_error(votes, labels),
        "top-label ece": top_label_ece(votes, labels),
    }
    return {name: float(value) for name, value in report.items()}


def _reliability(votes: Tensor, right: Tensor) -> Reliability:
    """From votes and whether each is for the label, both `[N, ...]`."""
    values, bins = votes.unique(return_inverse=True)
    correct = bins[right].bincount(minlength=len(values)).double() / len(votes)
    total = bins.flatten().bincount(minlength=len(values)).double() / len(votes)
    return Reliability(values, correct, total)

"""What many answers to one problem are worth: any right one, the commonest one, or the one that a judge prefers."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["best_of_n", "majority_answer", "numeric_answers", "pass_at_n", "within_problem_auc"]

DECIMALS = 6


def numeric_answers(values: Sequence[Sequence[object]]) -> Tensor:
    """Numbers among the values `[P, N]` that programs gave, rounded to 6 decimals; float64, NaN for what is no number.

    Integers and finite floats are numbers; truth values, texts, infinities and None, from a failed program, are not.
    Answers are equal when the rounded numbers are.

    Source: Liu et al. (2023), TinyGSM: achieving >80% on GSM8k with small language models, arXiv 2312.09241
    """
    rows = [[_number(value) for value in row] for row in values]
    return torch.tensor(rows, dtype=torch.float64)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return math.nan
    try:
        return round(float(value), DECIMALS) if math.isfinite(value) else math.nan
    except OverflowError:  # An integer beyond all floats.
        return math.nan


def pass_at_n(correct: Tensor, n: int) -> Tensor:
    """Probability that n of the N samples, drawn without replacement, hold a right one: 1 - C(N - c, n) / C(N, n).

    It is the unbiased estimate of 1 - (1 - p)^n for samples that are right with probability p.

    Args:
        correct: `[P, N]` bool, whether each sample of each problem is right.

    Returns:
        `[P]` float64.

    Raises:
        ValueError: when n is not from 1 to N.

    Source: Chen et al. (2021), Evaluating large language models trained on code, section 2.1, arXiv 2107.03374
    """
    samples = correct.shape[1]
    _check(n, samples)
    wrong = samples - correct.sum(1)
    # C(N - c, n) / C(N, n) is the product over i < n of (N - c - i) / (N - i), which has a factor 0 where c > N - n.
    place = torch.arange(n)
    return 1 - ((wrong[:, None] - place).clamp_min(0).double() / (samples - place)).prod(1)


def majority_answer(answers: Tensor, n: int) -> Tensor:
    """The commonest of each problem's first n answers, from `[P, N]` to `[P]`; the earliest of equally common ones.

    NaN, as from a failed program, is no candidate; where there is no other, the answer is NaN.

    Raises:
        ValueError: when n is not from 1 to N.

    Source: Wang et al. (2022), Self-consistency improves chain of thought reasoning in language models, section 2,
    arXiv 2203.11171
    """
    _check(n, answers.shape[1])
    first = answers[:, :n]
    votes = (first[:, :, None] == first[:, None, :]).sum(2)  # NaN equals nothing, not even itself.
    return first.gather(1, votes.argmax(1, keepdim=True)).squeeze(1)


def best_of_n(answers: Tensor, scores: Tensor, n: int) -> Tensor:
    """The answer of largest score among each problem's first n, from `[P, N]` twice to `[P]`; the earliest of equals.

    Raises:
        ValueError: when n is not from 1 to N.

    Source: Cobbe et al. (2021), Training verifiers to solve math word problems, section 4, arXiv 2110.14168
    """
    _check(n, answers.shape[1])
    return answers.gather(1, scores[:, :n].argmax(1, keepdim=True)).squeeze(1)


def within_problem_auc(scores: Tensor, correct: Tensor) -> Tensor:
    """Probability that a right sample scores above a wrong one of the same problem, ties counting half.

    Scores that only tell easy problems from hard ones get 1/2, as chance does.

    Args:
        scores, correct: `[P, N]`, the latter bool.

    Returns:
        `[P]` float64, NaN for a problem that has no right or no wrong sample.
    """
    above = (scores[:, :, None] > scores[:, None, :]).double()
    above += 0.5 * (scores[:, :, None] == scores[:, None, :])
    pairs = correct[:, :, None] & ~correct[:, None, :]
    return (above * pairs).sum((1, 2)) / pairs.sum((1, 2))


def _check(n: int, samples: int) -> None:
    if not 1 <= n <= samples:
        raise ValueError(f"n={n} is not legal: it must be from 1 to the {samples} samples of a problem")

import itertools
import math
from collections import Counter

import pytest
import torch

from mesocosm.measures import best_of_n, majority_answer, numeric_answers, pass_at_n, within_problem_auc

NAN = math.nan


def test_pass_at_n_is_the_share_of_subsets_with_a_right_sample():
    samples = 6
    correct = torch.tensor(list(itertools.product([False, True], repeat=samples)))
    for n in range(1, samples + 1):
        found = pass_at_n(correct, n)
        for row, value in zip(correct.tolist(), found.tolist()):
            subsets = list(itertools.combinations(row, n))
            assert value == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-12)


def test_pass_at_n_is_unbiased():
    """Over all outcomes of independent samples its expectation is 1 - (1 - p)^n."""
    samples, p = 5, 0.3
    correct = torch.tensor(list(itertools.product([False, True], repeat=samples)))
    right = correct.sum(1)
    weights = p ** right.double() * (1 - p) ** (samples - right).double()
    for n in range(1, samples + 1):
        assert float((weights * pass_at_n(correct, n)).sum()) == pytest.approx(1 - (1 - p) ** n, abs=1e-12)


def test_pass_at_n_of_many_samples_stays_a_probability():
    correct = torch.arange(1000)[None] < torch.tensor([0, 1, 500, 999, 1000])[:, None]
    for n in (1, 100, 1000):
        exact = [1 - math.comb(1000 - c, n) / math.comb(1000, n) for c in (0, 1, 500, 999, 1000)]
        assert pass_at_n(correct, n).tolist() == pytest.approx(exact, abs=1e-12)


def test_the_majority_is_the_earliest_commonest_answer():
    values = [1.0, 2.0, NAN]
    rows = list(itertools.product(values, repeat=5))
    for n in range(1, 6):
        found = majority_answer(torch.tensor(rows, dtype=torch.float64), n).tolist()
        for row, answer in zip(rows, found):
            votes = Counter(value for value in row[:n] if not math.isnan(value))
            expected = votes.most_common(1)[0][0] if votes else NAN  # Counters keep the order of first sight.
            assert answer == pytest.approx(expected, nan_ok=True)


def test_the_best_of_n_looks_at_the_first_n_alone():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(50, 8, generator=generator)
    answers = torch.arange(400, dtype=torch.float64).view(50, 8)
    for n in (1, 3, 8):
        expected = [row[max(range(n), key=lambda i: score[i])] for row, score in zip(answers.tolist(), scores.tolist())]
        assert best_of_n(answers, scores, n).tolist() == expected
    assert best_of_n(torch.tensor([[5.0, 6.0]]), torch.tensor([[1.0, 1.0]]), 2).tolist() == [5.0]


def test_a_perfect_judge_is_right_whenever_any_sample_is():
    generator = torch.Generator().manual_seed(1)
    answers = torch.randint(4, (200, 6), generator=generator).double()
    truth = torch.randint(4, (200,), generator=generator).double()
    correct = answers == truth[:, None]
    chosen = best_of_n(answers, correct.double(), 6)
    assert torch.equal((chosen == truth).double(), pass_at_n(correct, 6))


def test_auc_counts_pairs_within_problems():
    generator = torch.Generator().manual_seed(2)
    scores = torch.randint(4, (60, 7), generator=generator).double()
    correct = torch.rand(60, 7, generator=generator) < 0.5
    correct[0], correct[1] = True, False
    found = within_problem_auc(scores, correct)
    for score, right, value in zip(scores.tolist(), correct.tolist(), found.tolist()):
        pairs = [(a > b) + (a == b) / 2 for a, r in zip(score, right) if r for b, s in zip(score, right) if not s]
        assert value == pytest.approx(sum(pairs) / len(pairs) if pairs else NAN, nan_ok=True)
    assert found[:2].isnan().all()


def test_scores_of_problems_alone_have_an_auc_of_one_half():
    correct = torch.tensor([[True, False, False], [True, True, False]])
    assert within_problem_auc(torch.tensor([[3.0] * 3, [9.0] * 3]), correct).tolist() == [0.5, 0.5]


def test_numbers_are_told_from_other_values():
    values = [[3, 3.0000000001, 3.1, True, None, "3"], [math.inf, NAN, 10**400, [3], -0.0, -7]]
    nan = [NAN] * 4
    expected = [[3.0, 3.0, 3.1, *nan[:3]], [*nan, 0.0, -7.0]]
    found = numeric_answers(values)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("n", [0, 4])
def test_illegal_n(n):
    answers = torch.zeros(2, 3)
    message = f"n={n} is not legal: it must be from 1 to the 3 samples"
    for call in (
        lambda: pass_at_n(answers.bool(), n),
        lambda: majority_answer(answers, n),
        lambda: best_of_n(answers, answers, n),
    ):
        with pytest.raises(ValueError, match=message):
            call()

from itertools import combinations
from math import comb

import numpy
import pytest
import torch

from mesocosm.measures import feldman_memorisation, influence_scores, random_subsets, trajectory_classes
from mesocosm.seeding import generator

X = torch.tensor([0.0, 1.0, 2.1, 3.3, 4.6, 6.0, 7.5])
Y = torch.tensor([0, 0, 1, 0, 1, 1, 0])
TEST_X, TEST_Y = torch.tensor([0.4, 2.5, 5.2]), torch.tensor([0, 1, 0])


def nearest_is_right(included: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """`[K, M]`: what a nearest-neighbour classifier gets right that learned from each row of `included`."""
    far = (x[:, None] - X).abs() + torch.where(included, 0, 1000)[:, None]
    return Y[far.argmin(dim=-1)] == y


def every_subset(size: int) -> torch.Tensor:
    chosen = list(combinations(range(len(X)), size))
    return torch.stack([torch.isin(torch.arange(len(X)), torch.tensor(c)) for c in chosen])


def memorisation_in_closed_form(size: int) -> list[float]:
    """1 - P[the label of the nearest of `size` of the others is right]: the r-th nearest is it, r from 0, if the
    others come from the n - 2 - r that are farther."""
    n, scores = len(X), []
    for i in range(n):
        others = sorted((j for j in range(n) if j != i), key=lambda j: abs(float(X[i] - X[j])))
        chance = [comb(n - 2 - r, size - 1) / comb(n - 1, size) for r in range(n - 1)]
        assert sum(chance) == pytest.approx(1)
        scores.append(1 - sum(p for p, j in zip(chance, others) if Y[j] == Y[i]))
    return scores


@pytest.mark.parametrize("size", [2, 4, 5])
def test_memorisation_of_a_nearest_neighbour_is_known(size):
    included = every_subset(size)
    found = feldman_memorisation(nearest_is_right(included, X, Y), included, least=1)
    assert found.inside.tolist() == [1.0] * len(X)
    assert found.score.tolist() == pytest.approx(memorisation_in_closed_form(size), abs=1e-12)
    torch.testing.assert_close(found.score, found.inside - found.outside)


def test_influence_equals_counting_over_all_subsets():
    included = every_subset(4)
    correct = nearest_is_right(included, TEST_X, TEST_Y)
    found = influence_scores(correct.numpy(), included.numpy(), least=1)
    for i in range(len(X)):
        for j in range(len(TEST_X)):
            sides = [[float(c[j]) for c, m in zip(correct, included) if bool(m[i]) == side] for side in (True, False)]
            means = [sum(side) / len(side) for side in sides]
            noise = [a * (1 - a) / len(side) for a, side in zip(means, sides)]
            assert float(found.score[i, j]) == pytest.approx(means[0] - means[1], abs=1e-12)
            assert float(found.standard_error[i, j]) == pytest.approx(sum(noise) ** 0.5, abs=1e-8)
    assert found.score.abs().max() > 0.3


def test_memorisation_is_influence_on_itself():
    included = random_subsets(50, len(X), generator(0))
    correct = nearest_is_right(included, X, Y)
    for own, any_pair in zip(feldman_memorisation(correct, included), influence_scores(correct, included)):
        torch.testing.assert_close(own, any_pair.diagonal(), atol=1e-7, rtol=0)


def test_random_subsets_estimate_the_truth_as_closely_as_the_standard_error_says():
    trials, models, size = 400, 60, 5
    included = random_subsets(trials * models, len(X), generator(1), share=size / len(X))
    correct = nearest_is_right(included, X, Y)
    pooled = feldman_memorisation(correct, included)
    truth = torch.tensor(memorisation_in_closed_form(size), dtype=torch.float64)
    assert ((pooled.score - truth).abs() <= 4.5 * pooled.standard_error).all()
    assert pooled.standard_error.max() < 0.01
    single = [feldman_memorisation(c, m) for c, m in zip(correct.split(models), included.split(models))]
    scores, errors = (torch.stack([getattr(s, name) for s in single]) for name in ("score", "standard_error"))
    noisy = scores.std(dim=0) > 0
    ratio = errors.square().nanmean(dim=0)[noisy].sqrt() / scores.std(dim=0)[noisy]
    assert noisy.any() and ratio.min() > 0.8 and ratio.max() < 1.1


def test_few_left_out_examples_give_leave_one_out():
    """Ridge regression: residuals of leave-one-out are those of the whole, over one less the leverage."""
    draw = generator(2)
    x = torch.randn(40, 6, generator=draw, dtype=torch.float64)
    y = x @ torch.ones(6, dtype=torch.float64) + torch.randn(40, generator=draw, dtype=torch.float64)
    ridge = 0.5 * torch.eye(6, dtype=torch.float64)
    hat = x @ torch.linalg.solve(x.T @ x + ridge, x.T)
    residual = y - hat @ y
    exact = (residual / (1 - hat.diagonal())).square() - residual.square()
    included = random_subsets(600, 40, draw, share=0.95)
    kept = included.double()
    grams = torch.einsum("kn,nd,ne->kde", kept, x, x) + ridge
    theta = torch.linalg.solve(grams, torch.einsum("kn,nd,n->kd", kept, x, y))
    memorised = feldman_memorisation(-(y - theta @ x.T).square(), included).score
    assert torch.corrcoef(torch.stack([exact, memorised]))[0, 1] > 0.95
    assert (memorised / exact).median() == pytest.approx(1, abs=0.25)


def test_subsets_are_uniform_and_of_one_size():
    included = random_subsets(4000, 6, generator(3), share=0.5)
    assert included.dtype == torch.bool and (included.sum(dim=1) == 3).all()
    assert len(included.unique(dim=0)) == comb(6, 3)
    together = included.double().T @ included.double() / 4000
    expected = torch.full((6, 6), 3 / 6 * 2 / 5, dtype=torch.float64).fill_diagonal_(0.5)
    torch.testing.assert_close(together, expected, atol=0.035, rtol=0)
    assert torch.equal(included, random_subsets(4000, 6, generator(3), share=0.5))


def test_too_few_models_on_a_side_give_no_score():
    included = numpy.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 0, 1]])
    correct = numpy.array([[1.0, 0.5, 0], [1, 0.25, 1], [0, 1, 1], [1, 0, 0]])
    correct.flags.writeable = False
    found = feldman_memorisation(correct, included, least=2)
    assert found.score.isnan().tolist() == [True, False, False]
    assert found.standard_error.isnan().tolist() == [True, False, False]
    assert found.inside.tolist() == pytest.approx([2 / 3, 0.75, 0.5])
    assert found.score[1:].tolist() == pytest.approx([0.75 - 0.125, 0.0])
    assert float(found.standard_error[1]) == pytest.approx((0.0625 / 2 + 0.015625 / 2) ** 0.5)


def test_trajectories_have_the_four_shapes():
    scores = {
        "flat": [[0.1, 0.15, 0.19], [0.9, 0.81, 0.81], [0.5, 0.1, 0.5]],
        "increasing": [[0.0, 0.5, 1.0], [0.0, 0.55, 0.5]],
        "decreasing": [[1.0, 0.5, 0.2], [0.5, 0.55, 0.3]],
        "cap": [[0.1, 0.5, 0.1], [0.0, 0.7, 0.5], [0.5, 0.7, 0.0]],
        "unknown": [[0.0, float("nan"), 1.0], [float("nan"), 0.0, 0.0]],
    }
    rows = [(name, row) for name, rows in scores.items() for row in rows]
    found = trajectory_classes(torch.tensor([row for _, row in rows]).T)
    assert found.tolist() == [name for name, _ in rows]
    assert trajectory_classes(numpy.array([[0.0], [0.5]]), margin=0.6).tolist() == ["flat"]


def test_bad_arguments_are_named():
    ones = torch.ones(4, 3)
    with pytest.raises(ValueError, match=r"correct \[4, 2\] and included \[4, 3\] must both be"):
        feldman_memorisation(ones[:, :2], ones)
    with pytest.raises(ValueError, match="correct is of 2 models and included of 4"):
        influence_scores(ones[:2], ones)
    with pytest.raises(ValueError, match="included must hold only 0 and 1"):
        feldman_memorisation(ones, 2 * ones)
    for share in (0.01, 1.0):
        with pytest.raises(ValueError, match=f"share={share} of 10 examples"):
            random_subsets(3, 10, generator(0), share)
    with pytest.raises(ValueError, match="scores hold 1 sizes"):
        trajectory_classes(ones[:1])

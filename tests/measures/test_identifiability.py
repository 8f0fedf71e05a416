"""Ranks of known Jacobians, distances against brute force, and twins that really look alike."""

import math
from itertools import permutations

import pytest
import torch

from mesocosm.measures import (
    householder_ghost,
    jacobian_rank,
    matched_error,
    rotation_fixing_ones,
    rotation_twin,
)
from mesocosm.measures.identifiability import ENUMERATED
from mesocosm.seeding import generator
from mesocosm.tasks import DiscreteHMM, GaussianHMM
from mesocosm.tasks.hidden_markov import state_posterior, token_conditional


def random_model(k, d, seed):
    task = DiscreteHMM(states=k, symbols=d, table=seed)
    return task.emission, task.transition


def test_rank_of_a_product_of_factors():
    """u v^T has m + n - 1 degrees of freedom, of m + n parameters."""
    parameters = torch.randn(7, dtype=torch.float64, generator=generator(0))
    found = jacobian_rank(lambda p: torch.outer(p[:4], p[4:]), parameters)
    assert (found.rank, found.deficiency) == (6, 1)
    difference = torch.zeros(12, 7, dtype=torch.float64)
    for i in range(7):
        step = 1e-6 * torch.eye(7, dtype=torch.float64)[i]
        above, below = (torch.outer(p[:4], p[4:]).flatten() for p in (parameters + step, parameters - step))
        difference[:, i] = (above - below) / 2e-6
    torch.testing.assert_close(found.singular_values, torch.linalg.svdvals(difference), rtol=0, atol=1e-7)


def test_rank_counts_values_above_the_tolerance():
    scale = torch.tensor([1.0, 1e-8, 1e-10], dtype=torch.float64)
    assert jacobian_rank(lambda p: scale * p, torch.ones(3, dtype=torch.float64)).rank == 2
    assert jacobian_rank(lambda p: scale * p, torch.ones(3, dtype=torch.float64), tolerance=1e-12).rank == 3


def test_distance_against_brute_force_over_relabellings():
    (true, moves), (other, other_moves) = random_model(4, 5, 0), random_model(4, 5, 1)
    least = math.inf
    for order in permutations(range(4)):
        p = torch.eye(4, dtype=torch.float64)[:, list(order)]
        distance = torch.linalg.norm(other @ p - true) + torch.linalg.norm(p.mT @ other_moves @ p - moves)
        least = min(least, distance.item())
    assert matched_error(other, other_moves, true, moves).item() == pytest.approx(least, abs=1e-14)


@pytest.mark.parametrize("k", [3, ENUMERATED + 2])
def test_relabelled_models_are_at_distance_zero(k):
    emission, transition = random_model(k, k + 1, 0)
    stacks = []
    for seed in range(3):
        order = torch.randperm(k, generator=generator(seed))
        stacks.append((emission[:, order], transition[order][:, order]))
    features, moves = map(torch.stack, zip(*stacks))
    assert matched_error(features, moves, emission, transition).tolist() == [0, 0, 0]
    nearby = matched_error(features + 1e-6, moves, emission, transition)
    assert nearby.tolist() == pytest.approx([1e-6 * math.sqrt(k * (k + 1))] * 3, rel=1e-6)


def test_a_distance_to_what_is_not_finite_is_nan():
    for k in (3, 9):
        emission, transition = random_model(k, k, 0)
        assert matched_error(emission * torch.nan, transition, emission, transition).isnan()


@pytest.mark.parametrize("k", [3, 5])
def test_rotations_fix_the_ones(k):
    rotation = rotation_fixing_ones(k, 0.3, generator(1))
    ones = torch.ones(k, dtype=torch.float64)
    torch.testing.assert_close(rotation @ ones, ones, rtol=0, atol=1e-14)
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(k, dtype=torch.float64), rtol=0, atol=1e-14)
    assert torch.linalg.eigvals(rotation).angle().abs().max().item() == pytest.approx(0.3)
    assert torch.linalg.det(rotation).item() == pytest.approx(1)


@pytest.mark.parametrize("k", [3, 4])
def test_a_rotation_twin_shares_all_pair_laws_and_no_triple_law(k):
    model = random_model(k, k + 1, 3)
    twin = rotation_twin(*model, rotation_fixing_ones(k, 0.1, generator(1)))
    for part in twin:
        torch.testing.assert_close(part.sum(0), torch.ones(k, dtype=torch.float64), rtol=0, atol=1e-14)
        assert part.min() >= 0
    for gap in range(1, 5):
        for task in (((0,), (gap,)), ((gap,), (0,))):
            same = token_conditional(*model, *task) - token_conditional(*twin, *task)
            assert same.abs().max() < 1e-14
    assert (token_conditional(*model, (0,), (1, 2)) - token_conditional(*twin, (0,), (1, 2))).abs().max() > 1e-7
    assert matched_error(*twin, *model) > 0.02


def test_a_ghost_shares_posterior_and_predictor_but_its_columns_sum_to_minus_one():
    for seed in range(3):
        task = GaussianHMM(table=seed)
        means, transition = task.means, task.transition
        ghost, matching = householder_ghost(means, transition)
        x = torch.randn(50, 5, dtype=torch.float64, generator=generator(seed))
        torch.testing.assert_close(ghost.norm(dim=0), means.norm(dim=0), rtol=0, atol=1e-13)
        torch.testing.assert_close(state_posterior(ghost, x), state_posterior(means, x), rtol=0, atol=1e-13)
        predicted = state_posterior(ghost, x) @ (ghost @ matching).mT
        torch.testing.assert_close(predicted, task.optimal(x), rtol=0, atol=1e-13)
        torch.testing.assert_close(matching.sum(0), -torch.ones(3, dtype=torch.float64), rtol=0, atol=1e-12)
        back, again = householder_ghost(ghost, matching)
        torch.testing.assert_close(back, means, rtol=0, atol=1e-12)
        torch.testing.assert_close(again, transition, rtol=0, atol=1e-12)
    stacked = householder_ghost(torch.stack([means, ghost]), torch.stack([transition, matching]))
    torch.testing.assert_close(stacked[0], torch.stack([ghost, means]), rtol=0, atol=1e-12)


def test_bad_rotations_are_refused():
    with pytest.raises(ValueError, match="states=2 is not legal"):
        rotation_fixing_ones(2, 0.1, generator(0))
    _, transition = random_model(3, 4, 0)
    with pytest.raises(ValueError, match="an entry of the twin is -"):
        rotation_twin(torch.eye(3, dtype=torch.float64), transition, rotation_fixing_ones(3, 0.3, generator(0)))

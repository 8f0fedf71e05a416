import pytest
import torch

from mesocosm.measures import max_displacement, null_z_score, plateau_share, projection_progress, time_to_threshold
from mesocosm.measures.progress import wrong_sets
from mesocosm.seeding import generator

INF, NAN = torch.inf, torch.nan
STEPS = torch.tensor([0, 10, 20, 30])
ERRORS = torch.tensor(
    [[0.50, 0.50, 0.50, 0.01], [0.44, 0.50, NAN, 0.01], [0.01, 0.40, NAN, 0.60], [0.30, 0.30, NAN, 0.01]]
)


def test_progress_down_a_gradient_is_the_distance_moved():
    gradients = torch.randn(5, 7, generator=generator(0), dtype=torch.float64)
    moved = -3 * gradients[2] / gradients[2].norm()
    progress = projection_progress(moved, gradients)
    assert progress[2] == pytest.approx(3)
    assert progress.argmax() == 2


def test_progress_broadcasts_over_times_and_replicas():
    draws = generator(1)
    displacement, gradients = torch.randn(4, 3, 7, generator=draws), torch.randn(3, 5, 7, generator=draws)
    progress = projection_progress(displacement, gradients)
    assert progress.shape == (4, 3, 5)
    expected = -torch.dot(displacement[2, 1], gradients[1, 4]) / gradients[1, 4].norm()
    torch.testing.assert_close(progress[2, 1, 4], expected)


def test_z_score_of_known_numbers():
    assert null_z_score(torch.tensor(5.0), torch.tensor([1.0, 2.0, 3.0])) == pytest.approx(3)
    values = torch.randn(200, 20, generator=generator(2))
    assert null_z_score(values[:, 0], values[:, 1:]).mean().abs() < 0.3


@pytest.mark.parametrize(("n", "k", "count"), [(15, 4, 20), (4, 2, 5), (6, 1, 3)])
def test_wrong_sets_are_distinct_sets_and_wrong(n, k, count):
    sets = {frozenset(row) for row in wrong_sets(n, k, count, generator(3)).tolist()}
    assert len(sets) == count
    assert all(len(s) == k and max(s) < n for s in sets)
    assert frozenset(range(k)) not in sets


def test_max_displacement():
    assert max_displacement(torch.tensor([[1.0, -4.0], [0.0, 0.5]]), torch.tensor([0.0, 1.0])).tolist() == [5.0, 0.5]


def test_time_to_threshold_with_censoring():
    assert time_to_threshold(STEPS, ERRORS, 0.02).tolist() == [20, INF, INF, 0]
    assert time_to_threshold(STEPS, ERRORS, 0.45).tolist() == [10, 20, INF, 0]
    assert time_to_threshold(STEPS, ERRORS, 0.5).tolist() == [10, 20, INF, 0]


def test_plateau_share():
    share = plateau_share(STEPS[1:], ERRORS[1:])
    assert share.tolist() == pytest.approx([0.5, NAN, NAN, 1.0], nan_ok=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: null_z_score(torch.zeros(3), torch.zeros(3, 1)), "at least 2"),
        (lambda: wrong_sets(4, 2, 6, generator(0)), "count=6 is not legal.*5 wrong sets"),
        (lambda: time_to_threshold(torch.tensor([0, 2, 1]), torch.zeros(3, 1), 0.1), r"steps=\[0, 2, 1\].*increase"),
        (lambda: plateau_share(STEPS, ERRORS, left=0.1, solved=0.2), "solved=0.2 is not legal.*left=0.1"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

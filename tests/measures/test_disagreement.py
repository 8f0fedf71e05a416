import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mesocosm.measures import (
    class_aggregated_calibration_error,
    class_wise_calibration_error,
    disagreement_rate,
    disagreement_report,
    gde_gap,
    gde_gap_bound,
    reliability_curve,
    top_label_ece,
    vote_fractions,
)
from mesocosm.seeding import generator


@st.composite
def ensembles(draw):
    """Votes [N, K] of R random copies, labels [N], predictions [R, N]."""
    copies, inputs, classes = draw(st.integers(2, 6)), draw(st.integers(1, 12)), draw(st.integers(2, 5))
    numbers = st.lists(st.integers(0, classes - 1), min_size=inputs, max_size=inputs)
    predictions = torch.tensor([draw(numbers) for _ in range(copies)])
    return vote_fractions(predictions, classes), torch.tensor(draw(numbers)), predictions


def votes_by_hand(predictions, classes):
    copies = len(predictions)
    return [[sum(int(c) == k for c in column) / copies for k in range(classes)] for column in predictions.T]


@settings(deadline=None)
@given(ensembles())
def test_error_and_disagreement_equal_counting_pairs(ensemble):
    votes, labels, predictions = ensemble
    assert votes.tolist() == [pytest.approx(row) for row in votes_by_hand(predictions, votes.shape[1])]
    pairs = [float((a != b).float().mean()) for a, b in itertools.combinations(predictions, 2)]
    assert float(disagreement_rate(predictions)) == pytest.approx(sum(pairs) / len(pairs), abs=1e-6)
    every_pair = [float((a != b).float().mean()) for a, b in itertools.product(predictions, repeat=2)]
    with_self_pairs = float(disagreement_rate(predictions, self_pairs=True))
    assert with_self_pairs == pytest.approx(sum(every_pair) / len(every_pair), abs=1e-6)
    error = float((predictions != labels).double().mean())
    assert float(gde_gap(votes, labels)) == pytest.approx(error - with_self_pairs, abs=1e-12)


@settings(deadline=None)
@given(ensembles())
def test_calibration_bounds_the_gap(ensemble):
    votes, labels, _ = ensemble
    gap, middle = float(gde_gap(votes, labels).abs()), float(gde_gap_bound(votes, labels))
    cace = float(class_aggregated_calibration_error(votes, labels))
    assert gap <= middle + 1e-12
    assert middle <= cace + 1e-12
    assert cace <= float(class_wise_calibration_error(votes, labels)) + 1e-12


@settings(deadline=None)
@given(ensembles())
def test_gap_is_the_signed_sum_of_miscalibration(ensemble):
    votes, labels, _ = ensemble
    curve = reliability_curve(votes, labels)
    assert float((curve.votes * curve.miscalibration).sum()) == pytest.approx(-float(gde_gap(votes, labels)), abs=1e-12)
    assert float(curve.correct.sum()) == pytest.approx(1)
    assert float(curve.total.sum()) == pytest.approx(votes.shape[1])


@settings(deadline=None)
@given(ensembles())
def test_calibration_errors_equal_the_definitions(ensemble):
    votes, labels, _ = ensemble
    count, classes = votes.shape
    rows, values = votes.tolist(), sorted(set(votes.flatten().tolist()))

    def miscalibration(value, allowed):
        chosen = [(x, k) for x in range(count) for k in allowed if rows[x][k] == value]
        return sum((int(labels[x]) == k) - value for x, k in chosen) / count

    cace = sum(abs(miscalibration(v, range(classes))) for v in values)
    assert float(class_aggregated_calibration_error(votes, labels)) == pytest.approx(cace, abs=1e-12)
    class_wise = sum(abs(miscalibration(v, [k])) for v in values for k in range(classes))
    assert float(class_wise_calibration_error(votes, labels)) == pytest.approx(class_wise, abs=1e-12)
    top = [row.index(max(row)) for row in rows]
    ece = sum(
        abs(sum((int(labels[x]) == top[x]) - v for x in range(count) if max(rows[x]) == v)) / count for v in values
    )
    assert float(top_label_ece(votes, labels)) == pytest.approx(ece, abs=1e-12)


def test_a_calibrated_top_label_does_not_bound_the_gap():
    """Ten inputs of votes (0.6, 0.3, 0.1): the top label is right for six, the other two classes are swapped."""
    votes = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).expand(10, 3)
    labels = torch.tensor([0] * 6 + [1] * 1 + [2] * 3)
    assert top_label_ece(votes, labels) == pytest.approx(0, abs=1e-12)
    assert gde_gap(votes, labels) == pytest.approx(0.04)
    assert gde_gap_bound(votes, labels) == pytest.approx(0.3 * 0.2 + 0.1 * 0.2)
    assert class_aggregated_calibration_error(votes, labels) == pytest.approx(0.4)


def test_labels_drawn_from_the_votes_are_calibrated():
    draws = generator(0)
    predictions = torch.randint(4, (5, 1, 200), generator=draws).expand(5, 500, 200).flatten(1)
    votes = vote_fractions(predictions, 4)
    labels = votes.multinomial(1, generator=draws).squeeze(1)
    assert gde_gap(votes, labels).abs() < 0.01
    assert class_aggregated_calibration_error(votes, labels) < 0.02
    shuffled = labels[torch.randperm(len(labels), generator=draws)]
    assert class_aggregated_calibration_error(votes, shuffled) > 0.2


def test_votes_and_disagreement_map_over_ensembles():
    predictions = torch.randint(3, (4, 5, 20), generator=generator(1))
    assert torch.equal(vote_fractions(predictions, 3)[2], vote_fractions(predictions[2], 3))
    torch.testing.assert_close(disagreement_rate(predictions)[2], disagreement_rate(predictions[2]))
    votes, labels = vote_fractions(predictions, 3), torch.arange(20) % 3
    assert gde_gap(votes, labels)[2] == gde_gap(votes[2], labels)


@settings(deadline=None)
@given(ensembles())
def test_a_report_holds_every_number(ensemble):
    votes, labels, predictions = ensemble
    report = disagreement_report(predictions, labels, votes.shape[1])
    assert report["error"] == pytest.approx(float((predictions != labels).double().mean()))
    assert report["disagreement"] == pytest.approx(float(disagreement_rate(predictions)))
    pairs = report["disagreement with self-pairs"]
    assert report["gap"] == pytest.approx(report["error"] - pairs, abs=1e-12)
    assert report["gap from the curve"] == pytest.approx(report["gap"], abs=1e-12)
    assert report["absolute gap"] == abs(report["gap"])
    for name, measure in {
        "gap bound": gde_gap_bound,
        "cace": class_aggregated_calibration_error,
        "class-wise calibration error": class_wise_calibration_error,
        "top-label ece": top_label_ece,
    }.items():
        assert report[name] == float(measure(votes, labels))


def test_equal_copies_do_not_disagree():
    assert disagreement_rate(torch.tensor([[0, 1, 2]] * 3)) == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: disagreement_rate(torch.zeros(1, 5, dtype=torch.int64)), "R=1 copies.*at least 2"),
        (lambda: vote_fractions(torch.tensor([[0, 3], [1, 2]]), 3), "classes=3 is not legal.*from 0 to 3"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

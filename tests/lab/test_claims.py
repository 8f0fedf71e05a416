"""Rules say what their intervals say; controls can take a verdict back."""

import math

import pandas as pd
import pytest

from mesocosm.lab import Claim, Control, Interval, NotEnough, above, below, contains, exact, holds, within
from mesocosm.lab.claims import judge, overall

UNKNOWN = Interval(1.0, math.nan, math.nan)


@pytest.mark.parametrize(
    ("check", "verdict"),
    [
        (above("x", Interval(2, 1.1, 3), 1), "supported"),
        (above("x", Interval(2, 0.9, 3), 1), "inconclusive"),
        (above("x", Interval(0, -1, 1), 1), "not supported"),
        (above("x", UNKNOWN, 0.5), "inconclusive"),
        (below("x", Interval(0, -1, 0.9), 1), "supported"),
        (below("x", Interval(0, -1, 1.1), 1), "inconclusive"),
        (below("x", Interval(2, 1, 3), 1), "not supported"),
        (below("x", UNKNOWN, 2), "inconclusive"),
        (within("x", Interval(1, 0.8, 1.2), 0.7, 1.3), "supported"),
        (within("x", Interval(1, 0.6, 1.2), 0.7, 1.3), "inconclusive"),
        (within("x", Interval(2, 1.8, 2.2), 0.7, 1.3), "not supported"),
        (within("x", UNKNOWN, 0.7, 1.3), "inconclusive"),
        (contains("x", Interval(0.1, -0.1, 0.3), 0), "supported"),
        (contains("x", Interval(0.2, 0.1, 0.3), 0), "not supported"),
        (contains("x", UNKNOWN, 0), "inconclusive"),
        (holds("x", exact(1), "= 1", True), "supported"),
        (holds("x", exact(2), "= 1", False), "not supported"),
        (holds("x", exact(2), "= 1", None), "inconclusive"),
    ],
)
def test_checks(check, verdict: str) -> None:
    assert check.verdict == verdict


def test_a_rule_is_as_good_as_its_weakest_check() -> None:
    good, open_, bad = above("x", exact(2), 1), above("x", UNKNOWN, 1), above("x", exact(0), 1)
    assert overall([good, good]) == "supported"
    assert overall([good, open_]) == "inconclusive"
    assert overall([good, open_, bad]) == "not supported"
    assert overall([]) == "inconclusive"


RECORDS = pd.DataFrame({"cell": ["C1/a", "C1/b", "C2/a"], "metric": "x", "value": [1.0, 2.0, 30.0]})


def claim(bound: float, control: float | None = None) -> Claim:
    value = lambda records: exact(records.value.sum())
    check = None if control is None else Control(statement="c", judge=lambda r: [below("c", value(r), control)])
    return Claim(
        id="C1",
        statement="s",
        rule="r",
        paper="p",
        cells=("C1/",),
        judge=lambda records: [above("sum", value(records), bound)],
        control=check,
    )


def test_a_claim_reads_its_own_cells_and_their_time() -> None:
    judgement = judge(claim(2.5), RECORDS, {"C1/a": 1.0, "C1/b": 2.0, "C2/a": 50.0})
    assert (judgement.verdict, judgement.effect, judgement.seconds) == ("supported", 3.0, 3.0)


@pytest.mark.parametrize(
    ("bound", "control", "verdict", "absent"),
    [(2, 4, "supported", "absent"), (2, 1, "inconclusive", "present"), (5, 1, "not supported", "present")],
)
def test_a_claim_whose_control_shows_the_effect_is_not_supported(bound, control, verdict, absent) -> None:
    judgement = judge(claim(bound, control), RECORDS, {})
    assert judgement.verdict == verdict
    assert judgement.control is not None
    assert judgement.control["verdict"] == absent
    assert ("control" in judgement.note) == (verdict == "inconclusive")


def test_too_few_records_are_said_so() -> None:
    def refuse(records):
        raise NotEnough("only one seed")

    judgement = judge(Claim(id="C1", statement="s", rule="r", paper="p", judge=refuse), RECORDS, {})
    assert (judgement.verdict, judgement.effect, judgement.note) == ("inconclusive", None, "only one seed")


def test_infinite_estimates_become_null() -> None:
    endless = Claim(
        id="C1", statement="s", rule="r", paper="p", judge=lambda r: [above("t", Interval(math.inf, 3.0, math.inf), 1)]
    )
    judgement = judge(endless, RECORDS, {})
    assert (judgement.verdict, judgement.effect, judgement.interval) == ("supported", None, [3.0, None])

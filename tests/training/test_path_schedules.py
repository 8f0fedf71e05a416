"""Schedules of path lengths: which length when, and what they cost."""

import math

import pytest

from mesocosm.training import mean_share, progressive_drop, proportional_stages, stage_lengths


def test_each_stage_has_its_length() -> None:
    length = stage_lengths([3, 4.5, 8], [2, 5])
    assert [length(step) for step in range(7)] == [3, 3, 4.5, 4.5, 4.5, 8, 8]
    assert stage_lengths([5.25])(10**6) == 5.25


@pytest.mark.parametrize(
    ("lengths", "share"), [((6, 8, 10, 12), 0.75), ((12, 16, 20, 24), 0.75), ((3, 4, 6, 8), 0.65625)]
)
def test_equal_stages_cost_what_the_paper_says(lengths: tuple[int, ...], share: float) -> None:
    changes = proportional_stages(400, 4, power=0)
    assert changes == [100, 200, 300]
    assert mean_share(stage_lengths(lengths, changes), 400, lengths[-1]) == pytest.approx(share)


def test_progressive_drop_sums_the_chances_of_its_layers() -> None:
    steps, layers, floor = 200, 6, 0.4
    length = progressive_drop(steps, layers, floor)
    for step in (0, 1, 7, 199):
        theta = (1 - floor) * math.exp(-100 * step / steps) + floor
        assert length(step) == pytest.approx(sum(1 - layer / layers * (1 - theta) for layer in range(1, layers + 1)))
    assert length(0) == layers
    assert all(length(step + 1) < length(step) for step in range(50))


@pytest.mark.parametrize("changes", [[], [5], [0, 5], [5, 5], [1, 2, 3]])
def test_wrong_changes_are_named(changes: list[int]) -> None:
    with pytest.raises(ValueError, match=r"changes=\[.*\] is not legal: it must be 2 rising step\(s\), from 1 on"):
        stage_lengths([1, 2, 3], changes)


def test_a_wrong_floor_is_named() -> None:
    with pytest.raises(ValueError, match=r"floor=1\.5 is not legal: it must be a number from 0 to 1"):
        progressive_drop(10, 4, floor=1.5)

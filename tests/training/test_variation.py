import pytest

from mesocosm.training import copy_draws
from mesocosm.training.variation import MODES, Draws


@pytest.mark.parametrize("mode", MODES)
def test_copies_differ_in_what_the_mode_names_and_in_nothing_else(mode):
    differs = {name for name in Draws._fields if getattr(copy_draws(mode, 3), name) == 3}
    assert differs == {"AllDiff": {"data", "init", "order"}}.get(mode, {mode.removeprefix("Diff").lower()})
    assert {getattr(copy_draws(mode, 3), name) for name in set(Draws._fields) - differs} <= {0}


def test_copy_0_is_the_same_in_all_modes():
    assert {copy_draws(mode, 0) for mode in MODES} == {Draws(0, 0, 0)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(("DiffSeed", 0), "mode='DiffSeed' is not legal.*DiffOrder"), (("AllDiff", -1), "copy=-1 is not legal")],
)
def test_bad_parameters_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        copy_draws(*arguments)

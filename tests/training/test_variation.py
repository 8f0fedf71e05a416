from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mesocosm.training import Population, copy_draws, vary_copies
from mesocosm.training.variation import MODES, Draws


class Rows(NamedTuple):
    inputs: Tensor


DATA = Rows(torch.arange(100))
CPU = torch.device("cpu")


def differing(mode):
    return {"AllDiff": {"data", "init", "order"}}.get(mode, {mode.removeprefix("Diff").lower()})


@pytest.mark.parametrize("mode", MODES)
def test_copies_differ_in_what_the_mode_names_and_in_nothing_else(mode):
    assert {name: value for name, value in copy_draws(mode, 3)._asdict().items() if value} == dict.fromkeys(
        differing(mode), 3
    )


def test_copy_0_is_the_same_in_all_modes():
    assert {copy_draws(mode, 0) for mode in MODES} == {Draws(0, 0, 0)}


@pytest.mark.parametrize("mode", MODES)
def test_two_copies_share_all_that_the_mode_freezes(mode):
    init, stream = vary_copies(DATA, 20, 5, seeds=[7, 7], modes=[mode] * 2, copies=[0, 1])
    first, second = Population(lambda: nn.Linear(3, 2), init).theta
    assert torch.equal(first, second) == ("init" not in differing(mode))
    batches = torch.stack([stream(step, [0, 1], CPU).inputs for step in range(4)], dim=1)
    sets = [set(copy.flatten().tolist()) for copy in batches]
    assert len(sets[0]) == len(sets[1]) == 20
    assert (sets[0] & sets[1] == set()) if "data" in differing(mode) else sets[0] == sets[1]
    assert torch.equal(*batches) == (not {"data", "order"} & differing(mode))
    if mode == "DiffData":  # The same places of two training sets, step by step.
        places = [
            subset.argsort()[torch.searchsorted(subset.sort().values, batch)]
            for subset, batch in zip(stream.subsets, batches)
        ]
        assert torch.equal(*places)


def test_a_copy_does_not_depend_on_its_company():
    alone = vary_copies(DATA, 20, 5, seeds=[1], modes=["AllDiff"], copies=[2])
    many = vary_copies(DATA, 20, 5, seeds=[0, 1, 1], modes=["DiffInit", "AllDiff", "AllDiff"], copies=[3, 4, 2])
    assert alone[0][0] == many[0][2]
    for step in (0, 5):
        assert torch.equal(alone[1](step, [0], CPU).inputs[0], many[1](step, [2], CPU).inputs[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: copy_draws("DiffSeed", 0), "mode='DiffSeed' is not legal.*DiffOrder"),
        (lambda: copy_draws("AllDiff", -1), "copy=-1 is not legal"),
        (lambda: vary_copies(DATA, 60, 5, seeds=[0], modes=["DiffData"], copies=[1]), "size=60.*at most pool=100"),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

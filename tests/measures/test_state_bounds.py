import itertools

import pytest
import torch

from mesocosm.measures import copy_through_state, repeat_bound, state_bound


def all_strings(letters, length):
    return torch.tensor(list(itertools.product(range(letters), repeat=length)))


@pytest.mark.parametrize(("letters", "length"), [(2, 5), (3, 4), (4, 3)])
def test_the_machine_attains_the_bound_of_its_states_exactly(letters, length):
    strings = all_strings(letters, length)
    for kept in range(length + 2):
        answers, state = copy_through_state(strings, letters, kept)
        states = len(state.unique())
        right = int((answers == strings).all(1).sum())
        assert states == letters ** min(kept, length)
        assert right == states
        assert right / len(strings) == pytest.approx(state_bound(torch.tensor(float(states)).log2(), length, letters))


def test_the_answer_depends_on_the_state_alone():
    strings = all_strings(3, 4)
    answers, state = copy_through_state(strings, 3, 2)
    for value in state.unique():
        assert len(answers[state == value].unique(dim=0)) == 1


@pytest.mark.parametrize(("bits", "length"), [(0, 3), (2, 3), (5, 3), (6, 3), (7, 3)])
def test_no_assignment_of_answers_to_states_beats_the_bound(bits, length):
    # The best machine answers one string of its own in each state.
    assert state_bound(bits, length, 4) == min(1, 2**bits / 4**length)


def test_huge_bits_and_lengths_do_not_overflow():
    assert state_bound(1e6, 100, 26) == 1
    assert state_bound(10, 10_000, 26) == 0


def test_too_large_a_state_is_refused():
    with pytest.raises(ValueError, match="kept=30 is not legal"):
        copy_through_state(torch.zeros(1, 40, dtype=torch.int64), 8, 30)


@pytest.mark.parametrize(("letters", "length"), [(2, 7), (3, 5)])
def test_repeats_are_as_rare_as_bounded(letters, length):
    strings = all_strings(letters, length).tolist()
    for n in range(1, length + 1):
        grams = [[tuple(s[i : i + n]) for i in range(length - n + 1)] for s in strings]
        pairs = sum(a == b for g in grams for a, b in itertools.combinations(g, 2))
        repeated = sum(len(set(g)) < len(g) for g in grams)
        assert pairs * letters**n == len(strings) * (length - n + 1) * (length - n) // 2
        assert repeated / len(strings) <= repeat_bound(n, length, letters) <= length**2 * letters**-n

"""What a state of fixed size, or a look-up of n-grams, can do at best when strings are to be copied."""

import math
from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["copy_through_state", "repeat_bound", "state_bound"]


def state_bound(bits: float, length: int, letters: int) -> float:
    """Largest share of uniform strings that can be copied through a state of so many bits, min(1, 2^bits / D^L).

    Each value of the state after the string has one answer, and each answer is right for one of the D^L strings.

    Source: Jelassi et al. (2024), Repeat after me, theorem 2.7, arXiv 2402.01032
    """
    return 2.0 ** min(0.0, bits - length * math.log2(letters))


def repeat_bound(n: int, length: int, letters: int) -> float:
    """Upper bound of the probability that a uniform string holds some n-gram twice, (L - n + 1)(L - n) / 2 D^-n.

    Two given places hold the same n-gram with probability D^-n, also where they overlap. Below L^2 D^-n, as in the
    paper. Where no n-gram is repeated, looking up the last n letters copies without error.

    Source: Jelassi et al. (2024), Repeat after me, section 2, arXiv 2402.01032
    """
    return min(1.0, math.comb(max(length - n + 1, 0), 2) * float(letters) ** -n)


class Copied(NamedTuple):
    answers: Tensor
    """`[B, L]` int64: the copy of each string."""
    state: Tensor
    """`[B]` int64: all that was kept of it, one of D^kept values."""


def copy_through_state(strings: Tensor, letters: int, kept: int) -> Copied:
    """Copies of strings `[B, L]` by a machine whose state holds the first `kept` letters; it guesses 0 for the rest.

    It reads letter by letter, then answers from the state alone. Its share of right copies over all D^L strings is
    exactly D^(kept - L), which is `state_bound` for its D^kept states: no machine with as many can do better.

    Raises:
        ValueError: when the state is no 63-bit integer.
    """
    if not 0 <= kept * math.log2(letters) < 63:
        raise ValueError(f"kept={kept} is not legal: the state of {letters}^{kept} values must fit into 63 bits")
    state = strings.new_zeros(len(strings))
    for letter in strings.T[:kept]:
        state = state * letters + letter
    kept = min(kept, strings.shape[1])
    answers = torch.zeros_like(strings)
    for place in range(kept):
        answers[:, place] = state // letters ** (kept - 1 - place) % letters
    return Copied(answers, state)

import torch
from scipy import stats

from mesocosm.seeding import _mixed, random_words

WORD = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15


def mixed(z: int) -> int:
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def test_mixing_is_that_of_splitmix64() -> None:
    # The first numbers of SplitMix64 from 1234567, as its public implementations give them.
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    states = [(1234567 + i * GOLDEN) & WORD for i in range(1, 6)]
    assert [mixed(state) for state in states] == known
    signed = torch.tensor([state - 2**64 if state >> 63 else state for state in states])
    assert [word & WORD for word in _mixed(signed).tolist()] == known


def test_words_are_functions_of_their_keys_and_numbers() -> None:
    keys = torch.tensor([0, 5, 2**63 - 1])
    words = random_words(keys, 7, 20)
    expected = [[mixed(key ^ mixed((7 + i + 1) * GOLDEN & WORD)) for i in range(20)] for key in keys.tolist()]
    assert [[word & WORD for word in row] for row in words.tolist()] == expected
    assert torch.equal(random_words(keys[1:2], 12, 3), words[1:2, 5:8])


def test_bits_are_fair_and_independent() -> None:
    """Of one word, of neighbouring words and of neighbouring keys."""
    words = random_words(torch.arange(40), 0, 500)
    bits = (words[..., None] >> torch.arange(64) & 1).double() * 2 - 1  # [keys, words, 64]
    for sums in (
        bits.mean((0, 1)) * (40 * 500) ** 0.5,
        (bits[..., :-1] * bits[..., 1:]).mean((0, 1)) * (40 * 500) ** 0.5,
        (bits[:, :-1] * bits[:, 1:]).mean((0, 1)) * (40 * 499) ** 0.5,
        (bits[:-1] * bits[1:]).mean((0, 1)) * (39 * 500) ** 0.5,
    ):
        assert stats.kstest(sums.numpy(), "norm").pvalue > 1e-3
    assert stats.chisquare((words & 1023).flatten().bincount()).pvalue > 1e-3
    assert words.unique().numel() == words.numel()

"""Keyed masks against the laws of independent coins."""

import pytest
import torch
from scipy import stats
from torch import Tensor
from torch.func import functional_call, grad, vmap

from mesocosm.models.dropout import Dropout, uniform

ODD = -0x61C8864680B583EB  # 2^64 / golden ratio: keys that follow each other in training differ by such a number


def keyed(p: float) -> Dropout:
    dropout = Dropout(p)
    dropout.keyed = True
    return dropout


def masks(p: float, keys: Tensor, n_places: int) -> Tensor:
    """Kept places, one row a key."""
    dropout = keyed(p)
    return vmap(lambda key: functional_call(dropout, {"key": key}, torch.ones(n_places)))(keys) > 0


@pytest.mark.parametrize("p", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("step", [1, ODD])
def test_masks_are_independent_coins(p: float, step: int) -> None:
    kept = masks(p, 7 + step * torch.arange(400), 2000).double()
    n = kept.numel()
    assert abs(kept.mean().item() - (1 - p)) < 4 * (p * (1 - p) / n) ** 0.5

    z = (kept - (1 - p)) / (p * (1 - p)) ** 0.5
    neighbours = [z[:, lag:] * z[:, :-lag] for lag in (1, 2, 3, 4, 8)]
    next_keys = [z[lag:] * z[:-lag] for lag in (1, 2, 3)]
    diagonals = [z[1:, lag:] * z[:-1, :-lag] for lag in (1, 4)] + [z[1:, :-lag] * z[:-1, lag:] for lag in (1, 4)]
    for products in neighbours + next_keys + diagonals:
        assert abs(products.mean().item()) < 4.5 / products.numel() ** 0.5

    for axis in (0, 1):  # counts along each axis have a binomial's variance
        counts = kept.sum(axis)
        ratio = counts.var().item() / (p * (1 - p) * kept.shape[axis])
        assert stats.chi2.cdf(ratio * (len(counts) - 1), len(counts) - 1) == pytest.approx(0.5, abs=0.4999)


@pytest.mark.parametrize("bits", [(56, 64), (48, 56)])
def test_hashed_bytes_are_uniform_alone_and_in_neighbouring_pairs(bits: tuple[int, int]) -> None:
    numbers = vmap(lambda key: uniform(key, 4000))(ODD * torch.arange(200))
    byte = (numbers >> bits[0]) & 0xFF
    nibble = byte >> 4
    pair = nibble[:, :-1] * 16 + nibble[:, 1:]
    for values in (byte, pair):
        observed = torch.bincount(values.flatten(), minlength=256).numpy()
        assert stats.chisquare(observed).pvalue > 1e-4


def test_the_mask_is_a_function_of_key_and_place_alone() -> None:
    x = torch.randn(3, 5, 7)
    dropout = keyed(0.5)
    keys = torch.tensor([3, 4, 3])
    state = torch.get_rng_state()
    together = vmap(lambda key: functional_call(dropout, {"key": key}, x), randomness="error")(keys)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(together[0], together[2])
    assert not torch.equal(together[0], together[1])
    assert torch.equal(together[1], functional_call(dropout, {"key": keys[1]}, x))


def test_kept_places_are_scaled_and_carry_the_gradient() -> None:
    dropout = keyed(0.25)
    y = dropout(torch.ones(50))
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / 0.75).item()}
    assert torch.equal(grad(lambda x: dropout(x).sum())(torch.ones(50)), y)


def test_it_is_the_identity_at_evaluation_and_without_probability() -> None:
    x = torch.randn(4, 4)
    for dropout in (keyed(0.5).eval(), keyed(0.0), Dropout(0.5).eval(), Dropout(0.0)):
        assert torch.equal(dropout(x), x)


def test_without_a_key_it_is_pytorchs() -> None:
    x = torch.randn(100)
    torch.manual_seed(0)
    ours = Dropout(0.3)(x)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.Dropout(0.3)(x))
    assert Dropout(0.3).state_dict() == {}

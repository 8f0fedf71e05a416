import pytest
import torch
from scipy import stats

from mesocosm.seeding import generator
from mesocosm.tasks.masked import corrupt, likelihoods

MASK = 9


@pytest.mark.parametrize("fates", [(0.8, 0.1, 0.1), (0.0, 0.5, 0.5), (1.0, 0.0, 0.0)])
def test_what_is_shown_follows_the_likelihoods(fates):
    tokens = torch.randint(4, (3000, 20), generator=generator(0))
    shown, chosen = corrupt(tokens, torch.ones_like(tokens, dtype=torch.bool), 0.3, fates, 4, MASK, generator(1))
    assert stats.binomtest(int(chosen.sum()), tokens.numel(), 0.3).pvalue > 1e-3
    assert torch.equal(shown[~chosen], tokens[~chosen])
    anywhere, here = likelihoods(4, 0.3, fates)
    for table, where in ((anywhere, torch.ones_like(chosen)), (here, chosen)):
        torch.testing.assert_close(table.sum(0), torch.ones(4, dtype=torch.float64))
        for true in range(4):
            seen = shown[where & (tokens == true)]
            counts = [int((seen == token).sum()) for token in (0, 1, 2, 3, MASK)]
            assert sum(counts) == len(seen)
            expected = table[:, true] * len(seen)
            possible = expected > 0
            counts = torch.tensor(counts)
            assert counts[~possible].sum() == 0
            if possible.sum() > 1:
                assert stats.chisquare(counts[possible], expected[possible]).pvalue > 1e-3


def test_only_eligible_tokens_are_chosen():
    tokens = torch.full((50, 6), 2)
    eligible = torch.arange(6).expand(50, -1) % 2 == 0
    shown, chosen = corrupt(tokens, eligible, 1.0, (1.0, 0.0, 0.0), 3, MASK, generator(0))
    assert torch.equal(chosen, eligible)
    assert torch.equal(shown, torch.where(eligible, MASK, tokens))

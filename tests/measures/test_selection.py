import math
import statistics

import pytest
import torch

from mesocosm.measures import bucket_means, challenging_yet_learnable, token_losses
from mesocosm.seeding import generator


def by_hand(logits, targets, k):
    """The score of one sequence, by sorting."""
    terms = []
    for row, target in zip(logits.softmax(-1).tolist(), targets.tolist()):
        inside = sorted(row, reverse=True).index(row[target]) < k
        terms.append(-math.log(row[target]) if inside else 0.0)
    return statistics.median_low(terms)


@pytest.mark.parametrize("length", [7, 8])
@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_score_is_that_of_the_definition(length, k):
    logits = 2 * torch.randn(5, length, 6, generator=generator(0), dtype=torch.float64)
    targets = torch.randint(6, (5, length), generator=generator(1))
    expected = [by_hand(*sequence, k) for sequence in zip(logits, targets)]
    assert challenging_yet_learnable(logits, targets, k).tolist() == pytest.approx(expected)


def test_zeros_count_so_that_noise_is_not_picked():
    """Three of five tokens outside the top k: the median is 0, though those inside are hard."""
    logits = torch.tensor([2.0, 1.9, 1.8, 0.0]).expand(5, 4)
    noise, learnable = torch.tensor([3, 3, 3, 2, 2]), torch.tensor([3, 3, 2, 2, 2])
    assert challenging_yet_learnable(logits, noise, 3) == 0
    expected = -logits[0].log_softmax(0)[2]
    assert challenging_yet_learnable(logits, learnable, 3) == pytest.approx(expected.item())
    easy = torch.tensor([0, 0, 0, 0, 0])
    assert 0 < challenging_yet_learnable(logits, easy, 3) < expected


def test_all_tokens_inside_gives_the_median_loss():
    logits, targets = torch.randn(4, 9, 5, generator=generator(2)), torch.randint(5, (4, 9), generator=generator(3))
    expected = token_losses(logits, targets).median(-1).values
    assert torch.equal(challenging_yet_learnable(logits, targets, 5), expected)
    with pytest.raises(ValueError, match="k=6 is not legal: it must be from 1 to the number of tokens, 5"):
        challenging_yet_learnable(logits, targets, 6)


def test_token_losses_are_minus_log_probabilities():
    logits, targets = torch.randn(2, 3, 5, generator=generator(4)), torch.tensor([[0, 1, 2], [4, 3, 2]])
    law = logits.softmax(-1)
    expected = [[-math.log(law[b, t, targets[b, t]]) for t in range(3)] for b in range(2)]
    torch.testing.assert_close(token_losses(logits, targets), torch.tensor(expected))


def test_buckets_are_equal_parts_by_rank():
    values = torch.tensor([[10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0]])
    difficulty = torch.tensor([8.0, 1.0, 7.0, 2.0, 6.0, 3.0, 5.0, 4.0])
    # Ascending difficulty: values 20, 40 | 60, 80 | 70, 50 | 30, 10.
    assert bucket_means(values, difficulty).tolist() == [[30.0, 70.0, 60.0, 20.0]]
    random = torch.randn(3, 20, generator=generator(5))
    torch.testing.assert_close(bucket_means(random, difficulty.repeat(3)[:20], 1)[:, 0], random.mean(1))
    torch.testing.assert_close(bucket_means(random, random, 5).mean(1), random.mean(1))
    own = bucket_means(random, random, 5)
    assert (own.diff(dim=1) > 0).all()
    with pytest.raises(ValueError, match="buckets=9 is not legal"):
        bucket_means(values, difficulty, 9)

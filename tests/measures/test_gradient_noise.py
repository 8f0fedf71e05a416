from collections import namedtuple

import pytest
import torch
from torch import nn

from mesocosm.measures import gradient_moments
from mesocosm.models import NgramMLP
from mesocosm.seeding import generator
from mesocosm.training import cross_entropy, distil

Batch = namedtuple("Batch", "inputs targets weights soft soft_weight")
K, B, T, V = 40, 2, 4, 3


def draws(weight: float) -> Batch:
    """K draws of the labels of the same strings, and one teacher's law."""
    law = torch.rand(B, T, V, generator=generator(0)).softmax(-1)
    inputs = torch.randint(V, (B, T), generator=generator(1)).expand(K, -1, -1)
    targets = torch.randint(V, (K, B, T), generator=generator(2))
    weights = torch.ones(K, B, T)
    weights[:, :, 0] = 0
    return Batch(inputs, targets, weights, law.expand(K, -1, -1, -1), torch.full((K,), weight))


def model() -> nn.Module:
    torch.manual_seed(0)
    return NgramMLP(d_vocab=V, context=2, d_embed=2, hidden=(5,))


@pytest.mark.parametrize("chunk", [7, 100])
def test_moments_are_those_of_a_loop(chunk: int) -> None:
    batches, network, rows = draws(0.3), model(), []
    for k in range(K):
        network.zero_grad()
        distil(network, batches._make(field[k] for field in batches)).backward()
        rows.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    expected = torch.stack(rows).double()
    found = gradient_moments(network, distil, batches, chunk)
    torch.testing.assert_close(found.mean, expected.mean(0), atol=1e-8, rtol=1e-5)
    torch.testing.assert_close(found.variance, expected.var(0).sum(), atol=0, rtol=1e-5)


@pytest.mark.parametrize("weight", [0.25, 2 / 3, 1.0])
def test_soft_labels_take_their_share_of_the_variance(weight: float) -> None:
    hard = gradient_moments(model(), cross_entropy, draws(weight))
    mixed = gradient_moments(model(), distil, draws(weight))
    assert float(mixed.variance / hard.variance) == pytest.approx((1 - weight) ** 2, abs=1e-6)


def test_their_bias_is_the_teachers_in_proportion() -> None:
    """With the teacher's law alone as label the mean gradient moves there in a straight line."""
    ends = [gradient_moments(model(), distil, draws(weight)).mean for weight in (0.0, 1.0)]
    torch.testing.assert_close(
        gradient_moments(model(), distil, draws(0.4)).mean, 0.6 * ends[0] + 0.4 * ends[1], atol=1e-7, rtol=1e-5
    )

import math

import pytest
import torch

from mesocosm.measures import balance_violation
from mesocosm.seeding import generator


def test_violation_equals_its_definition_token_by_token():
    scores, values = torch.randn(6, 6, generator=generator(0)), torch.randn(6, 5, generator=generator(1))
    pairs = torch.tensor([[0, 3], [1, 4], [2, 5]])
    found = balance_violation(scores, values, pairs)
    for u in range(6):
        for p, (o, c) in enumerate(pairs.tolist()):
            opening, closing = math.exp(scores[u, o]) * values[o], math.exp(scores[u, c]) * values[c]
            expected = (opening + closing).norm() / (opening.norm() + closing.norm())
            assert found[u, p].item() == pytest.approx(expected.item(), rel=1e-5)


def test_violation_is_0_where_brackets_cancel_and_1_where_they_agree():
    gap = torch.tensor([0.7, -1.2])
    scores = torch.cat([torch.randn(4, 2, generator=generator(2)) + 300 + gap, torch.zeros(4, 2)], dim=1)
    scores[:, 2:] = scores[:, :2] - gap
    opening = torch.randn(2, 3, generator=generator(3))
    for sign, expected in ((-1, 0.0), (1, 1.0)):
        values = torch.cat([opening, sign * gap.exp()[:, None] * opening])
        found = balance_violation(scores, values, torch.tensor([[0, 2], [1, 3]]))
        torch.testing.assert_close(found, torch.full((4, 2), expected), rtol=0, atol=1e-4)


def test_random_high_dimensional_values_are_at_about_one_over_the_root_of_two():
    values = torch.randn(2000, 400, generator=generator(4))
    pairs = torch.arange(2000).reshape(-1, 2)
    assert balance_violation(torch.zeros(1, 2000), values, pairs).mean().item() == pytest.approx(2**-0.5, abs=0.01)

import pytest
import torch
import torch.nn.functional as F

from mesocosm.measures import one_hot_variation, pairwise_variation, stack_attention
from mesocosm.seeding import generator
from mesocosm.tasks import BoundedDyck


def test_pairwise_variation_is_the_squared_frobenius_distance():
    maps = torch.rand(4, 5, 5, generator=generator(0))
    found = pairwise_variation(maps)
    for i in range(4):
        for j in range(4):
            assert found[i, j].item() == pytest.approx(torch.dist(maps[i], maps[j]).item() ** 2, rel=1e-5)


def test_one_hot_variation_is_that_of_drawn_maps():
    rows = [torch.randint(row, (600,), generator=generator("row", row)) for row in range(1, 17)]
    maps = F.one_hot(torch.stack(rows, dim=1), 16)
    found = pairwise_variation(maps)[~torch.eye(600, dtype=torch.bool)]
    assert one_hot_variation(16) == pytest.approx(25.238, abs=1e-3)
    assert found.mean().item() == pytest.approx(one_hot_variation(16), rel=0.01)


def test_stack_attention_looks_at_the_bracket_that_closes_next():
    batch = BoundedDyck(length=20).sample(30, generator(1))
    looked_at = stack_attention(batch.stack_top) @ (batch.inputs // 4 % 2)[..., None].float()
    asked = batch.weights > 0
    assert torch.equal(looked_at.squeeze(-1).long()[asked], batch.targets[asked])
    assert torch.equal(stack_attention(torch.tensor([[0, -1]])), torch.eye(2)[None] * torch.tensor([[1.0], [1.0]]))

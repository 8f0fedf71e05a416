import pytest
import torch
from torch import nn

from mesocosm.models import Transformer
from mesocosm.training import Population, inherit


def reader(**sizes):
    return Transformer(d_vocab=7, max_length=5, d_model=8, n_heads=2, n_layers=1, **sizes)


def test_a_body_is_taken_over_and_the_head_stays():
    learned, fresh = Population(reader, [0, 1, 2]), Population(lambda: reader(n_outputs=1), [5, 6, 7])
    head = fresh.layout.views(fresh.theta)["unembed.weight"].clone()
    assert inherit(fresh, learned) == ["unembed.weight"]
    for name, view in fresh.layout.views(fresh.theta).items():
        assert torch.equal(view, head if name == "unembed.weight" else learned.layout.views(learned.theta)[name])
    tokens = torch.randint(7, (2, 5), generator=torch.Generator().manual_seed(0))
    for r in range(3):
        scores, logits = fresh.replica(r), learned.replica(r)
        scores.unembed = logits.unembed
        assert torch.equal(scores(tokens), logits(tokens))


def test_what_cannot_be_inherited_is_said():
    with pytest.raises(ValueError, match="a population of 2 replicas cannot inherit from one of 3"):
        inherit(Population(reader, [0, 1]), Population(reader, [0, 1, 2]))
    with pytest.raises(ValueError, match="no parameter agrees in name and shape: weight, bias with"):
        inherit(Population(lambda: nn.Linear(2, 2), [0]), Population(reader, [0]))

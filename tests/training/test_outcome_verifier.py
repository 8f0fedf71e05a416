import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mesocosm import models, training


class Judged(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


class Table(nn.Module):
    """A score for each token by itself."""

    def __init__(self, scores):
        super().__init__()
        self.scores = nn.Parameter(torch.tensor(scores))

    def forward(self, tokens):
        return self.scores[tokens][..., None]


def test_the_loss_is_the_mean_over_taught_tokens():
    scores = [0.3, -1.2, 2.0]
    batch = Judged(
        torch.tensor([[0, 1, 2], [2, 1, 0]]),
        torch.tensor([[1.0] * 3, [0.0] * 3]),
        torch.tensor([[0.0, 1, 1], [0, 1, 0]]),
    )
    right = [-math.log(1 / (1 + math.exp(-scores[token]))) for token in (1, 2)]
    wrong = [-math.log(1 - 1 / (1 + math.exp(-scores[1])))]
    assert training.outcome_loss(Table(scores), batch).item() == pytest.approx(sum(right + wrong) / 3)


def test_nothing_is_learned_where_the_weights_are_zero():
    model = Table([0.3, -1.2, 2.0])
    batch = Judged(torch.tensor([[0, 1]]), torch.ones(1, 2), torch.tensor([[0.0, 1.0]]))
    training.outcome_loss(model, batch).backward()
    assert model.scores.grad[0] == 0
    assert model.scores.grad[1] == pytest.approx(1 / (1 + math.exp(1.2)) - 1)


def test_a_verifier_learns_which_token_makes_a_text_wrong():
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, (256, 5), generator=generator)
    right = (tokens != 3).all(1).float()[:, None].expand(-1, 5).contiguous()
    data = Judged(tokens, right, torch.ones(256, 5))
    make = lambda: models.Transformer(d_vocab=4, max_length=5, d_model=16, n_heads=2, n_layers=1, n_outputs=1)
    population = training.Population(make, [0, 1])
    stream = training.Epochs(data, 32, [0, 1])
    training.train(population, stream, training.outcome_loss, training.AdamW(1e-2), steps=60)
    scores = population.map(lambda model: model(tokens).squeeze(-1)[:, -1])
    assert ((scores > 0) == right[:, 0].bool()).float().mean() > 0.95

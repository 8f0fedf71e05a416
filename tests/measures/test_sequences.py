from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from mesocosm.measures import (
    accuracy_by_difficulty,
    accuracy_by_position,
    exact_match,
    free_running,
    teacher_forced,
)
from mesocosm.training import Population

V = 7


class Batch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


class SumModel(nn.Module):
    """Predicts (shift + sum of all tokens so far) modulo V."""

    def __init__(self, shift=1):
        super().__init__()
        self.shift = nn.Parameter(torch.tensor(float(shift)))

    def forward(self, tokens):
        total = (tokens.cumsum(1) + self.shift) % V
        return -(torch.arange(V) - total[..., None]).abs()


def batch_of(weights, seed=0):
    weights = torch.tensor(weights)
    tokens = torch.randint(V, (len(weights), weights.shape[1] + 1), generator=torch.Generator().manual_seed(seed))
    return Batch(tokens[:, :-1], tokens[:, 1:], weights.float())


def token_by_token(batch, shift=1):
    rows = []
    for inputs, weights in zip(batch.inputs.tolist(), batch.weights.tolist()):
        first = next(t for t, w in enumerate(weights) if w)
        known, row = inputs[: first + 1], [-1] * first
        while len(row) < len(inputs):
            row.append((sum(known) + shift) % V)
            known.append(row[-1])
        rows.append(row)
    return rows


def test_teacher_forced_predictions_follow_the_true_prefix():
    batch = batch_of([[0, 1, 1]] * 3)
    assert torch.equal(teacher_forced(SumModel(), batch), (batch.inputs.cumsum(1) + 1) % V)


@pytest.mark.parametrize("weights", [[[0, 0, 1, 1, 1]] * 4, [[1, 0, 1, 0, 0], [0, 0, 1, 1, 1], [0, 0, 0, 0, 1]] * 2])
def test_free_running_predictions_follow_the_models_own_tokens(weights):
    batch = batch_of(weights)
    assert free_running(SumModel(), batch).tolist() == token_by_token(batch)


def test_free_running_maps_over_a_population():
    shifts = iter([1, 2, 3])
    population = Population(lambda: SumModel(next(shifts)), seeds=range(3))
    batch = batch_of([[0, 1, 1, 1], [0, 0, 1, 1]])
    found = population.map(lambda model: free_running(model, batch))
    assert found.tolist() == [token_by_token(batch, shift) for shift in (1, 2, 3)]


def test_accuracy_by_position_is_the_weighted_share_of_right_rows():
    targets = torch.tensor([[1, 2, 3], [1, 2, 3], [1, 2, 3], [1, 2, 3]])
    predictions = torch.tensor([[1, 0, 3], [1, 2, 0], [0, 0, 0], [1, 2, 0]])
    weights = torch.tensor([[1, 1, 0], [1, 1, 0], [1, 2, 0], [1, 0, 0]]).float()
    accuracy = accuracy_by_position(predictions, targets, weights)
    assert accuracy[:2].tolist() == [0.75, 0.25]
    assert accuracy[2].isnan()
    stacked = accuracy_by_position(torch.stack([predictions, targets]), targets, weights)
    assert stacked[:, :2].tolist() == [[0.75, 0.25], [1, 1]]


def test_accuracy_by_difficulty_equals_counting_cell_by_cell():
    stream = torch.Generator().manual_seed(3)
    predictions, targets = torch.randint(3, (2, 6, 5), generator=stream), torch.randint(3, (6, 5), generator=stream)
    weights = (torch.rand(6, 5, generator=stream) < 0.7).float()
    difficulty = torch.randint(4, (6, 5), generator=stream)
    difficulty[difficulty == 2] = 3
    found = accuracy_by_difficulty(predictions, targets, weights, difficulty, 5)
    for replica in range(2):
        for level in range(5):
            cells = [(b, t) for b in range(6) for t in range(5) if difficulty[b, t] == level and weights[b, t]]
            right = [float(predictions[replica, b, t] == targets[b, t]) for b, t in cells]
            expected = sum(right) / len(right) if right else float("nan")
            assert found[replica, level].item() == pytest.approx(expected, nan_ok=True)
    assert found[:, [2, 4]].isnan().all()


def test_exact_match_asks_for_every_weighted_position_and_only_those():
    targets = torch.tensor([[1, 2, 3]] * 5)
    predictions = torch.tensor([[0, 2, 3], [0, 2, 0], [0, 0, 3], [9, 9, 9], [1, 2, 3]])
    weights = torch.tensor([[0, 1, 1], [0, 1, 0], [0, 1, 1], [0, 0, 0], [1, 1, 1]]).float()
    assert exact_match(predictions, targets, weights).item() == 0.75
    assert exact_match(torch.stack([predictions, targets]), targets, weights).tolist() == [0.75, 1]
    assert exact_match(predictions, targets, torch.zeros(5, 3)).isnan()

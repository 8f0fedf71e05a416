import pytest
import torch
from torch import nn

from mesocosm.measures import accuracy_by_position, cheat_rate, exact_match, first_step_share, free_running
from mesocosm.seeding import generator
from mesocosm.tasks import PathStar
from mesocosm.training import Population


class Walker(nn.Module):
    """Takes a step along an edge from the node shown last, or does as if it had planned."""

    def __init__(self, task, plans=False):
        super().__init__()
        self.task, self.plans = task, plans
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, tokens):
        n, edges = self.task.nodes, self.task.edges
        high, low = tokens[:, :edges] // n - 1, tokens[:, :edges] % n
        start, goal = tokens[:, edges, None], tokens[:, edges + 1, None]
        path = [goal]
        for _ in range(self.task.path_length - 2):
            path.insert(0, (high * (low == path[0])).sum(1, keepdim=True))
        first = torch.where(high == start, low, -1).amax(1, keepdim=True)
        shown = tokens[:, edges + 2 :, None]
        steps = torch.cat([first, (low[:, None] * (high[:, None] == shown)).sum(2)], 1)
        nodes = torch.cat(path, 1)[:, : steps.shape[1]] if self.plans else steps  # [B, answer so far]
        head = torch.zeros_like(tokens[:, : edges + 1])
        logits = nn.functional.one_hot(torch.cat([head, nodes], 1), n).float()
        return logits * self.scale


@pytest.fixture
def task():
    return PathStar(degree=3, path_length=4, nodes=12)


def test_who_follows_edges_follows_a_wrong_arm_and_guesses_the_first_node(task):
    batch = task.sample(300, generator(0))
    model = Walker(task)
    assert cheat_rate(model, task.down_another_arm(batch)) == 1
    predictions = free_running(model, batch)
    assert first_step_share(predictions, batch) == 1
    assert exact_match(predictions, batch.targets, batch.weights).item() == pytest.approx(1 / 3, abs=0.1)
    forced = accuracy_by_position(model(batch.inputs).argmax(-1), batch.targets, batch.weights)[-3:]
    assert forced.tolist() == [pytest.approx(1 / 3, abs=0.1), 1, 1]


def test_who_plans_is_not_misled(task):
    batch = task.sample(300, generator(1))
    model = Walker(task, plans=True)
    assert cheat_rate(model, task.down_another_arm(batch)) == 0
    predictions = free_running(model, batch)
    assert exact_match(predictions, batch.targets, batch.weights) == 1
    assert first_step_share(predictions, batch) == 1


def test_the_first_step_is_read_at_the_first_answer_position_alone(task):
    batch = task.sample(50, generator(2))
    first = task.input_shape[0] - 3
    predictions = torch.full((2, 50, task.input_shape[0]), -1)
    predictions[0, :, first] = batch.arms[:, 2, 0]
    predictions[1, :25, first] = batch.arms[:25, 0, 1]
    predictions[1, 25:, first] = batch.arms[25:, 1, 0]
    predictions[1, :, first + 1] = batch.arms[:, 1, 0]
    assert first_step_share(predictions, batch).tolist() == [1, 0.5]


def test_both_map_over_a_population(task):
    batch = task.sample(20, generator(3))
    population = Population(lambda: Walker(task), seeds=[0, 1])
    other = task.down_another_arm(batch)
    assert population.map(lambda model: cheat_rate(model, other)).tolist() == [1, 1]
    assert population.map(lambda model: first_step_share(free_running(model, batch), batch)).tolist() == [1, 1]

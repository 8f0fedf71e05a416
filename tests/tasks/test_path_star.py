import math
import time
from collections import deque

import pytest
import torch
from scipy import stats
from torch import nn

from mesocosm.seeding import generator
from mesocosm.tasks import PathStar
from mesocosm.training import cross_entropy

EVERY = [
    {"degree": d, "path_length": length, "nodes": n, "reverse": reverse, "form": form}
    for d, length, n in ((2, 3, 5), (2, 4, 10), (3, 5, 14))
    for reverse in (False, True)
    for form in ("edges", "tokens")
]


def read(task, inputs):
    """Edges, start and goal of one string, from its text alone."""
    words = [task.tokens[token] for token in inputs.tolist()]
    if task.form == "edges":
        last = max(i for i, word in enumerate(words) if ">" in word)
        edges = [tuple(map(int, word.split(">"))) for word in words[: last + 1]]
        start, goal = words[last + 1 : last + 3]
    else:
        last, equals = words.index("/"), words.index("=")
        triples = [words[i : i + 3] for i in range(0, last, 3)]
        assert {bar for _, _, bar in triples} == {"|"}
        edges = [(int(u), int(v)) for u, v, _ in triples]
        start, goal = words[last + 1 : equals]
    return edges, int(start), int(goal)


def all_paths(edges, start, goal):
    """Every path from start to goal, by breadth-first search."""
    found, queue = [], deque([[start]])
    while queue:
        path = queue.popleft()
        if path[-1] == goal:
            found.append(path)
        queue.extend([*path, v] for u, v in edges if u == path[-1] and v not in path)
    return found


@pytest.mark.parametrize("settings", EVERY)
def test_the_answer_is_the_one_path_from_start_to_goal(settings):
    task = PathStar(**settings)
    batch = task.sample(40, generator(0))
    for row in range(40):
        edges, start, goal = read(task, batch.inputs[row])
        assert (start, goal) == (batch.start[row], batch.goal[row])
        assert len(edges) == len(set(edges)) == task.edges
        assert all_paths(edges, start, goal) == [batch.path[row].tolist()]
        answer = batch.path[row, 1:].flip(0) if task.reverse else batch.path[row, 1:]
        shown = batch.weights[row] == 1
        assert batch.targets[row, shown].tolist() == answer.tolist()
        assert shown.tolist() == [False] * (len(shown) - len(answer)) + [True] * len(answer)
        assert batch.inputs[row, 1 - len(answer) :].tolist() == answer[:-1].tolist()


@pytest.mark.parametrize("settings", EVERY)
def test_the_arms_are_those_of_the_edges(settings):
    task = PathStar(**settings)
    batch = task.sample(40, generator(1))
    assert torch.equal(batch.arms[:, 0], batch.path[:, 1:])
    for row in range(40):
        edges, start, _ = read(task, batch.inputs[row])
        arms = batch.arms[row].tolist()
        assert sorted(edges) == sorted(pair for arm in arms for pair in zip([start, *arm], arm))
        assert len({start, *batch.arms[row].flatten().tolist()}) == task.edges + 1


@pytest.mark.parametrize("form", ["edges", "tokens"])
def test_graphs_are_uniform(form):
    """All labellings of the nodes of G(2, 3) with 5 labels, times all orders of its 4 edges, in small marginals."""
    task = PathStar(degree=2, path_length=3, nodes=5, form=form)
    batch = task.sample(60_000, generator(2))
    labelling = torch.cat([batch.start[:, None], batch.arms.flatten(1)], 1) @ (5 ** torch.arange(5))
    counts = labelling.unique(return_counts=True)[1]
    assert len(counts) == math.factorial(5)
    assert stats.chisquare(counts).pvalue > 1e-3
    words = [[task.tokens[token] for token in row] for row in batch.inputs[:5000].tolist()]
    places = [0, 0, 0, 0]
    for text, path in zip(words, batch.path[:5000].tolist()):
        if form == "edges":
            places[text.index(f"{path[0]}>{path[1]}")] += 1
        else:
            edges = [(text[i], text[i + 1]) for i in range(0, 12, 3)]
            places[edges.index((str(path[0]), str(path[1])))] += 1
    assert stats.chisquare(places).pvalue > 1e-3


@pytest.mark.parametrize("settings", EVERY)
def test_another_arm_is_followed_by_who_copies_edges(settings):
    task = PathStar(**settings)
    batch = task.sample(40, generator(3))
    strange = task.down_another_arm(batch)
    cut = 2 - task.path_length
    assert torch.equal(strange.inputs[:, :cut], batch.inputs[:, :cut])
    assert strange.weights.sum(1).eq(task.path_length - 2).all()
    for row in range(40):
        edges, start, goal = read(task, batch.inputs[row])
        successor = {u: v for u, v in edges if u != start}
        first = strange.inputs[row, cut].item()
        assert (start, first) in edges
        assert first != batch.path[row, 1]
        node, positions = first, strange.weights[row].nonzero()[:, 0].tolist()
        for t in positions:
            assert strange.inputs[row, t] == node
            node = successor[node]
            assert strange.targets[row, t] == node
        assert node != goal
    assert torch.equal(batch.inputs, task.sample(40, generator(3)).inputs)


@pytest.mark.parametrize("settings", EVERY)
def test_a_batch_is_what_the_task_declares(settings):
    task = PathStar(**settings)
    batch = task.sample(7, generator(0))
    assert batch._fields == tuple(task.fields)
    assert all(field.shape == (7, *task.input_shape) for field in batch[:3])
    assert batch.arms.shape == (7, task.degree, task.path_length - 1)
    assert batch.path.shape == (7, task.path_length)
    assert task.output_shape == (*task.input_shape, task.nodes)
    assert batch.targets.max() < task.nodes
    assert batch.inputs.max() < task.dummy
    assert task.tokens[task.dummy] == task.tokens[-1] == "$"
    assert len(set(task.tokens)) == len(task.tokens)
    assert task.tokens[: task.nodes] == tuple(map(str, range(task.nodes)))


class Cheat(nn.Module):
    """Follows edges from the node shown last, and knows the start's neighbours but not which is right."""

    def __init__(self, task):
        super().__init__()
        self.task = task

    def forward(self, tokens):
        n = self.task.nodes
        logits = torch.full((*tokens.shape, n), -30.0)
        for row, inputs in enumerate(tokens):
            edges, start, _ = read(self.task, inputs)
            for t in range(1 + self.task.edges, tokens.shape[1]):
                node = start if t == 1 + self.task.edges else inputs[t]
                for u, v in edges:
                    if u == node:
                        logits[row, t, v] = 30.0
        return logits


@pytest.mark.parametrize(("degree", "length"), [(2, 4), (3, 4)])
def test_chance_and_loss_of_the_cheat(degree, length):
    task = PathStar(degree=degree, path_length=length, nodes=degree * (length - 1) + 2)
    batch = task.sample(300, generator(4))
    assert cross_entropy(Cheat(task), batch).item() == pytest.approx(task.cheat_loss, abs=1e-5)
    own = Cheat(task)(batch.inputs)
    guess = torch.multinomial(own[:, task.edges + 1].softmax(-1), 1, generator=generator(5))[:, 0]
    assert (guess == batch.path[:, 1]).double().mean().item() == pytest.approx(task.chance, abs=0.08)


def test_two_million_tokens_a_second():
    task, stream = PathStar(), generator(0)
    task.sample(2048, stream)
    best = math.inf
    for _ in range(5):
        began = time.process_time()
        task.sample(2048, stream)
        best = min(best, time.process_time() - began)
    assert 2048 * task.input_shape[0] / best > 2e6


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"degree": 1}, "degree=1 is not legal"),
        ({"path_length": 2}, "path_length=2 is not legal"),
        ({"nodes": 6}, "nodes=6 is not legal: it must be at least 7, the nodes of the graph"),
        ({"degree": 5, "path_length": 5, "nodes": 20}, "it must be at least 21"),
        ({"form": "text"}, "form='text' is not legal: it must be one of edges, tokens"),
    ],
)
def test_bad_parameters_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        PathStar(**settings)

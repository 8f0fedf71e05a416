import torch

from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, PathStar
from mesocosm.training import cross_entropy, hide_answers, train, without_teacher
from mesocosm.training.optimisers import SGD
from mesocosm.training.population import Population


class Bigram(torch.nn.Module):
    def __init__(self, vocabulary, outputs):
        super().__init__()
        self.table = torch.nn.Embedding(vocabulary, outputs)

    def forward(self, tokens):
        return self.table(tokens)


def test_every_shown_answer_and_nothing_else_is_hidden():
    task = PathStar()
    batch = task.sample(20, generator(0))
    hidden = hide_answers(batch, task.dummy)
    words = [[task.tokens[token] for token in row] for row in hidden.inputs.tolist()]
    assert [row[-3:] for row in words] == [[str(goal), "$", "$"] for goal in batch.goal.tolist()]
    assert torch.equal(hidden.inputs[:, :-2], batch.inputs[:, :-2])
    assert all(torch.equal(a, b) for a, b in zip(hidden[1:], batch[1:]))


def test_answers_are_hidden_wherever_they_stand():
    batch = FlipFlop(length=20, p_ignore=0.3).sample(50, generator(1))
    hidden = hide_answers(batch, 9)
    for row in range(50):
        for t in range(19):
            shown = t > 0 and batch.weights[row, t - 1] == 1
            assert hidden.inputs[row, t] == (9 if shown else batch.inputs[row, t])


def test_the_objective_is_that_of_the_hidden_batch():
    task = PathStar()
    model = Bigram(len(task.tokens), task.nodes)
    batch = task.sample(30, generator(2))
    logits = model.table.weight[hide_answers(batch, task.dummy).inputs].log_softmax(-1)
    picked = logits.gather(-1, batch.targets[..., None])[..., 0]
    expected = -(picked * batch.weights).sum() / batch.weights.sum()
    assert torch.isclose(without_teacher(cross_entropy, task.dummy)(model, batch), expected)


def test_it_maps_over_a_population_and_no_answer_leaks_into_the_gradient():
    task = PathStar()
    population = Population(lambda: Bigram(len(task.tokens), task.nodes), seeds=[0, 1])
    before = population.weights()["table.weight"].clone()
    train(population, task, without_teacher(cross_entropy, task.dummy), SGD(1.0), steps=2, batch_size=8)
    moved = (population.weights()["table.weight"] != before).any(-1)  # [R, V]
    goals = range(task.nodes)
    assert moved[:, task.dummy].all()
    assert moved[:, goals].any(1).all()
    assert not moved[:, task.nodes : task.dummy].any()

import pytest
import torch

from mesocosm.models import BracketAttention
from mesocosm.seeding import generator
from mesocosm.tasks import DyckInsertions
from mesocosm.training import AdamW, Population, consistency_penalty, cross_entropy, inconsistency, train

TASK = DyckInsertions(length=12, max_depth=3, most_pairs=2)


def model():
    return BracketAttention.for_task(TASK, d_model=8, d_mlp=8)


@torch.no_grad()
def test_inconsistency_compares_each_answer_behind_the_insertion():
    net, batch = model(), TASK.sample(20, generator(0))
    logits, longer = net(batch.inputs), net(batch.longer)
    changes = []
    for row in range(20):
        for t in range(12):
            there = int(batch.moved[row, t])
            change = logits[row, t].log_softmax(0) - longer[row, there].log_softmax(0)
            if there > t and batch.weights[row, t]:
                changes.append(change.square().mean().item())
            if there == t:
                assert change.abs().max() < 1e-5
    found = inconsistency(logits, longer, batch).item()
    assert found == pytest.approx(sum(changes) / len(changes), rel=1e-5)
    penalised = consistency_penalty(cross_entropy, 0.3)(net, batch)
    assert penalised.item() == pytest.approx(cross_entropy(net, batch).item() + 0.3 * found, rel=1e-5)


def test_gradient_equals_finite_differences():
    net, batch = model().double(), TASK.sample(8, generator(1))
    loss = consistency_penalty(cross_entropy, 2.0)
    weight = net.value.weight
    loss(net, batch).backward()
    step = 1e-6 * torch.randn(weight.shape, generator=generator(2), dtype=torch.float64)
    with torch.no_grad():
        weight += step
        above = loss(net, batch)
        weight -= 2 * step
        below = loss(net, batch)
    assert (above - below).item() == pytest.approx(2 * (weight.grad * step).sum().item(), rel=1e-4)


def test_a_stack_trains_as_its_replicas_do_and_grows_more_consistent():
    def trained(seeds, weight):
        population = Population(model, seeds)
        train(population, TASK, consistency_penalty(cross_entropy, weight), AdamW(1e-2), steps=12, batch_size=8)
        return population

    batch = TASK.sample(200, generator(3))
    together, alone, plain = trained([4, 5, 6], 3.0), trained([5], 3.0), trained([4, 5, 6], 0.0)
    torch.testing.assert_close(together.theta[1], alone.theta[0], rtol=0, atol=1e-6)

    def inconsistent(net):
        return inconsistency(net(batch.inputs), net(batch.longer), batch)

    assert (together.map(inconsistent) < plain.map(inconsistent)).all()

from dataclasses import replace

import pytest
import torch

from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, HierarchicalParity, SparseParity
from mesocosm.training import Online

IGNORE = 2


def test_a_mixture_keeps_its_shares_in_every_batch() -> None:
    stream = Online(FlipFlop(length=64, p_ignore=(0.0, 1.0), shares=(0.75, 0.25)), 8, [1, 2], chunk=4)
    for step in range(8):
        batch = stream(step, [0, 1], torch.device("cpu"))
        middle = batch.inputs[:, :, 2:-1:2]  # [R, B, instructions between the first and the last]
        assert (middle == IGNORE).all(2).sum(1).tolist() == [2, 2]


@pytest.mark.parametrize("task", [SparseParity(n=10, k=3, noise=0.3), HierarchicalParity(n_classes=4, k=2, n=9)])
def test_what_is_drawn_as_bytes_and_read_later_is_what_the_task_samples(task) -> None:
    stream, others = Online(task, 4, [1, 2], chunk=8), Online([task, replace(task, k=1)], 4, [1, 2], chunk=8)
    whole = task.sample(32, generator(2, "data", 1))
    for step in (8, 13):
        batch, other = (online(step, [1, 0], torch.device("cpu")) for online in (stream, others))
        for field, read, sampled in zip(whole, batch, other):
            assert torch.equal(read[0], field.unflatten(0, (4, 8))[:, step - 8])
            assert torch.equal(read[1], sampled[1])

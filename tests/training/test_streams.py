import torch

from mesocosm.tasks import FlipFlop
from mesocosm.training import Online

IGNORE = 2


def test_a_mixture_keeps_its_shares_in_every_batch() -> None:
    stream = Online(FlipFlop(length=64, p_ignore=(0.0, 1.0), shares=(0.75, 0.25)), 8, [1, 2], chunk=4)
    for step in range(8):
        batch = stream(step, [0, 1], torch.device("cpu"))
        middle = batch.inputs[:, :, 2:-1:2]  # [R, B, instructions between the first and the last]
        assert (middle == IGNORE).all(2).sum(1).tolist() == [2, 2]

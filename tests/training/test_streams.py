from dataclasses import replace

import pytest
import torch

from mesocosm.seeding import key, random_words
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
def test_words_are_read_for_all_replicas_as_for_each_alone(task) -> None:
    stream, others = Online(task, 4, [1, 2], chunk=8), Online([task, replace(task, k=1)], 4, [1, 2], chunk=8)
    keys = torch.tensor([key(seed, "data") for seed in (2, 1)])
    words = random_words(keys, 1 << 32, 32 * task.words).view(2, task.words, 32).mT
    whole = task.read(words[0])
    for step in (8, 13):
        batch, other = (online(step, [1, 0], torch.device("cpu")) for online in (stream, others))
        for field, read, sampled in zip(whole, batch, other):
            assert torch.equal(read[0], field.unflatten(0, (4, 8))[:, step - 8])
            assert torch.equal(read[1], sampled[1])


def test_noise_leaves_the_bits_of_a_stream_as_they_are() -> None:
    clean, noisy = (Online(SparseParity(n=70, k=2, noise=noise), 4, [1, 2], chunk=2) for noise in (0.0, 0.5))
    for step in range(4):
        first, second = (stream(step, [0, 1], torch.device("cpu")) for stream in (clean, noisy))
        assert torch.equal(first.inputs, second.inputs)
        assert torch.equal(first.clean, second.clean)


@pytest.mark.cuda
def test_a_gpu_draws_what_a_cpu_does() -> None:
    stream = Online(SparseParity(n=70, k=3, noise=0.3), 8, [1, 2])
    for step in (0, 40):
        here, there = (stream(step, [0, 1], torch.device(device)) for device in ("cpu", "cuda"))
        for one, other in zip(here, there):
            assert torch.equal(one, other.cpu())

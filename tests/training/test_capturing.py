"""A recorded step is the step: with new batches, rates and step numbers, and when the stack changes."""

import pytest
import torch

from mesocosm.models import MLP
from mesocosm.tasks import SparseParity
from mesocosm.training import SGD, AdamW, Population, capturing, hinge, train
from mesocosm.training.capturing import Captured
from mesocosm.training.streams import Online

TASK = SparseParity(n=10, k=2)
ANYWHERE = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=ANYWHERE)
def device(request, monkeypatch) -> str:
    """A device; on the CPU a recording is the step again, on the tensors that were recorded."""
    if request.param == "cpu":
        monkeypatch.setattr(capturing, "warm_up", lambda step: step())
        monkeypatch.setattr(capturing, "recording", lambda step: step)
    return request.param


def step(theta, memory, batch, columns, t):
    gradient = theta * batch.mean() + t
    memory["momentum"].mul_(0.9).add_(gradient)
    theta.sub_(columns["learning_rate"] * memory["momentum"])
    return gradient.sum(1)


def test_a_replayed_step_reads_what_it_is_given_and_writes_where_it_was_recorded(device) -> None:
    population = Population(lambda: MLP.for_task(TASK, hidden=(4,)), range(3), device)
    captured = Captured(step, population)
    plain, recorded = ((population.theta.clone(), {"momentum": torch.zeros_like(population.theta)}) for _ in range(2))
    rates = torch.tensor([[0.1], [0.01], [0.2]], device=device)
    for t in range(5):
        batch = torch.randn(3, 7, generator=torch.Generator().manual_seed(t)).to(device)
        arguments = (batch, {"learning_rate": rates * 0.5**t}, torch.tensor(t + 1, device=device))
        expected, found = step(*plain, *arguments), captured(*recorded, *arguments).clone()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(recorded[0], plain[0])
        torch.testing.assert_close(recorded[1], plain[1])
        if t == 2:  # Fewer replicas from here on, in tensors of their own.
            rates = rates[:2]
            plain, recorded = (
                (theta[:2].clone(), {"momentum": memory["momentum"][:2].clone()}) for theta, memory in (plain, recorded)
            )


def test_recording_takes_no_step(device) -> None:
    population = Population(lambda: MLP.for_task(TASK, hidden=(4,)), range(2), device)
    before, memory = population.theta.clone(), {"momentum": torch.zeros_like(population.theta)}
    arguments = (torch.ones(2, 3, device=device), {"learning_rate": torch.ones(2, 1, device=device)}, torch.tensor(1))
    Captured(step, population)._record(population.theta, memory, arguments)
    torch.testing.assert_close(population.theta, before)
    assert not memory["momentum"].any()


def test_what_cannot_be_recorded_is_stepped_as_it_is_and_told(monkeypatch) -> None:
    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(capturing, "warm_up", lambda step: step())
    monkeypatch.setattr(capturing, "recording", refuse)
    population = Population(lambda: MLP.for_task(TASK, hidden=(4,)), range(2))
    captured, theta, memory = Captured(step, population), population.theta, {"momentum": torch.zeros(2, 1)}
    memory = {"momentum": torch.zeros_like(theta)}
    expected = theta.clone()
    arguments = (torch.ones(2, 3), {"learning_rate": torch.ones(2, 1)}, torch.tensor(1))
    for _ in range(2):
        captured(theta, memory, *arguments)
    again = {"momentum": torch.zeros_like(theta)}
    for _ in range(2):
        step(expected, again, *arguments)
    torch.testing.assert_close(theta, expected)
    assert population.reason == "stacked, not captured: operation not permitted when stream is capturing"


@pytest.mark.cuda
@pytest.mark.parametrize("compile", [False, True])
@pytest.mark.parametrize("optimiser", [SGD(0.1, momentum=0.9), AdamW([1e-3, 1e-2, 3e-3], weight_decay=0.1)])
def test_a_gpu_trains_as_the_cpu_does(optimiser, compile) -> None:
    ends = {}
    for device in ("cpu", "cuda"):
        population = Population(lambda: MLP.for_task(TASK, hidden=(16,)), range(3), device)
        stream = Online(TASK, 8, range(3))
        history = train(population, stream, hinge, optimiser, steps=40, clip=1.0, compile=compile)
        ends[device] = history.population.theta.cpu()
        assert "not captured" not in history.population.reason
    torch.testing.assert_close(ends["cuda"], ends["cpu"], rtol=1e-3, atol=1e-4)

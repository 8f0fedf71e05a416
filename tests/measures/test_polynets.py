import pytest
import torch

from mesocosm import models, tasks, training
from mesocosm.measures import disjoint_polynet_error, disjoint_polynet_flow, sign_error
from mesocosm.seeding import generator


def test_implied_error_equals_that_on_samples():
    task = tasks.BlockParity(n=120, k=3)
    model = models.DisjointPolyNet.for_task(task, degree=3)
    with torch.no_grad():
        model.weight.uniform_(-1, 1, generator=generator(0))
        model.weight[:, 0] = torch.tensor([8.0, -6.0, 5.0])
        batch = task.sample(100_000, generator(1))
        sampled = sign_error(model(batch.inputs), batch.targets, batch.weights)
        implied = disjoint_polynet_error(model.weight)
    assert implied > 0.5  # an odd number of relevant weights has the wrong sign
    assert implied == pytest.approx(float(sampled), abs=0.005)


def test_implied_error_of_known_weights():
    weight = torch.tensor([[[1.0, 1, 0], [1, 1, 0]], [[0, 1, 0], [1, 1, 0]], [[50, 1, 0], [50, 1, 0]]])
    assert disjoint_polynet_error(weight).tolist() == pytest.approx([0.5 - 0.6827**2 / 2, 0.5, 0], abs=1e-4)


def test_flow_equals_training_by_small_steps_down_the_full_gradient():
    task, rate, steps = tasks.BlockParity(n=9, k=3), 1e-3, 1000
    everything, model = task.enumerate(), models.DisjointPolyNet.for_task(task, degree=3).double()
    everything = everything._make(field.double() for field in everything)
    with torch.no_grad():
        model.weight.uniform_(0.3, 0.8, generator=generator(0))
    initial = model.weight.detach().clone()
    for _ in range(steps):
        (gradient,) = torch.autograd.grad(training.correlation(model, everything), model.weight)
        with torch.no_grad():
            model.weight -= rate * gradient
    flow = disjoint_polynet_flow(initial[:, 0], torch.tensor([0.0, rate * steps]))
    torch.testing.assert_close(flow[1], model.weight[:, 0].detach(), rtol=1e-3, atol=0)
    torch.testing.assert_close(model.weight[:, 1:].detach(), initial[:, 1:])
    gained = flow[1].square() - flow[0].square()
    torch.testing.assert_close(gained, gained[0].expand(3))


def test_flow_past_infinity_is_refused():
    with pytest.raises(ValueError, match=r"times=.*infinite before 10"):
        disjoint_polynet_flow(torch.ones(3), torch.tensor([0.0, 10.0]))

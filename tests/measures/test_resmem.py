import pytest
import torch
from scipy.optimize import minimize

from mesocosm.measures import (
    knn_predict,
    nearest_neighbours,
    norm_constrained_least_squares,
    norm_constrained_risk,
    residual_memory,
    residual_memory_scores,
)
from mesocosm.seeding import generator


def classes(count, *key):
    """Features `[N, 5]`, labels `[N]` and the logits of a poor classifier `[N, 4]`."""
    draw = generator("classes", *key)
    features = torch.randn(count, 5, generator=draw)
    labels = (features[:, 0] > 0).long() + 2 * (features[:, 1] > 0).long()
    return features, labels, torch.randn(count, 4, generator=draw)


def test_scores_equal_an_explicit_loop():
    (memory, labels, learned), (queries, _, logits) = classes(60, 0), classes(7, 1)
    found = nearest_neighbours(memory, queries, 20)
    scores = residual_memory_scores(learned, labels, logits, found, neighbours=9, sigma=0.6, temperature=1.4)
    for m in range(7):
        distance = [float((queries[m] - z).norm()) for z in memory]
        nearest = sorted(range(60), key=lambda i: distance[i])[:9]
        total = sum(torch.exp(torch.tensor(-distance[i] / 0.6)) for i in nearest)
        wanted = torch.softmax(logits[m] / 1.4, dim=0)
        for i in nearest:
            residual = torch.eye(4)[labels[i]] - torch.softmax(learned[i] / 1.4, dim=0)
            wanted = wanted + torch.exp(torch.tensor(-distance[i] / 0.6)) / total * residual
        torch.testing.assert_close(scores[m], wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores.sum(dim=1), torch.ones(7))


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_the_training_set_is_fitted_by_one_neighbour_or_a_small_bandwidth(temperature):
    features, labels, logits = classes(200, 2)
    found = nearest_neighbours(features, features, 10)
    base = (logits.argmax(dim=1) == labels).double().mean()
    for how in ({"neighbours": 1}, {"sigma": 1e-3}):
        scores = residual_memory_scores(logits, labels, logits, found, temperature=temperature, **how)
        assert base < 0.5 and torch.equal(scores.argmax(dim=1), labels)
    elsewhere = found._replace(indices=torch.randperm(200, generator=generator(3))[found.indices])
    shuffled = residual_memory_scores(logits, labels, logits, elsewhere, 1, temperature=temperature)
    assert (shuffled.argmax(dim=1) == labels).double().mean() < 0.6


def test_a_base_that_knows_everything_is_left_alone_and_one_that_knows_nothing_is_looked_up():
    draw = generator(4)
    memory, queries = torch.randn(50, 3, generator=draw), torch.randn(8, 3, generator=draw)
    targets, predictions = torch.randn(50, 2, generator=draw), torch.randn(8, 2, generator=draw)
    found = nearest_neighbours(memory, queries, 5)
    assert torch.equal(residual_memory(targets, targets, predictions, found, sigma=0.5), predictions)
    looked_up = residual_memory(0 * targets.numpy(), targets.numpy(), 0 * predictions, found, sigma=0.5)
    assert torch.equal(looked_up, knn_predict(targets, found, sigma=0.5))


def test_scores_improve_a_poor_classifier():
    (memory, labels, learned), (queries, truth, logits) = classes(2000, 5), classes(500, 6)
    found = nearest_neighbours(memory, queries, 10)
    scores = residual_memory_scores(learned, labels, logits, found, sigma=1.0, temperature=4.0)
    assert (logits.argmax(dim=1) == truth).double().mean() < 0.35
    assert (scores.argmax(dim=1) == truth).double().mean() > 0.75


@pytest.mark.parametrize("shape", [(40, 6), (4, 6)])
def test_the_constrained_fit_is_the_best_in_the_ball(shape):
    draw = generator(7)
    x, y = torch.randn(*shape, generator=draw).double(), torch.randn(shape[0], generator=draw).double()
    free = torch.linalg.pinv(x) @ y
    for radius in (1e-3, 0.3 * float(free.norm()), 0.99 * float(free.norm())):
        theta = norm_constrained_least_squares(x, y.numpy(), radius)
        assert float(theta.norm()) == pytest.approx(radius, abs=1e-8)
        downhill = x.T @ (y - x @ theta)  # at a constrained minimum it points out of the ball
        assert float(torch.cosine_similarity(downhill, theta, dim=0)) == pytest.approx(1, abs=1e-9)
    inside = norm_constrained_least_squares(x, y, 1.01 * float(free.norm()))
    torch.testing.assert_close(inside, free)


def test_the_constrained_fit_equals_that_of_an_optimiser():
    draw = generator(8)
    x, y = torch.randn(30, 4, generator=draw).double(), torch.randn(30, generator=draw).double()
    radius = 0.5 * float((torch.linalg.pinv(x) @ y).norm())
    ball = {"type": "ineq", "fun": lambda theta: radius**2 - theta @ theta}
    peer = minimize(lambda theta: ((x.numpy() @ theta - y.numpy()) ** 2).sum(), x0=[0.01] * 4, constraints=[ball])
    theta = norm_constrained_least_squares(x, y, radius)
    torch.testing.assert_close(theta, torch.from_numpy(peer.x), atol=1e-4, rtol=1e-3)
    assert norm_constrained_least_squares(0 * x, y, 1.0).tolist() == [0.0] * 4


def linear_risks(count: int, radius: float, seed: int) -> tuple[float, float]:
    """Risk of the constrained linear fit to y = x_1 in three dimensions, without and with the nearest residual."""
    draw = generator("linear", count, seed)
    x, fresh = (torch.randn(n, 3, generator=draw, dtype=torch.float64) / 3**0.5 for n in (count, 4000))
    theta = norm_constrained_least_squares(x, x[:, 0], radius)
    found = nearest_neighbours(x, fresh, 1)
    helped = residual_memory(x @ theta, x[:, 0], fresh @ theta, found)
    return tuple(float((f - fresh[:, 0]).square().mean()) for f in (fresh @ theta, helped))  # type: ignore[return-value]


def test_theory_of_the_linear_learner():
    sizes = [30, 100, 300, 1000, 3000]
    risks = torch.tensor([[linear_risks(n, 0.5, seed) for seed in range(4)] for n in sizes]).mean(dim=1)
    floor = norm_constrained_risk(0.5, 3)
    assert floor == pytest.approx(0.25 / 3)
    assert risks[3:, 0].tolist() == pytest.approx([floor] * 2, rel=0.05)
    assert (risks[:, 1].diff() < 0).all() and (risks[:, 1] < floor).all()
    slope = torch.linalg.lstsq(
        torch.stack([torch.tensor(sizes).log(), torch.ones(5)], dim=1).double(), risks[:, 1:].double().log()
    ).solution[0]
    assert -0.85 < float(slope) < -0.45  # the nearest neighbour is n^(-1/3) away
    assert max(linear_risks(300, 1.0, 0)) < 1e-12
    assert norm_constrained_risk(1.0, 3) == norm_constrained_risk(2.0, 3) == 0


def test_bad_arguments_are_named():
    features, labels, logits = classes(10, 9)
    found = nearest_neighbours(features, features, 2)
    with pytest.raises(ValueError, match="temperature=0 is not legal"):
        residual_memory_scores(logits, labels, logits, found, temperature=0)
    with pytest.raises(ValueError, match=r"train_predictions \[10, 4\] and train_targets \[10\] must agree"):
        residual_memory(logits, labels, logits, found)
    with pytest.raises(ValueError, match=r"radius=0\.0 is not legal"):
        norm_constrained_least_squares(features, logits[:, 0], 0.0)

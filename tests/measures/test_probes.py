import numpy
import pytest
import torch

from mesocosm.measures import linear_probe


def blobs(count, distance, classes=3, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.eye(classes, width) * distance
    labels = torch.randint(classes, (count,), generator=generator)
    return centres[labels] + torch.randn(count, width, generator=generator), labels


def test_separable_classes_are_read_off_and_unrelated_labels_are_not():
    features, labels = blobs(1000, 20.0)
    assert linear_probe(features, labels, 3) == 1.0
    shuffled = labels[torch.randperm(1000, generator=torch.Generator().manual_seed(1))]
    assert linear_probe(features, shuffled, 3) == pytest.approx(1 / 3, abs=0.1)


def test_overlapping_classes_reach_the_accuracy_of_the_optimal_rule():
    features, labels = blobs(20_000, 2.0)
    optimal = (features[16_000:, :3].argmax(1) == labels[16_000:]).double().mean()
    assert linear_probe(features, labels, 3) == pytest.approx(optimal.item(), abs=0.01)


def test_a_parity_of_two_signs_is_not_linear():
    signs = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0)).sign()
    assert linear_probe(signs, (signs.prod(1) > 0).long(), 2) < 0.6


def test_the_penalty_is_that_of_the_documented_loss():
    """Two classes: the weights solve sum_i (sigmoid(z_i) - y_i) x_i + l2 w = 0, found here by gradient descent."""
    features, labels = blobs(40, 1.0, classes=2, width=2)
    x = ((features - features[:32].mean(0)) / features[:32].std(0, correction=0)).double()
    w, b = torch.zeros(2, dtype=torch.double), torch.zeros((), dtype=torch.double)
    for _ in range(5000):
        residual = torch.sigmoid(x[:32] @ w + b) - labels[:32]
        w, b = w - 0.02 * (x[:32].T @ residual + 30.0 * w), b - 0.02 * residual.sum()
    expected = ((x[32:] @ w + b > 0).long() == labels[32:]).double().mean().item()
    assert linear_probe(features, labels, 2, l2=30.0) == expected


def test_only_the_first_rows_are_learned_from():
    features, labels = blobs(100, 20.0, classes=2)
    labels[80:] = 1 - labels[80:]
    assert linear_probe(features, labels, 2) == 0.0
    assert linear_probe(features, labels, 2, train_share=0.5) == pytest.approx(30 / 50)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_classes": 2}, "labels from 0 to 2 are not legal: they must be from 0 to 1"),
        ({"train_share": 1.0}, "train_share=1.0 is not legal"),
        ({"l2": 0.0}, "l2=0.0 is not legal: it must be above 0"),
        ({"labels": torch.zeros(10, dtype=torch.int64)}, "10 rows are too few"),
        ({"labels": torch.arange(2) % 2, "features": torch.zeros(2, 3)}, "2 rows are too few"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    features, labels = blobs(10, 1.0)
    assert numpy.unique(labels).size == 3
    with pytest.raises(ValueError, match=message):
        linear_probe(**{"features": features, "labels": labels, "n_classes": 3, **changes})

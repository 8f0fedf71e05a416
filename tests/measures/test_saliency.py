import itertools
import math

import pytest
import torch
from torch import nn

from mesocosm.measures import (
    completeness,
    deletion_curve,
    insertion_areas,
    insertion_curve,
    saliency_scores,
    soundness,
)
from mesocosm.seeding import generator


class Linear(nn.Module):
    """Logits w.x and 0, so that the probability of label 0 is sigmoid(w.x)."""

    def __init__(self, w):
        super().__init__()
        self.w = w

    def forward(self, x):
        score = x.flatten(1) @ self.w.flatten()
        return torch.stack((score, torch.zeros_like(score)), dim=1)


def normal(*shape):
    return torch.randn(*shape, generator=generator("saliency", *shape), dtype=torch.float64)


def by_hand(model, image, saliency, label, steps, hidden, insert):
    """One pixel's channels after another, with Python's own stable sort."""
    order = sorted(range(saliency.numel()), key=lambda i: -float(saliency.flatten()[i]))
    found = []
    for k in range(1, steps + 1):
        top = order[: k * len(order) // steps]
        shown = set(top) if insert else set(order) - set(top)
        mixed = torch.full_like(image, hidden)
        for i in shown:
            at = tuple(int(v) for v in torch.unravel_index(torch.tensor(i), saliency.shape))
            mixed[(..., *at)] = image[(..., *at)]
        found.append(float(model(mixed[None]).softmax(-1)[0, label]))
    return found


@pytest.mark.parametrize("shape", [(6,), (3, 4), (2, 3, 4)])
@pytest.mark.parametrize(("curve", "insert"), [(insertion_curve, True), (deletion_curve, False)])
def test_curves_equal_pixel_by_pixel_evaluation(shape, curve, insert):
    model, inputs, labels = Linear(normal(*shape)), normal(3, *shape), torch.tensor([0, 1, 0])
    maps = normal(3, *shape[-2:]).round()  # With ties.
    found = curve(model, inputs, maps, labels, steps=5, fill=0.3)
    expected = [by_hand(model, x, m, label, 5, 0.3, insert) for x, m, label in zip(inputs, maps, labels)]
    torch.testing.assert_close(found, torch.tensor(expected).double())


def test_curves_of_a_linear_model_in_closed_form():
    w, x = torch.tensor([1.0, -3.0, 2.0, 0.5]), torch.tensor([[2.0, 1.0, 1.0, -2.0]])  # w x = 2, -3, 2, -1
    inserted = insertion_curve(Linear(w), x, w * x, torch.tensor([0]), steps=4)
    deleted = deletion_curve(Linear(w), x, w * x, torch.tensor([0]), steps=4)
    torch.testing.assert_close(inserted, torch.tensor([[2.0, 4.0, 3.0, 0.0]]).sigmoid())
    torch.testing.assert_close(deleted, torch.tensor([[-2.0, -4.0, -3.0, 0.0]]).sigmoid())


def test_curves_end_at_the_whole_and_at_the_hidden_image():
    model, inputs, maps, labels = Linear(normal(9)), normal(4, 9), normal(5, 9)[:4], torch.tensor([0, 1, 1, 0])
    gray = normal(9)
    whole, empty = (model(x).softmax(-1).gather(1, labels[:, None])[:, 0] for x in (inputs, gray.expand(4, 9)))
    torch.testing.assert_close(insertion_curve(model, inputs, maps, labels, 4, gray)[:, -1], whole)
    torch.testing.assert_close(deletion_curve(model, inputs, maps, labels, 4, gray)[:, -1], empty)


def test_no_order_of_a_linear_model_inserts_better_than_that_by_contribution():
    w, x, gray = normal(5), normal(1, 5), normal(2, 5)[0]
    orders = torch.tensor(list(itertools.permutations(range(5)))).double()
    many = x.expand(len(orders), 5)
    labels = torch.zeros(len(orders), dtype=torch.long)
    best = insertion_curve(Linear(w), many, orders, labels, 5, gray).mean(1).max()
    mine = insertion_curve(Linear(w), x, w * (x - gray), labels[:1], 5, gray).mean()
    torch.testing.assert_close(mine, best)


def test_ties_are_ranked_in_the_order_of_pixels():
    x, flat = torch.tensor([[1.0, 2.0, 4.0]]), torch.zeros(1, 3)
    found = insertion_curve(Linear(torch.ones(3)), x, flat, torch.tensor([0]), steps=3)
    torch.testing.assert_close(found, torch.tensor([[1.0, 3.0, 7.0]]).sigmoid())


def test_probabilities_are_averaged_over_several_fills():
    model, inputs, maps, labels = Linear(normal(2, 3)), normal(4, 2, 3), normal(5, 2, 3)[:4], torch.tensor([0, 1, 1, 0])
    fills = normal(7, 2, 3)
    found = insertion_curve(model, inputs, maps, labels, 3, fills)
    alone = torch.stack([insertion_curve(model, inputs, maps, labels, 3, z) for z in fills])
    torch.testing.assert_close(found, alone.mean(0))


def test_scores_by_hand():
    areas, probabilities = torch.tensor([0.05, 0.4, 0.9, 0.02]), torch.tensor([0.5, 0.8, 0.3, 0.04])
    torch.testing.assert_close(completeness(areas, probabilities), torch.tensor([0.2, 0.5, 1.0, 1.0]))
    torch.testing.assert_close(soundness(areas, probabilities), torch.tensor([1.0, 1.0, 1 / 3, 1.0]))
    torch.testing.assert_close(soundness(torch.tensor(0.5), torch.tensor(0.0)), torch.tensor(0.2))
    torch.testing.assert_close(completeness(areas, probabilities, cap=0.2)[:1], torch.tensor([0.5]))


def test_saliency_scores_by_hand():
    probabilities = torch.tensor([[0.8, 0.15, 0.05], [0.3, 0.6, 0.1]])
    areas = torch.tensor([[0.4, 0.5, 0.2], [0.3, 0.9, 0.2]])
    found = saliency_scores(areas, probabilities)
    # Soundness is 1, .3, .5 on the first image and 1, 2/3, .5 on the second.
    expected = (0.65, 0.3, 0.75, (0.3 + 2 / 3) / 2, (0.3 + 0.5 + 1 + 0.5) / 4, 0.5)
    assert found == pytest.approx(expected)


class Constant(nn.Module):
    def forward(self, x):
        return torch.tensor([2.0, 1.0, 0.0]).expand(len(x), 3)


def test_any_map_of_a_constant_classifier_is_complete_and_sound():
    areas, probabilities = insertion_areas(Constant(), torch.ones(4, 5), torch.randn(4, 3, 5), steps=5)
    torch.testing.assert_close(areas, probabilities)
    found = saliency_scores(areas, probabilities)
    assert found.completeness == pytest.approx(1) and found.worst_soundness == pytest.approx(1)
    assert found.agreement == 1


def test_maps_that_spell_every_label_are_complete_but_not_sound():
    w, x = torch.tensor([9.0, -7.0, 3.0, -1.0]), torch.ones(1, 4)
    maps = torch.stack((w, -w))[None]
    areas, probabilities = insertion_areas(Linear(w), x, maps, steps=4)
    contributions = [[9, 12, 11, 4], [7, 8, 5, -4]]
    sigmoid = lambda v: 1 / (1 + math.exp(-v))
    expected = [[sum(map(sigmoid, c)) / 4 for c in contributions]]
    torch.testing.assert_close(areas, torch.tensor(expected))
    found = saliency_scores(areas, probabilities)
    assert found.completeness > 0.99 and found.worst_soundness == pytest.approx(0.1 / expected[0][1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: insertion_curve(m, torch.ones(2, 4), torch.ones(2, 3), torch.zeros(2).long(), 2), "do not fit"),
        (lambda m: deletion_curve(m, torch.ones(2, 4), torch.ones(1, 4), torch.zeros(2).long(), 2), "do not fit"),
        (lambda m: insertion_curve(m, torch.ones(2, 4), torch.ones(2, 4), torch.zeros(2).long(), 5), "steps=5"),
        (lambda m: saliency_scores(torch.ones(2, 1), torch.ones(2, 1)), "two labels"),
    ],
)
def test_illegal_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Linear(torch.ones(4)))

import numpy
import pytest
import torch

from mesocosm.measures import cumulative_confidence, el2n, feldman_memorisation, margin, prediction_depth
from mesocosm.seeding import generator

LOGITS = 2 * torch.randn(3, 5, 8, 4, generator=generator(0))  # [K, T, N, C]
LABELS = torch.randint(4, (8,), generator=generator(1))


def test_proxies_equal_explicit_loops():
    probabilities = LOGITS.softmax(dim=-1)
    errors, margins = el2n(probabilities, LABELS), margin(LOGITS, LABELS)
    confidence = cumulative_confidence(probabilities, LABELS)
    assert errors.shape == margins.shape == (3, 5, 8) and confidence.shape == (3, 8)
    for k in range(3):
        for n, label in enumerate(LABELS.tolist()):
            trusted = [float(probabilities[k, t, n, label]) for t in range(5)]
            assert float(confidence[k, n]) == pytest.approx(sum(trusted) / 5, abs=1e-6)
            for t in range(5):
                p, z = probabilities[k, t, n].tolist(), LOGITS[k, t, n].tolist()
                squares = [(p[c] - (c == label)) ** 2 for c in range(4)]
                assert float(errors[k, t, n]) == pytest.approx(sum(squares) ** 0.5, abs=1e-6)
                others = max(z[c] for c in range(4) if c != label)
                assert float(margins[k, t, n]) == pytest.approx(z[label] - others, abs=1e-5)
    assert torch.equal(margins > 0, LOGITS.argmax(dim=-1) == LABELS)


def test_extremes():
    sure = torch.eye(4)[LABELS]
    assert el2n(sure, LABELS).max() == 0
    assert cumulative_confidence(sure[None], LABELS).tolist() == [1.0] * 8
    torch.testing.assert_close(el2n(sure, (LABELS + 1) % 4), torch.full((8,), 2**0.5))
    assert margin(numpy.array([[0.0, -numpy.inf, 3.0]]), numpy.array([2], dtype=numpy.int32)).tolist() == [3.0]


def test_means_over_models_that_saw_an_example():
    errors = el2n(LOGITS[:, -1].softmax(dim=-1), LABELS)
    included = torch.tensor([[1], [0], [1]]).expand(3, 8)
    found = feldman_memorisation(errors, included, least=1)
    torch.testing.assert_close(found.inside.float(), (errors[0] + errors[2]) / 2)
    torch.testing.assert_close(found.outside.float(), errors[1])


def depth_by_hand(features, labels, predictions, queries, neighbours):
    depths = []
    for m, predicted in enumerate(predictions.tolist()):
        agrees = []
        for layer, memory in enumerate(features):
            query = memory[m] if queries is None else queries[layer][m]
            order = [i for i in (memory - query).norm(dim=-1).argsort().tolist() if queries is not None or i != m]
            votes = [int(labels[i]) for i in order[:neighbours]]
            agrees.append(max(range(3), key=votes.count) == predicted)
        depths.append(next(layer for layer in range(len(features) + 1) if all(agrees[layer:])))
    return depths


@pytest.mark.parametrize("held_out", [False, True])
def test_depth_equals_an_explicit_loop(held_out):
    draw = generator(2)
    labels = torch.randint(3, (40,), generator=draw)
    layers = [(0.0, 2), (0.7, 5), (0.3, 20), (3.0, 3)]
    centres = [scale * torch.randn(3, width, generator=draw) for scale, width in layers]
    features = [c[labels] + torch.randn(40, c.shape[1], generator=draw) for c in centres]
    hidden = torch.randint(3, (25,), generator=draw)
    queries = [c[hidden] + torch.randn(25, c.shape[1], generator=draw) for c in centres] if held_out else None
    predictions = hidden if held_out else labels
    found = prediction_depth(features, labels, predictions, queries, neighbours=6)
    assert found.tolist() == depth_by_hand(features, labels, predictions, queries, 6)
    assert {0, 1, 2, 3} <= set(found.tolist())


def test_depth_of_known_layers():
    labels = torch.arange(2).repeat(10)
    apart, together = (
        labels[:, None] * 10 + 0.1 * torch.rand(20, 1, generator=generator(3)),
        torch.arange(20.0)[:, None],
    )
    assert prediction_depth([apart, apart], labels, labels, neighbours=3).tolist() == [0] * 20
    assert prediction_depth([together, apart, apart], labels, labels, neighbours=1).tolist() == [1] * 20
    assert prediction_depth([apart, apart], labels, 1 - labels, neighbours=3).tolist() == [2] * 20

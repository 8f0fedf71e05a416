import math

import pytest
import torch
from scipy import stats

from mesocosm.measures import (
    attention_entropy,
    attention_to_target,
    error_rate,
    glitch_counts,
    rule_of_three,
    sign_error,
    wilson_interval,
)
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop


def test_sign_error_weighs_samples_and_counts_zero_as_wrong():
    scores = torch.tensor([[2.0, -1.0, 0.0, 3.0], [1.0, 1.0, 1.0, 1.0]])
    targets, weights = torch.tensor([1.0, 1.0, 1.0, -1.0]), torch.tensor([1.0, 1.0, 2.0, 0.0])
    assert sign_error(scores, targets, weights).tolist() == [0.75, 0.0]


def test_error_rate_of_classes_and_of_tokens():
    logits = torch.eye(3)[torch.tensor([0, 1, 2, 2])]
    assert error_rate(logits, torch.tensor([0, 1, 1, 0]), torch.tensor([1.0, 1.0, 1.0, 3.0])) == pytest.approx(4 / 6)

    draws = generator(0)
    logits, targets = torch.randn(5, 4, 6, 3, generator=draws), torch.randint(3, (4, 6), generator=draws)
    weights = torch.rand(4, 6, generator=draws)
    rates = error_rate(logits, targets, weights)
    total = sum(float(weights[b, t]) for b in range(4) for t in range(6) if logits[2, b, t].argmax() != targets[b, t])
    assert rates.shape == (5,)
    assert rates[2] == pytest.approx(total / float(weights.sum()))


def test_errors_map_over_replicas_with_their_own_batches():
    draws = generator(1)
    logits, targets, weights = torch.randn(3, 8, 4, generator=draws), torch.arange(24).view(3, 8) % 4, torch.ones(3, 8)
    alone = [error_rate(*replica) for replica in zip(logits, targets, weights)]
    assert torch.equal(torch.vmap(error_rate)(logits, targets, weights), torch.stack(alone))


def test_no_weight_gives_nan():
    assert sign_error(torch.ones(2), torch.ones(2), torch.zeros(2)).isnan()


def test_glitch_counts_equal_counting_by_hand():
    batch = FlipFlop(length=12, p_ignore=0.3).sample(40, generator(2))
    wrong = torch.rand(40, 11, generator=generator(3)) < 0.3
    counts = glitch_counts(wrong, batch.weights, batch.distance, batch.writes, size=6)
    errors, reads = torch.zeros(6, 6), torch.zeros(6, 6)
    for b in range(40):
        for t in range(11):
            if batch.weights[b, t]:
                reads[batch.distance[b, t], batch.writes[b, t]] += 1
                errors[batch.distance[b, t], batch.writes[b, t]] += wrong[b, t]
    assert torch.equal(counts.errors.float(), errors)
    assert torch.equal(counts.reads.float(), reads)


@pytest.mark.parametrize("p_ignore", [0.0, 1.0])
def test_half_the_length_is_bins_enough(p_ignore):
    batch = FlipFlop(length=8, p_ignore=p_ignore).sample(300, generator(4))
    counts = glitch_counts(batch.weights > 0, batch.weights, batch.distance, batch.writes, size=4)
    assert torch.equal(counts.errors, counts.reads)
    assert counts.reads.sum() == batch.weights.sum()


@pytest.mark.parametrize(("errors", "trials"), [(0, 10), (3, 10), (10, 10), (1, 5000)])
def test_wilson_interval_equals_scipy(errors, trials):
    low, high = wilson_interval(torch.tensor(errors), torch.tensor(trials), confidence=0.9)
    expected = stats.binomtest(errors, trials).proportion_ci(0.9, method="wilson")
    assert (float(low), float(high)) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_interval_takes_any_shape_and_no_trials():
    low, high = wilson_interval(torch.tensor([[1, 0]]), torch.tensor([[4, 0]]))
    assert low.shape == high.shape == (1, 2)
    assert low[0, 1].isnan()


def test_rule_of_three_is_close_to_the_exact_bound():
    assert float(rule_of_three(torch.tensor(3000))) == pytest.approx(1 - 0.05 ** (1 / 3000), rel=2e-3)


def test_attention_to_target():
    attention = torch.rand(2, 3, 4, 4, generator=generator(5)).softmax(-1)
    target = torch.tensor([[-1, 0, 1, 2], [-1, 0, 0, 3]])
    mass = attention_to_target(attention, target)
    assert mass.shape == (2, 3, 4)
    assert (mass[:, :, 0] == 0).all()
    assert mass[1, 2, 3] == attention[1, 2, 3, 3]
    assert mass[0, 1, 2] == attention[0, 1, 2, 1]
    layers = torch.stack((attention, attention.flip(0)))
    assert torch.equal(attention_to_target(layers, target)[0], mass)


def test_attention_entropy_of_known_rows():
    attention = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0.0, 0.0]])
    assert attention_entropy(attention).tolist() == pytest.approx([0, math.log(4), math.log(2)])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: wilson_interval(torch.tensor(1), torch.tensor(2), 1.0), "confidence=1.0 is not legal"),
        (lambda: wilson_interval(torch.tensor(3), torch.tensor(2)), "errors=3 is not legal.*trials=2"),
        (
            lambda: glitch_counts(torch.ones(1, 1).bool(), torch.ones(1, 1), *torch.tensor([[[5]], [[1]]]), size=4),
            "size=4 is not legal.*more than 5",
        ),
    ],
)
def test_bad_parameters_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

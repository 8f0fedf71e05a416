import math

import pytest
import torch
from torch.func import functional_call, stack_module_state, vmap

from mesocosm.models import MinimalInduction
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, MarkovChains
from mesocosm.tasks.markov_chains import ngram_counts
from mesocosm.training import SGD, Population, cross_entropy, train

TASK = MarkovChains(length=10)


def tokens():
    return TASK.sample(5, generator("tokens")).inputs


def test_forward_equals_the_formula():
    model = MinimalInduction.for_task(TASK, offset_scale=2.0)
    torch.nn.init.normal_(model.offsets)
    torch.nn.init.normal_(model.matrix)
    v, w, found = (2 * model.offsets).tolist(), model.matrix.tolist(), model(tokens()).tolist()
    for sequence, logits in zip(tokens().tolist(), found):
        for t in range(10):
            expected = [0.0] * 3
            for s in range(t + 1):
                total = sum(math.exp(v[s - r]) for r in range(s + 1))
                seen = sum(math.exp(v[s - r]) / total * w[sequence[t]][sequence[r]] for r in range(s + 1))
                expected[sequence[s]] += seen
            assert logits[t] == pytest.approx(expected, abs=1e-4)


def test_an_identity_and_a_look_back_count_bigrams():
    model = MinimalInduction.for_task(TASK)
    with torch.no_grad():
        model.matrix.copy_(torch.eye(3))
        model.offsets[1] = 50.0
        found = model(tokens())
    counts = ngram_counts(tokens(), 3, 1)
    # The first symbol has nothing before it, so that layer 1 sees the symbol itself.
    counts += torch.nn.functional.one_hot(tokens()[:, :1], 3) * (tokens() == tokens()[:, :1])[..., None]
    torch.testing.assert_close(found, counts, atol=1e-5, rtol=0)


def test_equal_entries_count_unigrams_at_the_start():
    model = MinimalInduction.for_task(TASK, matrix_start=0.5)
    counts = ngram_counts(tokens(), 3, 0)
    torch.testing.assert_close(model(tokens()), 0.5 * counts)


def test_scale_is_a_larger_rate_of_the_offsets():
    """One step of SGD moves v by scale^2 times its gradient."""
    steps = []
    for scale in (1.0, 3.0):
        population = Population(lambda s=scale: MinimalInduction.for_task(TASK, offset_scale=s), ["start"])
        population.layout.views(population.theta)["matrix"].copy_(torch.eye(3))
        train(population, TASK, cross_entropy, SGD(0.1), steps=1, batch_size=8)
        steps.append(scale * population.weights()["offsets"][0])
    torch.testing.assert_close(steps[1], 9 * steps[0])
    assert steps[0].abs().max() > 0


def test_a_mapped_stack_equals_its_replicas():
    models = [MinimalInduction.for_task(TASK) for _ in range(2)]
    for seed, model in enumerate(models):
        torch.manual_seed(seed)
        torch.nn.init.normal_(model.offsets)
        torch.nn.init.normal_(model.matrix)
    parameters, buffers = stack_module_state(models)
    inputs = tokens()
    together = vmap(lambda p, b: functional_call(models[0], (p, b), inputs))(parameters, buffers)
    torch.testing.assert_close(together, torch.stack([model(inputs) for model in models]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: MinimalInduction(d_vocab=0, length=4), "d_vocab=0 is not legal"),
        (lambda: MinimalInduction(d_vocab=2, length=4, offset_scale=0.0), "offset_scale=0.0 is not legal"),
        (lambda: MinimalInduction(d_vocab=3, length=4)(tokens()), "10 tokens are more than length=4"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_shorter_strings_than_the_longest_run():
    model = MinimalInduction.for_task(TASK)
    torch.testing.assert_close(model(tokens()[:, :4]), model(tokens())[:, :4])
    assert MinimalInduction.for_task(FlipFlop()).d_vocab == 5

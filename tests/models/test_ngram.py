import pytest
import torch

from mesocosm.models import NgramMLP, NgramTable
from mesocosm.seeding import generator
from mesocosm.tasks import EasyHardMarkov, TextBytes
from mesocosm.training import AdamW, Population, cross_entropy, train


def small(**sizes) -> NgramMLP:
    torch.manual_seed(0)
    return NgramMLP(**{"d_vocab": 5, "context": 3, "d_embed": 4, "hidden": (7, 6)} | sizes)


def test_each_position_is_the_network_on_its_last_tokens():
    model = small(n_outputs=9)
    tokens = torch.randint(5, (2, 6), generator=generator(0))
    logits = model(tokens)
    assert logits.shape == (2, 6, 9)
    for b in range(2):
        for t in range(6):
            seen = [model.embed.weight[tokens[b, s] if s >= 0 else 5] for s in range(t - 2, t + 1)]
            torch.testing.assert_close(logits[b, t], model.mlp(torch.cat(seen)[None])[0])


@pytest.mark.parametrize("context", [1, 3])
def test_nothing_else_is_seen(context):
    model, tokens = small(context=context), torch.zeros(1, 8, dtype=torch.int64)
    changed = tokens.index_fill(1, torch.tensor([2]), 1)
    differs = (model(tokens) != model(changed)).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == list(range(2, 2 + context))


def test_a_population_equals_its_replicas_in_values_and_gradients():
    task = TextBytes(length=12)
    make = lambda: NgramMLP.for_task(task, context=4, d_embed=3, hidden=(8,))
    together, alone = Population(make, [0, 1, 2]), Population(make, [2])
    inputs = task.sample(4, generator(1)).inputs
    outputs = together.map(lambda model: model(inputs))
    torch.testing.assert_close(outputs[2], together.replica(2)(inputs), atol=1e-5, rtol=1e-5)
    for population in (together, alone):
        train(population, task, cross_entropy, AdamW(1e-2), steps=3, batch_size=4)
    assert torch.equal(together.theta[2], alone.theta[0])
    assert together.mappable


def test_it_takes_its_sizes_from_a_task():
    assert NgramMLP.for_task(EasyHardMarkov(symbols=6), context=2).mlp.layers[-1].out_features == 6
    sizes = [layer.weight.shape for layer in NgramMLP.for_task(TextBytes()).mlp.layers]
    assert sizes == [(256, 96), (256, 256), (256, 256)]


@pytest.mark.parametrize("order", [0, 1, 2])
def test_a_table_gives_the_law_of_its_context(order):
    laws = torch.rand(4**order, 4, generator=generator(2)).softmax(-1)
    table, tokens = NgramTable(laws), torch.randint(4, (3, 7), generator=generator(3))
    for b in range(3):
        for t in range(7):
            row = 0
            for s in range(t - order + 1, t + 1):
                row = 4 * row + (int(tokens[b, s]) if s >= 0 else 0)
            torch.testing.assert_close(table(tokens)[b, t].exp(), laws[row])


def test_the_table_of_a_chain_knows_its_laws():
    task = EasyHardMarkov(symbols=6, length=10)
    batch = task.sample(5, generator(4))
    table = NgramTable(task.chain.laws)(batch.inputs).exp()
    torch.testing.assert_close(table[:, 1:], batch.probabilities[:, 1:])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small(context=0), "context=0 is not legal: it must be an integer, at least 1"),
        (lambda: small(hidden=(4, 0)), r"hidden\[1\]=0 is not legal"),
        (lambda: NgramTable(torch.ones(12, 4)), "laws of 12 contexts are not legal: it must be a power of V=4"),
    ],
)
def test_bad_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()

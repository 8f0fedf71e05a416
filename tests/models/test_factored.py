import pytest
import torch

from mesocosm.models import FactoredEmbedding, PairEmbedding, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import PathStar, VariableAssignment
from mesocosm.tasks.reasoning import symbol_pairs
from mesocosm.training import Population


def test_a_token_is_the_sum_of_its_two_parts():
    embed = FactoredEmbedding(d_vocab=32, base=5, d_model=3)
    tokens = torch.arange(32).view(4, 8)
    expected = [embed.high.weight[token // 5] + embed.low.weight[token % 5] for token in range(32)]
    assert torch.equal(embed(tokens), torch.stack(expected).view(4, 8, 3))


def test_edges_that_share_a_node_share_a_vector():
    task = PathStar()
    embed = FactoredEmbedding(d_vocab=len(task.tokens), base=task.nodes, d_model=4)
    vector = dict(zip(task.tokens, embed(torch.arange(len(task.tokens)))))
    assert torch.allclose(vector["3>7"] - vector["3>2"], vector["5>7"] - vector["5>2"])
    assert torch.allclose(vector["3>7"] - vector["5>7"], vector["3>2"] - vector["5>2"])


def test_initial_weights_have_the_given_spread():
    torch.manual_seed(0)
    embed = FactoredEmbedding(d_vocab=10_000, base=100, d_model=64, embedding_std=0.3)
    for table in (embed.high, embed.low):
        assert table.weight.std().item() == pytest.approx(0.3, rel=0.05)


def test_it_serves_a_population_in_place_of_a_table():
    task = PathStar()

    def make():
        model = Transformer.for_task(task, d_model=8, n_heads=2, n_layers=1)
        model.embed = FactoredEmbedding(d_vocab=len(task.tokens), base=task.nodes, d_model=8)
        return model

    population = Population(make, seeds=[0, 1])
    inputs = task.sample(6, generator(0)).inputs
    together = population.map(lambda model: model(inputs))
    alone = torch.stack([population.replica(r)(inputs) for r in range(2)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_bad_sizes_are_refused_by_name():
    with pytest.raises(ValueError, match="base=0 is not legal: it must be an integer, at least 1"):
        FactoredEmbedding(d_vocab=4, base=0, d_model=8)


def test_lines_share_the_vectors_of_their_halves():
    tokens = VariableAssignment().tokens
    embed = PairEmbedding(symbol_pairs(tokens), d_model=4)
    vector = dict(zip(tokens, embed(torch.arange(len(tokens)).view(-1, 1)).squeeze(1)))
    assert torch.allclose(vector["a=3"] - vector["a=b"], vector["c=3"] - vector["c=b"], atol=1e-6)
    assert torch.allclose(vector["a=?"] - vector["d=?"], vector["a=b"] - vector["d=b"], atol=1e-6)
    assert torch.unique(torch.stack(list(vector.values())), dim=0).shape[0] == len(tokens)


def test_a_pair_is_the_sum_of_its_rows():
    pairs = torch.tensor([[0, 1], [2, 0], [1, 1]])
    embed = PairEmbedding(pairs, d_model=3)
    assert (embed.left.num_embeddings, embed.right.num_embeddings) == (3, 2)
    expected = torch.stack([embed.left.weight[left] + embed.right.weight[right] for left, right in pairs.tolist()])
    assert torch.equal(embed(torch.tensor([[0, 1, 2]])), expected[None])
    population = Population(lambda: PairEmbedding(pairs, d_model=3), seeds=[0, 1])
    assert torch.equal(population.map(lambda model: model(torch.arange(3)))[1], population.replica(1)(torch.arange(3)))


def test_bad_pairs_are_refused():
    with pytest.raises(ValueError, match=r"pairs of shape \(3,\) is not legal: it must be \[V, 2\]"):
        PairEmbedding(torch.arange(3), d_model=8)
    with pytest.raises(ValueError, match="d_model=0 is not legal: it must be an integer, at least 1"):
        PairEmbedding(torch.zeros(3, 2, dtype=torch.long), d_model=0)

import pytest
import torch
from torch import nn

from mesocosm.seeding import generator
from mesocosm.training import input_norms, magnitude, prune, random_scores, wanda


def network():
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("first", nn.Linear(10, 7))
    model.add_module("act", nn.ReLU())
    model.add_module("lm_head", nn.Linear(7, 3))
    return model


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.5, 1])
def test_each_row_loses_its_least_weights(sparsity):
    model, before = network(), network()
    achieved = prune(model, sparsity, magnitude)
    assert achieved == pytest.approx(round(sparsity * 10) / 10)
    for row, old in zip(model.first.weight, before.first.weight):
        kept = sorted(old.abs().tolist(), reverse=True)[: 10 - round(sparsity * 10)]
        assert sorted(row[row != 0].abs().tolist(), reverse=True) == kept
    assert torch.equal(model.first.bias, before.first.bias)
    assert torch.equal(model.lm_head.weight, before.lm_head.weight)


def test_ties_are_pruned_to_the_exact_share():
    model = nn.Linear(8, 5)
    nn.init.constant_(model.weight, 0.5)
    model.weight.data[:, :2] = 0
    assert prune(model, 0.5, magnitude, skip=()) == 0.5
    assert ((model.weight != 0).sum(1) == 4).all()


def test_wanda_minds_the_inputs():
    """An input that is never active loses its weights first, however large they are."""
    model = network()
    model.first.weight.data[:, 3] = 100
    inputs = torch.randn(4, 6, 10, generator=generator(0))
    inputs[..., 3] = 0
    norms = input_norms(model, [inputs[:1], inputs[1:]])
    assert torch.allclose(norms["first"], inputs.double().flatten(0, 1).norm(dim=0))
    hidden = model.act(model.first(inputs)).double().flatten(0, 1)
    assert torch.allclose(norms["lm_head"], hidden.norm(dim=0))
    expected = (model.first.weight.abs() * norms["first"]).argsort(dim=1)[:, :5]
    prune(model, 0.5, wanda(norms))
    assert (model.first.weight[:, 3] == 0).all()
    assert (model.first.weight.gather(1, expected) == 0).all()
    assert not model.first._forward_pre_hooks


def test_wanda_hurts_the_outputs_less_than_magnitude_or_chance():
    scales = torch.logspace(-2, 1, 64)
    inputs = torch.randn(500, 64, generator=generator(1)) * scales

    def damage(score):
        torch.manual_seed(1)
        layer = nn.Linear(64, 32)
        before = layer(inputs)
        prune(layer, 0.5, score, skip=())
        return (layer(inputs) - before).square().mean().item()

    torch.manual_seed(1)
    by_wanda = damage(wanda(input_norms(nn.Linear(64, 32), [inputs])))
    assert by_wanda < damage(magnitude) / 3
    assert by_wanda < damage(random_scores(generator(2))) / 3


def test_the_layers_of_hugging_face_are_pruned_by_output():
    transformers = pytest.importorskip("transformers")
    config = transformers.GPT2Config(n_layer=1, n_head=2, n_embd=16, vocab_size=50, n_positions=8)
    model = transformers.GPT2LMHeadModel(config).eval()
    tokens = torch.randint(50, (3, 8), generator=generator(3))
    norms = input_norms(model, [tokens])
    assert norms["transformer.h.0.attn.c_attn"].shape == (16,)
    embeddings = model.transformer.wte.weight.clone()
    assert prune(model, 0.5, wanda(norms)) == pytest.approx(0.5)
    weight = model.transformer.h[0].attn.c_attn.weight  # [in, out]
    assert ((weight == 0).sum(0) == 8).all()
    assert torch.equal(model.transformer.wte.weight, embeddings), "the head is tied to the embeddings and stays whole"


def test_what_cannot_be_pruned_is_said():
    with pytest.raises(ValueError, match=r"sparsity=1.5 is not legal: it must be from 0 to 1"):
        prune(network(), 1.5, magnitude)
    with pytest.raises(ValueError, match="nothing to prune"):
        prune(nn.Sequential(nn.ReLU()), 0.5, magnitude)

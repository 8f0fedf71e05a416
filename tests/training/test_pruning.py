import pytest
import torch
from torch import nn

from mesocosm.seeding import generator
from mesocosm.training import input_norms, magnitude, prune, random_scores, sparsegpt, wanda


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_of_equal_weights_the_first_are_pruned(dtype):
    """As a stable sort has it, in rows with many ties, with some and with none."""
    draws = generator(0)
    some = torch.randint(-9, 9, (40, 30), generator=draws).double()
    none = torch.rand(40, 30, generator=draws, dtype=torch.float64) + 1
    for weights in (some, none, torch.cat([some[:2], none])):
        for count in (1, 7, 15, 30):
            layer = nn.Linear(30, len(weights), bias=False, dtype=dtype)
            layer.weight.data.copy_(weights)
            first = layer.weight.abs().argsort(dim=1, stable=True)[:, :count]
            expected = layer.weight.detach().clone().scatter_(1, first, 0)
            prune(layer, count / 30, magnitude, skip=())
            assert torch.equal(layer.weight, expected)


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


def correlated(rows, features, seed):
    mix = torch.randn(features, features, generator=generator(seed))
    return torch.randn(rows, features, generator=generator(seed, "inputs")) @ mix


def surgeon(weight, hessian, removed):
    """The exact least squares: of all weights that are 0 at `removed`, those with the nearest outputs."""
    kept = [j for j in range(len(weight)) if j not in removed]
    found = torch.zeros_like(weight)
    found[kept] = torch.linalg.solve(hessian[kept][:, kept], hessian[kept] @ weight)
    return found


def test_sparsegpt_of_one_weight_is_optimal_brain_surgeon():
    layer = nn.Linear(6, 1, bias=False).double()
    inputs = correlated(200, 6, 1).double()
    layer.weight.data[0, 0] = 1e-3
    before = layer.weight[0].detach().clone()
    assert sparsegpt(layer, 1 / 6, [inputs], skip=(), damping=0) == pytest.approx(1 / 6)
    assert torch.allclose(layer.weight[0], surgeon(before, inputs.T @ inputs, {0}))


@pytest.mark.parametrize("block", [1, 3, 8, 128])
def test_sparsegpt_goes_through_the_columns_as_a_surgeon_does(block):
    """Against removing weight by weight with the inverse of what is left of H at each column."""
    layer = nn.Linear(8, 5, bias=False).double()
    inputs = correlated(300, 8, 6).double()
    weight, hessian = layer.weight.detach().clone(), inputs.T @ inputs
    hessian = hessian + 0.01 * hessian.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    for start in range(0, 8, block):
        width = min(block, 8 - start)
        shares = torch.stack([torch.linalg.inv(hessian[j:, j:])[0, 0] for j in range(start, start + width)])
        scores = weight[:, start : start + width].square() / shares
        removed = torch.zeros(5 * width, dtype=torch.bool)
        removed[scores.flatten().argsort()[: round(0.4 * 5 * width)]] = True
        for row, j in removed.view(5, width).nonzero().tolist():
            inverse = torch.linalg.inv(hessian[start + j :, start + j :])
            weight[row, start + j :] -= weight[row, start + j] * inverse[0] / inverse[0, 0]
    sparsegpt(layer, 0.4, [inputs[:100], inputs[100:]], skip=(), block=block)
    assert torch.allclose(layer.weight, weight, atol=1e-9)
    assert ((layer.weight == 0) == (weight.abs() < 1e-12)).all()


def test_sparsegpt_of_a_whole_block_is_exact_when_removed_weights_come_first():
    """Removing the first three columns of all rows, one after another, is one least squares over the rest."""
    layer = nn.Linear(8, 5, bias=False).double()
    inputs = correlated(300, 8, 2).double()
    layer.weight.data[:, :3] *= 1e-4
    before = layer.weight.detach().clone()
    sparsegpt(layer, 3 / 8, [inputs[:100], inputs[100:]], skip=(), damping=0)
    assert (layer.weight[:, :3] == 0).all()
    for row, old in zip(layer.weight, before):
        assert torch.allclose(row, surgeon(old, inputs.T @ inputs, {0, 1, 2}))


def test_sparsegpt_keeps_outputs_better_than_wanda_and_magnitude():
    inputs = correlated(600, 64, 3)

    def damage(by):
        torch.manual_seed(3)
        layer = nn.Linear(64, 32)
        before = layer(inputs)
        assert by(layer) == pytest.approx(0.5)
        return (layer(inputs) - before).square().mean().item()

    found = damage(lambda layer: sparsegpt(layer, 0.5, [inputs], skip=(), block=16))
    assert found < damage(lambda layer: prune(layer, 0.5, wanda(input_norms(layer, [inputs])), skip=())) / 1.5
    assert found < damage(lambda layer: prune(layer, 0.5, magnitude, skip=())) / 1.5


def test_sparsegpt_minds_what_the_pruned_layers_before_give():
    """The second layer is fitted on the inputs that the first one, already pruned, gives it; the last is left whole."""
    inputs = correlated(200, 10, 4)
    model, first = network(), network()
    head = model.lm_head.weight.clone()
    model.add_module("second", nn.Linear(3, 4))
    second = nn.Linear(3, 4)
    second.load_state_dict(model.second.state_dict())
    sparsegpt(model, 0.5, [inputs])
    sparsegpt(first, 0.5, [inputs])
    assert torch.equal(model.first.weight, first.first.weight)
    sparsegpt(second, 0.5, [first(inputs)])
    assert torch.allclose(model.second.weight, second.weight)
    assert torch.equal(model.lm_head.weight, head)


def test_an_input_that_is_never_active_costs_nothing():
    layer, inputs = nn.Linear(10, 6), correlated(200, 10, 5)
    inputs[:, 4] = 0
    before = layer(inputs)
    sparsegpt(layer, 0.1, [inputs], skip=())
    assert (layer.weight[:, 4] == 0).all()
    assert torch.allclose(layer(inputs), before, atol=1e-5)

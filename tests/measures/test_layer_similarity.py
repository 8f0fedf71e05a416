"""Block similarity: against plain loops, in any residual network, and where it is known."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mesocosm.measures import block_similarity
from mesocosm.models import Looped, Transformer
from mesocosm.training import Population, copy_middle, grow_module, layer_sources

SIZES = {"d_vocab": 7, "max_length": 5, "d_model": 8, "n_heads": 2}
TOKENS = torch.randint(7, (6, 5), generator=torch.Generator().manual_seed(3))


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.map = nn.Linear(width, width)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return hidden_states + self.map(hidden_states).tanh()


@pytest.mark.parametrize("weights", [None, torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])])
@pytest.mark.parametrize("named", [False, True])
def test_it_is_the_mean_cosine_of_what_layers_add(weights: torch.Tensor | None, named: bool) -> None:
    torch.manual_seed(0)
    layers = nn.ModuleList(Residual(4) for _ in range(3))

    class Model(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in layers:
                x = layer(hidden_states=x) if named else layer(x)
            return x

    x = torch.randn(2, 3, 4)
    found = block_similarity(Model(), x, layers, weights)
    share = torch.ones(2, 3) if weights is None else weights
    inputs = [x, layers[0](x), layers[1](layers[0](x))]
    expected = torch.zeros(3, 3)
    for i in range(3):
        for j in range(3):
            for h in inputs:
                for b in range(2):
                    for t in range(3):
                        cosine = F.cosine_similarity(layers[i].map(h).tanh()[b, t], layers[j].map(h).tanh()[b, t], -1)
                        expected[i, j] += cosine * share[b, t] / share.sum() / 3
    torch.testing.assert_close(found, expected)


def test_a_copy_does_what_its_original_does_and_a_fresh_block_does_not() -> None:
    torch.manual_seed(0)
    small, copied, fresh = Transformer(**SIZES, n_layers=3), *(Transformer(**SIZES, n_layers=4) for _ in range(2))
    grow_module(small, copied, layer_sources("blocks.{}.", copy_middle(3)))
    grow_module(small, fresh, layer_sources("blocks.{}.", [0, 1, None, 2]))
    same, other = (block_similarity(model, TOKENS, model.blocks) for model in (copied, fresh))
    assert same[1, 2].item() == pytest.approx(1, abs=1e-6)
    assert other[1, 2].item() < 0.5
    torch.testing.assert_close(same.diagonal(), torch.ones(4))
    torch.testing.assert_close(same, same.T)


def test_looped_layers_are_all_alike_and_their_repeats_the_same() -> None:
    torch.manual_seed(0)
    model = Looped(**SIZES, n_layers=2, loops=2)
    similarity = block_similarity(model, TOKENS, model.blocks)
    torch.testing.assert_close(similarity[0, 2], torch.tensor(1.0))
    torch.testing.assert_close(similarity[:2, 2:], similarity[:2, :2])
    assert similarity[0, 1].item() < 0.5


def test_it_maps_over_a_population_and_leaves_no_hook() -> None:
    population = Population(lambda: Transformer(**SIZES, n_layers=3), seeds=[0, 1])
    together = population.map(lambda model: block_similarity(model, TOKENS, model.blocks))
    for r in range(2):
        model = population.replica(r)
        torch.testing.assert_close(together[r], block_similarity(model, TOKENS, model.blocks).detach())
        assert not any(block._forward_pre_hooks for block in model.blocks)


def test_hugging_face_layers_are_compared() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "vocab_size": 11}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(num_hidden_layers=3, **sizes)).eval()
    model.model.layers[2].load_state_dict(model.model.layers[0].state_dict())
    model.config.use_cache = False
    similarity = block_similarity(model, TOKENS, model.model.layers)
    assert similarity[0, 2].item() == pytest.approx(1, abs=1e-5)
    assert similarity[0, 1].item() < 0.9

"""The transformer against PyTorch's encoder, and its position codes against their formulas."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mesocosm.models.positions import alibi_bias, alibi_slopes, rotary_angles, rotate, sinusoidal
from mesocosm.models.transformer import Transformer

CPU = torch.device("cpu")
B, T, V = 3, 10, 11


def make(seed: int = 0, **options) -> Transformer:
    torch.manual_seed(seed)
    return Transformer(**{"d_vocab": V, "max_length": T, "d_model": 16, "n_heads": 4} | options)


def tokens() -> Tensor:
    return torch.randint(V, (B, T), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
@pytest.mark.parametrize("causal", [False, True])
def test_it_equals_pytorchs_encoder(norm: str, activation: str, causal: bool) -> None:
    model = make(norm=norm, activation=activation, causal=causal)
    layer = nn.TransformerEncoderLayer(
        16, 4, 64, dropout=0.0, activation=activation, batch_first=True, norm_first=norm == "pre"
    )
    final = nn.LayerNorm(16) if norm == "pre" else None
    encoder = nn.TransformerEncoder(layer, 2, norm=final, enable_nested_tensor=False)
    for ours, theirs in zip(model.blocks, encoder.layers):
        theirs.load_state_dict(
            {
                "self_attn.in_proj_weight": ours.attn.qkv.weight,
                "self_attn.in_proj_bias": ours.attn.qkv.bias,
                **{f"self_attn.out_proj.{name}": value for name, value in ours.attn.out.state_dict().items()},
                **{f"linear1.{name}": value for name, value in ours.mlp.fc_in.state_dict().items()},
                **{f"linear2.{name}": value for name, value in ours.mlp.fc_out.state_dict().items()},
                **{f"norm1.{name}": value for name, value in ours.ln1.state_dict().items()},
                **{f"norm2.{name}": value for name, value in ours.ln2.state_dict().items()},
            }
        )
    x = model.embed(tokens()) + model.pos_embed.weight
    mask = nn.Transformer.generate_square_subsequent_mask(T) if causal else None
    expected = model.unembed(encoder(x, mask=mask, is_causal=causal))
    torch.testing.assert_close(model(tokens()), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary", "alibi", "none"])
def test_a_causal_model_does_not_see_the_future(positions: str) -> None:
    before, after = tokens(), tokens()
    after[:, 6:] = (after[:, 6:] + 1) % V
    causal, both_ways = make(positions=positions), make(positions=positions, causal=False)
    torch.testing.assert_close(causal(before)[:, :6], causal(after)[:, :6], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(causal(before)[:, 6:], causal(after)[:, 6:], atol=1e-3)
    assert not torch.allclose(both_ways(before)[:, :6], both_ways(after)[:, :6], atol=1e-3)


def test_without_positions_a_bidirectional_model_is_equivariant_to_order() -> None:
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    model = make(positions="none", causal=False)
    torch.testing.assert_close(model(tokens()[:, order]), model(tokens())[:, order], rtol=1e-5, atol=1e-5)
    model = make(positions="rotary", causal=False)
    assert not torch.allclose(model(tokens()[:, order]), model(tokens())[:, order], atol=1e-3)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    angles = rotary_angles(50, 8, CPU)
    at = [rotate(x.expand(1, 50, 1, 8), angles)[0, :, 0] for x in (query, key)]
    scores = at[0] @ at[1].T
    for distance in (0, 3, 17):
        same = scores.diagonal(-distance)
        torch.testing.assert_close(same, same[:1].expand_as(same), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(scores[0, 0], query @ key)
    pair = torch.view_as_complex(torch.stack([query[:4], query[4:]], -1))
    turned = pair * torch.polar(torch.ones(4), 7 * 10_000.0 ** (-torch.arange(4) / 4))
    torch.testing.assert_close(at[0][7], torch.cat([turned.real, turned.imag]))


def test_sinusoidal_positions_follow_the_formula() -> None:
    table = sinusoidal(20, 6, CPU)
    for t in (0, 1, 19):
        for i in range(3):
            angle = t / 10_000 ** (2 * i / 6)
            assert table[t, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[t, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


def test_alibi_slopes_and_bias_follow_the_paper() -> None:
    assert alibi_slopes(8, CPU).tolist() == [2**-h for h in range(1, 9)]
    sixteen = alibi_slopes(16, CPU).tolist()
    torch.testing.assert_close(torch.tensor(sixteen), torch.tensor([2 ** (-h / 2) for h in range(1, 17)]))
    assert alibi_slopes(12, CPU).tolist() == pytest.approx([2**-h for h in range(1, 9)] + sixteen[:8:2])
    assert alibi_slopes(1, CPU).tolist() == [2**-8]
    bias = alibi_bias(5, 8, CPU)
    assert all(bias[h, i, j] == -(2.0 ** -(h + 1)) * abs(i - j) for h in range(8) for i in range(5) for j in range(5))


def test_swiglu_follows_the_formula() -> None:
    mlp = make(activation="swiglu", d_mlp=5).blocks[0].mlp
    x = torch.randn(16)
    gate, linear = (mlp.fc_in.weight @ x + mlp.fc_in.bias).split(5)
    expected = mlp.fc_out.weight @ (gate * gate.sigmoid() * linear) + mlp.fc_out.bias
    torch.testing.assert_close(mlp(x, lambda name, x: x), expected)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_every_named_activation_is_captured(norm: str) -> None:
    model = make(norm=norm)
    logits, kept = model(tokens(), capture=model.hook_names)
    assert sorted(kept) == sorted(model.hook_names)
    torch.testing.assert_close(logits, model(tokens()), rtol=1e-5, atol=1e-5)
    shapes = {
        "hook_embed": (B, T, 16),
        "hook_pos_embed": (T, 16),
        "blocks.1.attn.hook_pattern": (B, 4, T, T),
        "blocks.0.attn.hook_z": (B, T, 4, 4),
        "blocks.1.mlp.hook_post": (B, T, 64),
    }
    assert {name: kept[name].shape for name in shapes} == shapes
    torch.testing.assert_close(kept["blocks.0.attn.hook_pattern"].sum(-1), torch.ones(B, 4, T))
    assert kept["blocks.0.attn.hook_pattern"].triu(1).abs().max() == 0
    assert torch.equal(kept["blocks.0.hook_resid_post"], kept["blocks.1.hook_resid_pre"])
    if norm == "pre":
        added = kept["blocks.0.hook_attn_out"] + kept["blocks.0.hook_mlp_out"]
        torch.testing.assert_close(kept["blocks.0.hook_resid_pre"] + added, kept["blocks.0.hook_resid_post"])


def test_activations_are_captured_under_vmap_with_gradients() -> None:
    models = [make(seed) for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    name, inputs = "blocks.1.attn.hook_pattern", tokens()

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> dict[str, Tensor]:
        return functional_call(models[0], (parameters, buffers), (inputs, [name]))[1]

    pattern = vmap(forward)(parameters, buffers)[name]
    expected = torch.stack([model(inputs, [name])[1][name] for model in models])
    torch.testing.assert_close(pattern, expected, rtol=1e-5, atol=1e-5)
    (-(pattern * pattern.clamp_min(1e-9).log()).sum()).backward()
    assert parameters["blocks.1.attn.qkv.weight"].grad.abs().max() > 0


def test_an_unknown_activation_is_refused_with_the_legal_names() -> None:
    with pytest.raises(ValueError, match=r"capture=\['hook_x'\] is not legal: it must be among hook_embed, "):
        make()(tokens(), ["hook_x"])
    with pytest.raises(ValueError, match="hook_pos_embed"):
        make(positions="rotary")(tokens(), ["hook_pos_embed"])


def test_only_learned_positions_end_at_max_length() -> None:
    longer = torch.zeros(1, T + 1, dtype=torch.long)
    with pytest.raises(ValueError, match=f"{T + 1} tokens are more than max_length={T}"):
        make()(longer)
    for positions in ("sinusoidal", "rotary", "alibi", "none"):
        assert make(positions=positions)(longer).shape == (1, T + 1, V)


def test_tied_weights_are_one_parameter() -> None:
    model = make(tied=True, embedding_std=0.02)
    assert [name for name, _ in model.named_parameters() if "embed" in name] == ["embed.weight", "pos_embed.weight"]
    zeros = torch.zeros_like(model.embed.weight)
    assert functional_call(model, {"embed.weight": zeros}, (tokens(),)).abs().max() == 0


def test_start_of_the_embeddings() -> None:
    model = make(d_vocab=500, max_length=400, embedding_std=0.3)
    for embedding in (model.embed, model.pos_embed):
        assert embedding.weight.std().item() == pytest.approx(0.3, rel=0.05)


@pytest.mark.parametrize("option", ["dropout", "attention_dropout", "embedding_dropout"])
def test_each_dropout_acts_in_training_only(option: str) -> None:
    model = make(**{option: 0.5})
    assert not torch.equal(model(tokens()), model(tokens()))
    model.eval()
    torch.testing.assert_close(model(tokens()), make()(tokens()))

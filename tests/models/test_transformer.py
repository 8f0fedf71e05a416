"""The transformer against PyTorch's encoder and Hugging Face's GPT-2, its variants against their formulas."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from mesocosm.models.positions import alibi_bias, alibi_slopes, rotary_angles, rotate, sinusoidal
from mesocosm.models.transformer import Transformer

CPU = torch.device("cpu")
B, T, V = 3, 10, 11
POSITIONS = ["learned", "sinusoidal", "rotary", "alibi", "hard-alibi", "relative", "none"]
VARIANTS = [
    *({"positions": positions} for positions in POSITIONS),
    {"window": 3},
    {"positions": "alibi", "window": 2},
    {"positions": "relative", "window": 4},
    {"positions": "hard-alibi", "n_masked_heads": 3},
    {"positions": "relative", "d_mlp": 0, "bias": False, "weight_std": 0.02},
    {"positions": "rotary", "norm": "post", "activation": "swiglu", "tied": True},
]


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


def test_it_equals_hugging_faces_gpt2() -> None:
    transformers = pytest.importorskip("transformers")
    sizes = {"n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": T, "vocab_size": V}
    theirs = transformers.GPT2LMHeadModel(transformers.GPT2Config(**sizes, activation_function="gelu")).eval()
    ours = make(tied=True)
    with torch.no_grad():
        theirs.transformer.wte.weight.copy_(ours.embed.weight)
        theirs.transformer.wpe.weight.copy_(ours.pos_embed.weight)
        pairs = [(ours.ln_final, theirs.transformer.ln_f)]
        for block, h in zip(ours.blocks, theirs.transformer.h):
            pairs += [(block.ln1, h.ln_1), (block.ln2, h.ln_2), (block.attn.qkv, h.attn.c_attn)]
            pairs += [(block.attn.out, h.attn.c_proj), (block.mlp.fc_in, h.mlp.c_fc), (block.mlp.fc_out, h.mlp.c_proj)]
        for our, their in pairs:
            nn.init.normal_(our.bias)
            their.weight.copy_(our.weight.t())  # their linear layers are stored transposed
            their.bias.copy_(our.bias)
    torch.testing.assert_close(ours(tokens()), theirs(tokens()).logits, rtol=1e-5, atol=1e-5)


def pattern_by_hand(model: Transformer, query: Tensor, key: Tensor, sees, extra) -> Tensor:
    """Softmax over the keys j that query i of head h `sees`, of q'k / sqrt(Dh) + `extra(q, h, i - j)`."""
    pattern = torch.zeros(B, model.n_heads, T, T)
    for b, h, i in itertools.product(range(B), range(model.n_heads), range(T)):
        keys = [j for j in range(i + 1) if sees(h, i - j)]
        q = query[b, i, h]
        scores = [q @ key[b, j, h] / math.sqrt(model.d_head) + extra(q, h, i - j) for j in keys]
        pattern[b, h, i, keys] = torch.stack(scores).softmax(0)
    return pattern


@pytest.mark.parametrize(
    ("options", "sees"),
    [
        ({"positions": "relative"}, lambda h, distance: True),
        ({"positions": "relative", "window": 4}, lambda h, distance: distance < 4),
        ({"positions": "hard-alibi"}, lambda h, distance: h >= 2 or distance <= h),
        ({"positions": "hard-alibi", "n_masked_heads": 3}, lambda h, distance: h >= 3 or distance <= h),
        ({"positions": "hard-alibi", "n_masked_heads": 0}, lambda h, distance: True),
        ({"positions": "alibi", "window": 2}, lambda h, distance: distance < 2),
        ({"window": 1}, lambda h, distance: distance == 0),
        ({"positions": "none"}, lambda h, distance: True),
    ],
)
def test_the_pattern_of_each_variant_follows_its_formula(options: dict, sees) -> None:
    model = make(**options)
    _, kept = model(tokens(), model.hook_names)
    for i, block in enumerate(model.blocks):

        def extra(q: Tensor, h: int, distance: int) -> Tensor:
            if model.positions == "relative":
                return q @ block.attn.relative.weight[distance, 4 * h : 4 * h + 4] / math.sqrt(4)  # noqa: B023
            return torch.tensor(-(2.0 ** (-2 * (h + 1))) * distance if model.positions == "alibi" else 0.0)

        query, key, pattern = (kept[f"blocks.{i}.attn.hook_{name}"] for name in ("q", "k", "pattern"))
        torch.testing.assert_close(pattern, pattern_by_hand(model, query, key, sees, extra), rtol=1e-5, atol=1e-6)


def reach(model: Transformer, t: int, head: int | None = None) -> list[int]:
    """The inputs with an effect on the logits at `t`, or on what one head of the first layer makes of it."""
    logits, kept = model(tokens()[:1], ["hook_embed", "blocks.0.attn.hook_z"])
    output = logits[0, t] if head is None else kept["blocks.0.attn.hook_z"][0, t, head]
    effect = sum(torch.autograd.grad(y, kept["hook_embed"], retain_graph=True)[0][0].abs().sum(-1) for y in output)
    return effect.nonzero()[:, 0].tolist()


def test_windows_bound_what_a_position_sees() -> None:
    for window, n_layers in ((1, 2), (3, 1), (3, 2), (T + 5, 1)):
        model = make(window=window, n_layers=n_layers)
        seen = n_layers * (window - 1) + 1
        assert reach(model, 8) == list(range(max(0, 8 - seen + 1), 9))
        assert reach(model, 1) == list(range(max(0, 1 - seen + 1), 2))


def test_masked_heads_of_hard_alibi_see_one_position_more_each() -> None:
    model = make(positions="hard-alibi", n_masked_heads=3)
    assert [reach(model, 8, head) for head in range(4)] == [[8], [7, 8], [6, 7, 8], list(range(9))]
    assert reach(make(positions="hard-alibi", n_masked_heads=4, n_layers=1), 8) == [5, 6, 7, 8]


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_without_mlps_each_block_is_its_attention(norm: str) -> None:
    model = make(d_mlp=0, norm=norm)
    assert not [name for name, _ in model.named_parameters() if "mlp" in name or "ln2" in name]
    logits, kept = model(tokens(), model.hook_names)
    assert sorted(kept) == sorted(model.hook_names)
    assert not [name for name in kept if "mlp" in name or "resid_mid" in name]
    block = model.blocks[1]
    before, added = kept["blocks.1.hook_resid_pre"], kept["blocks.1.hook_attn_out"]
    after = before + added if norm == "pre" else block.ln1(before + added)
    torch.testing.assert_close(kept["blocks.1.hook_resid_post"], after)
    torch.testing.assert_close(logits, model.unembed(model.ln_final(after) if norm == "pre" else after))
    z = kept["blocks.1.attn.hook_z"].flatten(-2)
    torch.testing.assert_close(added, z @ block.attn.out.weight.T + block.attn.out.bias)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_without_biases_it_is_the_model_whose_biases_are_zero(norm: str) -> None:
    without, zeroed = make(bias=False, norm=norm), make(norm=norm)
    assert not [name for name, _ in without.named_parameters() if "bias" in name]
    for name, weight in zeroed.state_dict().items():
        weight.zero_() if "bias" in name else weight.copy_(without.state_dict()[name])
    torch.testing.assert_close(without(tokens()), zeroed(tokens()))


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_weights_start_as_in_gpt2(activation: str) -> None:
    options = {"d_model": 128, "n_layers": 8, "d_vocab": 200, "max_length": 200, "positions": "relative"}
    model = make(**options, weight_std=0.02, activation=activation)
    for name, parameter in model.named_parameters():
        if name.endswith("bias") or ".ln" in name or name.startswith("ln"):
            assert (parameter == ("weight" in name)).all()
        else:
            std = 0.005 if name.endswith(("attn.out.weight", "fc_out.weight")) else 0.02
            assert parameter.mean().item() == pytest.approx(0, abs=std / 20), name
            assert parameter.std().item() == pytest.approx(std, rel=0.05), name
    assert make(weight_std=0.02, embedding_std=0.5).embed.weight.std().item() == pytest.approx(0.5, rel=0.2)


@pytest.mark.parametrize("options", VARIANTS, ids=str)
def test_extending_in_any_chunks_is_one_forward_pass(options: dict) -> None:
    length = 40  # long enough for fused attention
    model = make(**options, max_length=length)
    text = torch.randint(V, (B, length), generator=torch.Generator().manual_seed(1))
    whole = model(text)
    for sizes in ([length], [1] * length, [7, 1, 32], [33, 7], [0, 3, 0, 37]):
        cache, logits = None, []
        for chunk in text.split(sizes, 1):
            before = cache
            more, cache = model.forward_with_cache(chunk, cache)
            logits.append(more)
        assert before is None or before[0][0].shape[-2] == length - sizes[-1]  # caches are not changed in place
        torch.testing.assert_close(torch.cat(logits, 1), whole, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [*VARIANTS, {"causal": False}], ids=str)
def test_the_last_positions_are_answered_as_among_all(options: dict) -> None:
    model = make(**options)
    for last in (1, 4, T):
        answers = model(tokens(), last=last)
        assert answers.shape == (B, last, V)
        torch.testing.assert_close(answers, model(tokens())[:, -last:], rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match="last=0 is not legal: it must be at least 1"):
        model(tokens(), last=0)


@pytest.mark.parametrize("positions", POSITIONS)
def test_extending_maps_over_replicas(positions: str) -> None:
    models = [make(seed, positions=positions, window=5) for seed in range(3)]
    parameters, buffers = stack_module_state(models)
    text = tokens()

    def forward(parameters: dict[str, Tensor], buffers: dict[str, Tensor]) -> Tensor:
        weights = {f"model.{name}": weight for name, weight in (parameters | buffers).items()}
        return functional_call(Extending(models[0]), weights, (text,))

    mapped = vmap(forward)(parameters, buffers)
    torch.testing.assert_close(mapped, torch.stack([model(text) for model in models]), rtol=1e-5, atol=1e-5)


class Extending(nn.Module):
    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, tokens: Tensor) -> Tensor:
        first, cache = self.model.forward_with_cache(tokens[:, :4])
        return torch.cat([first, self.model.forward_with_cache(tokens[:, 4:], cache)[0]], 1)


def test_a_bidirectional_model_cannot_be_extended() -> None:
    with pytest.raises(ValueError, match="only a causal model can go on after a cache"):
        make(causal=False).forward_with_cache(tokens())


@pytest.mark.parametrize("positions", POSITIONS)
def test_a_causal_model_does_not_see_the_future(positions: str) -> None:
    before, after = tokens(), tokens()
    after[:, 6:] = (after[:, 6:] + 1) % V
    causal = make(positions=positions)
    torch.testing.assert_close(causal(before)[:, :6], causal(after)[:, :6], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(causal(before)[:, 6:], causal(after)[:, 6:], atol=1e-3)
    if positions not in ("hard-alibi", "relative"):
        both_ways = make(positions=positions, causal=False)
        assert not torch.allclose(both_ways(before)[:, :6], both_ways(after)[:, :6], atol=1e-3)


def test_without_positions_a_bidirectional_model_is_equivariant_to_order() -> None:
    order = torch.randperm(T, generator=torch.Generator().manual_seed(0))
    model = make(positions="none", causal=False)
    torch.testing.assert_close(model(tokens()[:, order]), model(tokens())[:, order], rtol=1e-5, atol=1e-5)
    model = make(positions="rotary", causal=False)
    assert not torch.allclose(model(tokens()[:, order]), model(tokens())[:, order], atol=1e-3)


def test_rotary_scores_depend_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    angles = rotary_angles(torch.arange(50), 8)
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
    table = sinusoidal(torch.arange(20), 6)
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
    bias = alibi_bias(torch.arange(5)[:, None] - torch.arange(5), 8)
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
    for positions in ("learned", "relative"):
        with pytest.raises(ValueError, match=f"{T + 1} tokens are more than max_length={T}"):
            make(positions=positions)(longer)
        _, cache = make(positions=positions).forward_with_cache(longer[:, 1:])
        with pytest.raises(ValueError, match=f"{T + 1} tokens are more than max_length={T}"):
            make(positions=positions).forward_with_cache(longer[:, :1], cache)
    for positions in ("sinusoidal", "rotary", "alibi", "hard-alibi", "none"):
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

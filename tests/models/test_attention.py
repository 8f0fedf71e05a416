"""`attention` against PyTorch's own, replica by replica."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from mesocosm.models.attention import attention, attention_pattern
from mesocosm.models.positions import relative_scores, window_bias

R, B, H, T, D_HEAD = 3, 2, 2, 33, 4


def tensors(*shape: int, count: int = 4, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator, dtype=dtype) for _ in range(count)]


def bias_of(kind: str) -> Tensor | None:
    return None if kind == "none" else tensors(*{"shared": (T, T), "per head": (H, T, T)}[kind])[0]


def reference(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, causal: bool) -> Tensor:
    mask = torch.zeros(T, T) if bias is None else bias
    if causal:
        mask = mask.masked_fill(torch.ones(T, T, dtype=torch.bool).triu(1), -torch.inf)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask.expand(1, H, T, T))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "shared", "per head"])
def test_mapped_attention_and_gradients_equal_pytorchs_per_replica(kind: str, causal: bool) -> None:
    bias = bias_of(kind)
    *qkv, weight = tensors(R, B, H, T, D_HEAD)
    qkv = [x.requires_grad_() for x in qkv]
    expected = torch.stack([reference(*each, bias, causal) for each in zip(*qkv)])
    gradients = torch.autograd.grad((expected * weight).sum(), qkv)

    mapped = vmap(lambda q, k, v: attention(q, k, v, bias, causal), randomness="error")(*qkv)
    torch.testing.assert_close(mapped, expected, rtol=1e-6, atol=1e-6)
    outer = torch.autograd.grad((mapped * weight).sum(), qkv)
    torch.testing.assert_close(outer, gradients, rtol=1e-6, atol=1e-6)

    def loss(q: Tensor, k: Tensor, v: Tensor, w: Tensor) -> Tensor:
        return (attention(q, k, v, bias, causal) * w).sum()

    inner = vmap(grad(loss, argnums=(0, 1, 2)))(*qkv, weight)
    torch.testing.assert_close(inner, gradients, rtol=1e-6, atol=1e-6)

    pattern = attention_pattern(qkv[0], qkv[1], bias, causal)
    torch.testing.assert_close(pattern @ qkv[2], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(pattern.sum(-1), torch.ones(R, B, H, T))


def test_a_bias_of_each_replica_and_a_shared_key_are_mapped() -> None:
    query, _, value, _ = tensors(R, B, H, T, D_HEAD)
    key = tensors(B, H, T, D_HEAD)[1]
    bias = tensors(R, H, T, T)[0]
    mapped = vmap(attention, in_dims=(0, None, 0, 0))(query, key, value, bias)
    expected = torch.stack([reference(q, key, v, b, False) for q, v, b in zip(query, value, bias)])
    torch.testing.assert_close(mapped, expected, rtol=1e-6, atol=1e-6)


def test_maps_nest_and_the_batch_axis_is_optional() -> None:
    query, key, value, _ = tensors(R, B, H, T, D_HEAD)
    expected = attention(query, key, value, causal=True)
    nested = vmap(vmap(lambda q, k, v: attention(q, k, v, causal=True)))(query, key, value)
    torch.testing.assert_close(nested, expected, rtol=1e-6, atol=1e-6)


def test_mapping_does_not_fall_back_to_a_loop() -> None:
    """PyTorch warns when it loops over replicas, and warnings are errors here; its own attention does loop."""
    query, key, value, _ = tensors(R, B, H, T, D_HEAD)
    vmap(attention)(query, key, value)
    with pytest.warns(UserWarning, match="batching rule"):
        vmap(F.scaled_dot_product_attention)(query, key, value)


def test_short_sequences_take_the_plain_path_with_equal_results() -> None:
    query, key, value, _ = tensors(B, H, T, D_HEAD)
    whole = attention(query, key, value, causal=True)
    short = attention(query[:, :, :9], key[:, :, :9], value[:, :, :9], causal=True)
    torch.testing.assert_close(short, whole[:, :, :9], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["none", "per head"])
def test_the_last_queries_alone_give_the_last_rows(kind: str) -> None:
    query, key, value, _ = tensors(B, H, T, D_HEAD)
    bias = bias_of(kind)
    whole = attention(query, key, value, bias, causal=True)
    for n in (1, 7, 32):
        last = attention(query[:, :, -n:], key, value, bias if bias is None else bias[:, -n:], causal=True)
        torch.testing.assert_close(last, whole[:, :, -n:], rtol=1e-5, atol=1e-5)


def test_far_keys_outside_a_window_leave_no_nan_in_the_fused_kernel() -> None:
    """The kernel goes through the keys in blocks; here whole blocks are hidden from a query."""
    length = 1100
    query, key, value, weight = tensors(1, H, length, D_HEAD)
    query.requires_grad_()
    position = torch.arange(length)
    bias = window_bias(position[:, None] - position, 5)
    fused, plain = attention(query, key, value, bias, True), attention_pattern(query, key, bias, True) @ value
    torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)
    slopes = [torch.autograd.grad((x * weight).sum(), query)[0] for x in (fused, plain)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("n_queries", "n_keys"), [(6, 6), (1, 6), (4, 9)])
def test_relative_scores_are_products_with_the_vector_of_the_distance(n_queries: int, n_keys: int) -> None:
    query = tensors(B, H, n_queries, D_HEAD)[0]
    vectors = tensors(H, n_keys, D_HEAD)[1]
    scores = relative_scores(query, vectors)
    assert scores.shape == (B, H, n_queries, n_keys)
    for i in range(n_queries):
        for j in range(n_keys - n_queries + i + 1):
            distance = n_keys - n_queries + i - j
            expected = (query[:, :, i] * vectors[:, distance]).sum(-1) / D_HEAD**0.5
            torch.testing.assert_close(scores[:, :, i, j], expected)


def test_second_derivatives_need_the_plain_path_and_say_so() -> None:
    query, key, value, _ = tensors(1, H, T, D_HEAD)

    def slope(query: Tensor) -> Tensor:
        return grad(lambda q: attention(q, key, value).square().sum())(query).sum()

    with pytest.raises(NotImplementedError, match=r"sdpa_kernel\(SDPBackend.MATH\)"):
        grad(slope)(query)
    with sdpa_kernel(SDPBackend.MATH):
        assert grad(slope)(query).isfinite().all()
    few = [x[:, :, :3].double().requires_grad_() for x in (query, key, value)]
    assert torch.autograd.gradgradcheck(attention, few)

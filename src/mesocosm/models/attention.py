"""Scaled dot product attention that stays one fused kernel when `vmap` adds a replica axis.

`vmap` has no rule for PyTorch's CPU kernel and runs it once per replica. Here the replica axis is folded into the
batch, in the forward and in the backward pass.
"""

import math
from typing import Any

import torch
from torch import Tensor

__all__: list[str] = []

_flash = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


def attention(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """softmax(query key' / sqrt(d_head) + bias) value, `[.., H, T, Dh]`.

    A fused kernel serves float32 on the CPU from 32 positions on, where it pays, outside `torch.compile`. It has first
    derivatives only: for higher ones, or forward mode, switch it off as in PyTorch itself, by
    `with torch.nn.attention.sdpa_kernel(SDPBackend.MATH): ...`.

    Args:
        query: `[.., H, T, Dh]`, of the last T of K positions.
        key, value: `[.., H, K, Dh]`.
        bias: `[T, K]` or `[.., H, T, K]`, added to the scores; a constant, no gradient flows to it.
        causal: whether each position sees itself and earlier ones only.

    Source: Vaswani et al. (2017), Attention is all you need, equation 1
    """
    if torch.compiler.is_compiling() or not _fused_pays(query, key):
        return attention_pattern(query, key, bias, causal) @ value
    if bias is not None:
        bias = bias.expand(*query.shape[:-2], *bias.shape[-2:]).reshape(-1, query.shape[-3], *bias.shape[-2:])
    flat = (x.reshape(-1, *x.shape[-3:]) for x in (query, key, value))  # [.., H, T, Dh] -> [B, H, T, Dh]
    return _Attention.apply(*flat, bias, causal)[0].reshape(query.shape)


def _fused_pays(query: Tensor, key: Tensor) -> bool:
    served = query.device.type == "cpu" and query.dtype == torch.float32 and torch.backends.cuda.flash_sdp_enabled()
    return served and query.shape[-2] == key.shape[-2] >= 32


def attention_pattern(query: Tensor, key: Tensor, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """The weights `[.., H, T, K]` that `attention` gives each key, by plain matrix products; each row adds to 1."""
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    if bias is not None:
        scores = scores + bias
    n_queries, n_keys = scores.shape[-2:]
    if causal and n_queries > 1:
        future = torch.ones(n_queries, n_keys, dtype=torch.bool, device=scores.device).triu(1 + n_keys - n_queries)
        scores = scores.masked_fill(future, -math.inf)
    return scores.softmax(-1)


class _Folded(torch.autograd.Function):
    """A function of tensors `[B, ...]` that `vmap` maps by calling it once on `[R * B, ...]`."""

    @classmethod
    def vmap(cls, info: Any, in_dims: tuple[int | None, ...], *args: Any) -> tuple[Any, Any]:
        def fold(x: Any, dim: int | None) -> Any:
            if not isinstance(x, Tensor):
                return x
            x = x.expand(info.batch_size, *x.shape) if dim is None else x.movedim(dim, 0)
            return x.flatten(0, 1)  # [R, B, ...] -> [R * B, ...]

        outputs = cls.apply(*map(fold, args, in_dims))
        unfolded = tuple(x.unflatten(0, (info.batch_size, -1)) for x in outputs)  # [R * B, ...] -> [R, B, ...]
        return unfolded, (0,) * len(outputs)


class _Attention(_Folded):
    @staticmethod
    def forward(query, key, value, bias, causal):
        return _flash(query, key, value, is_causal=causal, attn_mask=bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        *tensors, ctx.causal = inputs
        ctx.save_for_backward(*tensors, *output)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx, grad, _):
        return *_AttentionBackward.apply(grad, *ctx.saved_tensors, ctx.causal), None, None


class _AttentionBackward(_Folded):
    @staticmethod
    def forward(grad, query, key, value, bias, output, logsumexp, causal):
        return _flash_backward(grad, query, key, value, output, logsumexp, 0.0, causal, attn_mask=bias)

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *grads):
        raise NotImplementedError(
            "fused attention has first derivatives only: differentiate twice within sdpa_kernel(SDPBackend.MATH)"
        )

"""One layer of a transformer, and the way its activations are captured: by returning them."""

from collections.abc import Collection
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models.attention import attention, attention_pattern
from mesocosm.models.dropout import Dropout
from mesocosm.models.positions import relative_scores, rotate

__all__: list[str] = []

Norm = Literal["pre", "post"]
Activation = Literal["gelu", "swiglu", "relu"]
KeysAndValues = tuple[Tensor, Tensor]
"""Of the K positions so far, `[B, H, K, Dh]` each."""


class Keeper:
    """Keeps the activations whose names were asked for."""

    def __init__(self, names: Collection[str], kept: dict[str, Tensor] | None = None, prefix: str = "") -> None:
        self.names, self.prefix = names, prefix
        self.kept: dict[str, Tensor] = {} if kept is None else kept

    def inside(self, prefix: str) -> "Keeper":
        return Keeper(self.names, self.kept, self.prefix + prefix)

    def wants(self, name: str) -> bool:
        return self.prefix + name in self.names

    def __call__(self, name: str, x: Tensor) -> Tensor:
        if self.wants(name):
            self.kept[self.prefix + name] = x
        return x


class Block(nn.Module):
    """Attention, then an MLP unless `d_mlp` is 0, each added to the residual stream."""

    def __init__(
        self,
        *,
        d_model: int,
        n_heads: int,
        d_mlp: int,
        norm: Norm,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        causal: bool,
        bias: bool,
        n_distances: int,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.ln1 = nn.LayerNorm(d_model, bias=bias)
        self.ln2 = nn.LayerNorm(d_model, bias=bias) if d_mlp else nn.Identity()
        self.attn = SelfAttention(d_model, n_heads, attention_dropout, causal, bias, n_distances)
        self.mlp = TransformerMLP(d_model, d_mlp, activation, bias) if d_mlp else None
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    @staticmethod
    def hook_names(mlp: bool) -> list[str]:
        attention = [f"attn.hook_{name}" for name in ("q", "k", "v", "pattern", "z")]
        after = ["hook_resid_mid", "mlp.hook_post", "hook_mlp_out"] if mlp else []
        return ["hook_resid_pre", *attention, "hook_attn_out", *after, "hook_resid_post"]

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None,
        bias: Tensor | None,
        past: KeysAndValues | None,
        keep: Keeper,
        last: int | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """The residual stream after the layer, of the `last` positions if not of all, and its keys and values."""
        pre = self.norm == "pre"
        x = keep("hook_resid_pre", x)
        added, seen = self.attn(self.ln1(x) if pre else x, angles, bias, past, keep.inside("attn."), last)
        x = x if last is None else x[..., -last:, :]
        x = x + keep("hook_attn_out", self.dropout1(added))
        x = x if pre else self.ln1(x)
        if self.mlp is not None:
            x = keep("hook_resid_mid", x)
            added = self.mlp(self.ln2(x) if pre else x, keep.inside("mlp."))
            x = x + keep("hook_mlp_out", self.dropout2(added))
            x = x if pre else self.ln2(x)
        return keep("hook_resid_post", x), seen


class SelfAttention(nn.Module):
    """Attention of each position to the earlier ones, or to all, with learned vectors of `n_distances` if not 0."""

    def __init__(self, d_model: int, n_heads: int, dropout: float, causal: bool, bias: bool, n_distances: int) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=bias)
        self.out = nn.Linear(d_model, d_model, bias=bias)
        self.relative = nn.Embedding(n_distances, d_model) if n_distances else None
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        angles: Tensor | None,
        bias: Tensor | None,
        past: KeysAndValues | None,
        keep: Keeper,
        last: int | None = None,
    ) -> tuple[Tensor, KeysAndValues]:
        """What attention adds, to the `last` positions if not to all, and the keys and values of `past` and `x`."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)  # [B, T, 3 D] -> [B, T, H, Dh]
        query, key, value = keep("hook_q", query), keep("hook_k", key), keep("hook_v", value)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        query, key, value = (t.transpose(-3, -2) for t in (query, key, value))  # [B, T, H, Dh] -> [B, H, T, Dh]
        if last is not None:
            query, bias = query[..., -last:, :], None if bias is None else bias[..., -last:, :]
        if past is not None:
            key, value = torch.cat([past[0], key], -2), torch.cat([past[1], value], -2)
        if self.relative is not None:
            vectors = self.relative.weight[: key.shape[-2]].unflatten(-1, (self.n_heads, -1))  # [K, H, Dh]
            scores = relative_scores(query, vectors.transpose(0, 1))
            bias = scores if bias is None else scores + bias
        if self.relative is not None or keep.wants("hook_pattern") or (self.training and self.dropout.p > 0):
            pattern = keep("hook_pattern", attention_pattern(query, key, bias, self.causal))
            z = self.dropout(pattern) @ value
        else:
            z = attention(query, key, value, bias, self.causal)
        z = keep("hook_z", z.transpose(-3, -2))  # [B, H, T, Dh] -> [B, T, H, Dh]
        return self.out(z.flatten(-2)), (key, value)  # [B, T, H, Dh] -> [B, T, D]


class TransformerMLP(nn.Module):
    def __init__(self, d_model: int, d_mlp: int, activation: Activation, bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.fc_in = nn.Linear(d_model, 2 * d_mlp if activation == "swiglu" else d_mlp, bias=bias)
        self.fc_out = nn.Linear(d_mlp, d_model, bias=bias)

    def forward(self, x: Tensor, keep: Keeper) -> Tensor:
        hidden = self.fc_in(x)
        if self.activation == "swiglu":
            gate, hidden = hidden.chunk(2, -1)
            hidden = F.silu(gate) * hidden
        else:
            hidden = F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden)
        return self.fc_out(keep("hook_post", hidden))

"""One transformer for many studies; activations are named as in TransformerLens and captured by returning them."""

from collections.abc import Collection
from functools import partial
from typing import Any, Literal, Self

import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, check_probabilities, token_sizes
from mesocosm.models.attention import attention, attention_pattern
from mesocosm.models.dropout import Dropout
from mesocosm.models.positions import alibi_bias, rotary_angles, rotate, sinusoidal
from mesocosm.tasks.base import Task

__all__ = ["Transformer"]

Norm = Literal["pre", "post"]
Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "none"]
Activation = Literal["gelu", "swiglu", "relu"]


class Transformer(nn.Module):
    """A transformer over tokens: GPT-2 as it comes, an encoder with `causal=False`, and the usual variants.

    Weights start as PyTorch's layers do. Dropout has probability `dropout` on what each attention and MLP layer adds,
    `attention_dropout` on the attention pattern and `embedding_dropout` on the sum of embeddings.

    Args:
        max_length: how many positions can be learned; the other `positions` run at any length.
        d_mlp: width of the MLP layers, 4 * d_model when None; swiglu has a gate of the same width besides.
        norm: LayerNorm before each layer and at the end ("pre") or after each layer's residual sum ("post").
        tied: the output weights are the token embedding's.
        n_outputs: outputs per position, d_vocab when None.
        embedding_std: normal standard deviation of token and position embeddings (PyTorch's is 1).

    Raises:
        ValueError: for an illegal argument; in `forward`, for an unknown activation or more than `max_length` learned
            positions.

    Source: Vaswani et al. (2017), Attention is all you need; Radford et al. (2019), GPT-2; Shazeer (2020), GLU variants
    """

    def __init__(
        self,
        *,
        d_vocab: int,
        max_length: int,
        d_model: int = 64,
        n_heads: int = 4,
        n_layers: int = 2,
        d_mlp: int | None = None,
        norm: Norm = "pre",
        positions: Positions = "learned",
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        tied: bool = False,
        causal: bool = True,
        n_outputs: int | None = None,
        embedding_std: float = 1.0,
    ) -> None:
        super().__init__()
        d_mlp = 4 * d_model if d_mlp is None else d_mlp
        n_outputs = d_vocab if n_outputs is None else n_outputs
        check_at_least(1, d_vocab=d_vocab, max_length=max_length, d_model=d_model, n_heads=n_heads, n_layers=n_layers)
        check_at_least(1, d_mlp=d_mlp, n_outputs=n_outputs)
        check_probabilities(dropout=dropout, attention_dropout=attention_dropout, embedding_dropout=embedding_dropout)
        check_one_of(Norm, norm=norm)
        check_one_of(Positions, positions=positions)
        check_one_of(Activation, activation=activation)
        if d_model % n_heads:
            raise ValueError(f"n_heads={n_heads} is not legal: it must divide d_model={d_model}")
        if positions == "sinusoidal" and d_model % 2:
            raise ValueError(f"d_model={d_model} is not legal: sinusoidal positions need an even d_model")
        if positions == "rotary" and d_model // n_heads % 2:
            raise ValueError(f"n_heads={n_heads} is not legal: rotary positions need an even d_model / n_heads")
        if tied and n_outputs != d_vocab:
            raise ValueError(f"n_outputs={n_outputs} is not legal: a tied head has d_vocab={d_vocab} outputs")
        if not embedding_std > 0:
            raise ValueError(f"embedding_std={embedding_std!r} is not legal: it must be a number above 0")

        self.positions, self.n_heads, self.d_head = positions, n_heads, d_model // n_heads
        self.embed = nn.Embedding(d_vocab, d_model)
        self.pos_embed = nn.Embedding(max_length, d_model) if positions == "learned" else None
        self.embedding_dropout = Dropout(embedding_dropout)
        block = partial(Block, d_model, n_heads, d_mlp, norm, activation, dropout, attention_dropout, causal)
        self.blocks = nn.ModuleList(block() for _ in range(n_layers))
        self.ln_final = nn.LayerNorm(d_model) if norm == "pre" else None
        self.unembed = None if tied else nn.Linear(d_model, n_outputs, bias=False)
        for embedding in (self.embed,) if self.pos_embed is None else (self.embed, self.pos_embed):
            nn.init.normal_(embedding.weight, std=embedding_std)

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Vocabulary, length and outputs from a task of tokens `[T]` and outputs `[T, V]`, the rest from `sizes`."""
        max_length, d_vocab, n_outputs = token_sizes(task, cls)
        return cls(**{"d_vocab": d_vocab, "max_length": max_length, "n_outputs": n_outputs} | sizes)

    @property
    def hook_names(self) -> list[str]:
        """The activations that `forward` can return."""
        names = ["hook_embed"]
        if self.positions in ("learned", "sinusoidal"):
            names.append("hook_pos_embed")
        names += [f"blocks.{i}.{name}" for i in range(len(self.blocks)) for name in Block.hook_names]
        return [*names, "ln_final.hook_normalized"] if self.ln_final else names

    def forward(self, tokens: Tensor, capture: Collection[str] = ()) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits `[B, T, V]` of `tokens` `[B, T]`, or `(logits, {name: activation})` when `capture` names some.

        Shapes: `hook_q`, `hook_k`, `hook_v` and `hook_z` `[B, T, H, Dh]`, `hook_pattern` `[B, H, T, T]`,
        `hook_pos_embed` `[T, D]`, `mlp.hook_post` `[B, T, d_mlp]`, all others `[B, T, D]`. A captured pattern
        costs the fused attention kernel.
        """
        unknown = set(capture) - set(self.hook_names) if capture else ()
        if unknown:
            raise ValueError(f"capture={sorted(unknown)} is not legal: it must be among {', '.join(self.hook_names)}")
        keep = Keeper(capture)
        n_positions, device = tokens.shape[-1], tokens.device
        x = keep("hook_embed", self.embed(tokens))
        if self.pos_embed is not None:
            if n_positions > self.pos_embed.num_embeddings:
                raise ValueError(f"{n_positions} tokens are more than max_length={self.pos_embed.num_embeddings}")
            x = x + keep("hook_pos_embed", self.pos_embed.weight[:n_positions])
        elif self.positions == "sinusoidal":
            x = x + keep("hook_pos_embed", sinusoidal(n_positions, x.shape[-1], device))
        x = self.embedding_dropout(x)
        angles = rotary_angles(n_positions, self.d_head, device) if self.positions == "rotary" else None
        bias = alibi_bias(n_positions, self.n_heads, device) if self.positions == "alibi" else None
        for i, block in enumerate(self.blocks):
            x = block(x, angles, bias, keep.inside(f"blocks.{i}."))
        if self.ln_final is not None:
            x = keep("ln_final.hook_normalized", self.ln_final(x))
        logits = x @ self.embed.weight.T if self.unembed is None else self.unembed(x)
        return (logits, keep.kept) if capture else logits


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
    """Attention, then an MLP, each added to the residual stream."""

    hook_names = (
        "hook_resid_pre",
        *(f"attn.hook_{name}" for name in ("q", "k", "v", "pattern", "z")),
        "hook_attn_out",
        "hook_resid_mid",
        "mlp.hook_post",
        "hook_mlp_out",
        "hook_resid_post",
    )

    def __init__(
        self,
        d_model: int,
        n_heads: int,
        d_mlp: int,
        norm: Norm,
        activation: Activation,
        dropout: float,
        attention_dropout: float,
        causal: bool,
    ) -> None:
        super().__init__()
        self.norm = norm
        self.ln1, self.ln2 = nn.LayerNorm(d_model), nn.LayerNorm(d_model)
        self.attn = SelfAttention(d_model, n_heads, attention_dropout, causal)
        self.mlp = TransformerMLP(d_model, d_mlp, activation)
        self.dropout1, self.dropout2 = Dropout(dropout), Dropout(dropout)

    def forward(self, x: Tensor, angles: Tensor | None, bias: Tensor | None, keep: Keeper) -> Tensor:
        pre = self.norm == "pre"
        x = keep("hook_resid_pre", x)
        added = self.attn(self.ln1(x) if pre else x, angles, bias, keep.inside("attn."))
        x = x + keep("hook_attn_out", self.dropout1(added))
        x = keep("hook_resid_mid", x if pre else self.ln1(x))
        added = self.mlp(self.ln2(x) if pre else x, keep.inside("mlp."))
        x = x + keep("hook_mlp_out", self.dropout2(added))
        return keep("hook_resid_post", x if pre else self.ln2(x))


class SelfAttention(nn.Module):
    def __init__(self, d_model: int, n_heads: int, dropout: float, causal: bool) -> None:
        super().__init__()
        self.n_heads, self.causal = n_heads, causal
        self.qkv = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, angles: Tensor | None, bias: Tensor | None, keep: Keeper) -> Tensor:
        query, key, value = self.qkv(x).unflatten(-1, (3, self.n_heads, -1)).unbind(-3)  # [B, T, 3 D] -> [B, T, H, Dh]
        query, key, value = keep("hook_q", query), keep("hook_k", key), keep("hook_v", value)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        query, key, value = (t.transpose(-3, -2) for t in (query, key, value))  # [B, T, H, Dh] -> [B, H, T, Dh]
        if keep.wants("hook_pattern") or (self.training and self.dropout.p > 0):
            pattern = keep("hook_pattern", attention_pattern(query, key, bias, self.causal))
            z = self.dropout(pattern) @ value
        else:
            z = attention(query, key, value, bias, self.causal)
        z = keep("hook_z", z.transpose(-3, -2))  # [B, H, T, Dh] -> [B, T, H, Dh]
        return self.out(z.flatten(-2))  # [B, T, H, Dh] -> [B, T, D]


class TransformerMLP(nn.Module):
    def __init__(self, d_model: int, d_mlp: int, activation: Activation) -> None:
        super().__init__()
        self.activation = activation
        self.fc_in = nn.Linear(d_model, 2 * d_mlp if activation == "swiglu" else d_mlp)
        self.fc_out = nn.Linear(d_mlp, d_model)

    def forward(self, x: Tensor, keep: Keeper) -> Tensor:
        hidden = self.fc_in(x)
        if self.activation == "swiglu":
            gate, hidden = hidden.chunk(2, -1)
            hidden = F.silu(gate) * hidden
        else:
            hidden = F.gelu(hidden) if self.activation == "gelu" else F.relu(hidden)
        return self.fc_out(keep("hook_post", hidden))

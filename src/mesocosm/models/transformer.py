"""One transformer for many studies; activations are named as in TransformerLens and captured by returning them."""

import math
from collections.abc import Collection
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, check_probabilities, token_sizes
from mesocosm.models.block import Activation, Block, Keeper, KeysAndValues, Norm
from mesocosm.models.dropout import Dropout
from mesocosm.models.positions import alibi_bias, hard_alibi_bias, rotary_angles, sinusoidal, window_bias
from mesocosm.tasks.base import Task

__all__ = ["Transformer"]

Positions = Literal["learned", "sinusoidal", "rotary", "alibi", "hard-alibi", "relative", "none"]
Cache = tuple[KeysAndValues, ...]


class Transformer(nn.Module):
    """A transformer over tokens: GPT-2 as it comes, an encoder with `causal=False`, and the usual variants.

    Dropout has probability `dropout` on what each attention and MLP layer adds, `attention_dropout` on the attention
    pattern and `embedding_dropout` on the sum of embeddings.

    Args:
        max_length: how many positions, or distances, can be learned; the other `positions` run at any length.
        d_mlp: width of the MLP layers, 4 * d_model when None, no MLPs when 0; swiglu has a gate of the same width
            besides.
        norm: LayerNorm before each layer and at the end ("pre") or after each layer's residual sum ("post").
        positions: "relative" adds to each key a learned vector of its distance, one set a layer; "hard-alibi" lets
            head i of the first `n_masked_heads` see only the last i + 1 positions, i = 0, 1, .., and the rest all.
        n_masked_heads: of "hard-alibi", n_heads // 2 when None.
        window: each position sees itself and the window - 1 before it; all earlier ones when None.
        bias: whether linear layers and LayerNorms have biases.
        tied: the output weights are the token embedding's.
        n_outputs: outputs per position, d_vocab when None.
        weight_std: as in GPT-2, biases start at 0 and weights normal with this standard deviation, that of layers that
            write to the residual stream divided by sqrt(2 n_layers); as PyTorch's layers when None.
        embedding_std: normal standard deviation of token and position embeddings, weight_std or else 1 when None.

    Raises:
        ValueError: for an illegal argument; in `forward` and `forward_with_cache`, for more than `max_length` learned
            positions and for an unknown activation.

    Source: Vaswani et al. (2017), Attention is all you need; Radford et al. (2019), GPT-2; Shazeer (2020), GLU
        variants; Shaw et al. (2018), Self-attention with relative position representations, arXiv 1803.02155; Edelman
        et al. (2024), The evolution of statistical induction heads, arXiv 2402.11004; Jelassi et al. (2024), Repeat
        after me, arXiv 2402.01032
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
        n_masked_heads: int | None = None,
        window: int | None = None,
        activation: Activation = "gelu",
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        embedding_dropout: float = 0.0,
        bias: bool = True,
        tied: bool = False,
        causal: bool = True,
        n_outputs: int | None = None,
        weight_std: float | None = None,
        embedding_std: float | None = None,
    ) -> None:
        super().__init__()
        d_mlp = 4 * d_model if d_mlp is None else d_mlp
        n_outputs = d_vocab if n_outputs is None else n_outputs
        check_at_least(1, d_vocab=d_vocab, max_length=max_length, d_model=d_model, n_heads=n_heads, n_layers=n_layers)
        check_at_least(1, n_outputs=n_outputs, window=1 if window is None else window)
        check_at_least(0, d_mlp=d_mlp, n_masked_heads=0 if n_masked_heads is None else n_masked_heads)
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
        if n_masked_heads is not None and (positions != "hard-alibi" or n_masked_heads > n_heads):
            raise ValueError(
                f"n_masked_heads={n_masked_heads} is not legal: it is for positions='hard-alibi', at most n_heads"
            )
        if not causal and (positions in ("hard-alibi", "relative") or window is not None):
            raise ValueError("causal=False is not legal with a window or hard-alibi or relative positions")
        for name, std in (("weight_std", weight_std), ("embedding_std", embedding_std)):
            if std is not None and not std > 0:
                raise ValueError(f"{name}={std!r} is not legal: it must be a number above 0")

        self.positions, self.n_heads, self.d_head, self.d_mlp = positions, n_heads, d_model // n_heads, d_mlp
        self.n_masked_heads = n_heads // 2 if n_masked_heads is None else n_masked_heads
        self.max_length, self.window, self.causal = max_length, window, causal
        self.embed = nn.Embedding(d_vocab, d_model)
        self.pos_embed = nn.Embedding(max_length, d_model) if positions == "learned" else None
        self.embedding_dropout = Dropout(embedding_dropout)
        block = partial(
            Block,
            d_model=d_model,
            n_heads=n_heads,
            d_mlp=d_mlp,
            norm=norm,
            activation=activation,
            dropout=dropout,
            attention_dropout=attention_dropout,
            causal=causal,
            bias=bias,
            n_distances=max_length if positions == "relative" else 0,
        )
        self.blocks = nn.ModuleList(block() for _ in range(n_layers))
        self.ln_final = nn.LayerNorm(d_model, bias=bias) if norm == "pre" else None
        self.unembed = None if tied else nn.Linear(d_model, n_outputs, bias=False)
        self._start(weight_std, embedding_std)

    def _start(self, weight_std: float | None, embedding_std: float | None) -> None:
        for name, module in self.named_modules():
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=embedding_std or weight_std or 1.0)
            elif isinstance(module, nn.Linear) and weight_std is not None:
                writes = name.endswith(("attn.out", "mlp.fc_out"))
                nn.init.normal_(
                    module.weight, std=weight_std / math.sqrt(2 * len(self.blocks)) if writes else weight_std
                )
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

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
        block = Block.hook_names(mlp=self.d_mlp > 0)
        names += [f"blocks.{i}.{name}" for i in range(len(self.blocks)) for name in block]
        return [*names, "ln_final.hook_normalized"] if self.ln_final else names

    def forward(
        self, tokens: Tensor, capture: Collection[str] = (), last: int | None = None
    ) -> Tensor | tuple[Tensor, dict[str, Tensor]]:
        """Logits `[B, T, V]` of `tokens` `[B, T]`, or `(logits, {name: activation})` when `capture` names some.

        With `last` logits are those of the last so many positions, and the last layer computes no others.

        Shapes: `hook_q`, `hook_k`, `hook_v` and `hook_z` `[B, T, H, Dh]`, `hook_pattern` `[B, H, T, T]`,
        `hook_pos_embed` `[T, D]`, `mlp.hook_post` `[B, T, d_mlp]`, all others `[B, T, D]`. A captured pattern
        costs the fused attention kernel.
        """
        unknown = set(capture) - set(self.hook_names) if capture else ()
        if unknown:
            raise ValueError(f"capture={sorted(unknown)} is not legal: it must be among {', '.join(self.hook_names)}")
        if last is not None and last < 1:
            raise ValueError(f"last={last} is not legal: it must be at least 1")
        keep = Keeper(capture)
        logits, _ = self._run(tokens, None, keep, last)
        return (logits, keep.kept) if capture else logits

    def forward_with_cache(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits `[B, T, V]` of `tokens` `[B, T]` that follow those in `cache`, none when None, and the longer cache.

        Raises:
            ValueError: when the model is not causal.
        """
        if not self.causal:
            raise ValueError("only a causal model can go on after a cache, but this one has causal=False")
        return self._run(tokens, cache or (), Keeper(()))

    def _run(self, tokens: Tensor, cache: Cache | None, keep: Keeper, last: int | None = None) -> tuple[Tensor, Cache]:
        start = cache[0][0].shape[-2] if cache else 0
        end = start + tokens.shape[-1]
        if self.positions in ("learned", "relative") and end > self.max_length:
            raise ValueError(f"{end} tokens are more than max_length={self.max_length}")
        position = torch.arange(end, device=tokens.device)
        x = keep("hook_embed", self.embed(tokens))
        if self.pos_embed is not None:
            x = x + keep("hook_pos_embed", self.pos_embed.weight[start:end])
        elif self.positions == "sinusoidal":
            x = x + keep("hook_pos_embed", sinusoidal(position[start:], x.shape[-1]))
        x = self.embedding_dropout(x)
        angles = rotary_angles(position[start:], self.d_head) if self.positions == "rotary" else None
        bias = self._bias(position[start:, None] - position)
        longer = []
        for i, block in enumerate(self.blocks):
            wanted = last if i == len(self.blocks) - 1 else None
            x, seen = block(x, angles, bias, cache[i] if cache else None, keep.inside(f"blocks.{i}."), wanted)
            if cache is not None:
                longer.append(seen)
        if self.ln_final is not None:
            x = keep("ln_final.hook_normalized", self.ln_final(x))
        logits = x @ self.embed.weight.T if self.unembed is None else self.unembed(x)
        return logits, tuple(longer)

    def _bias(self, distance: Tensor) -> Tensor | None:
        """What is added to the scores of queries at a `distance` `[T, K]` from keys, `[T, K]` or `[H, T, K]`."""
        bias = None
        if self.positions == "alibi":
            bias = alibi_bias(distance, self.n_heads)
        elif self.positions == "hard-alibi":
            bias = hard_alibi_bias(distance, self.n_heads, self.n_masked_heads)
        if self.window is None:
            return bias
        near = window_bias(distance, self.window)
        return near if bias is None else bias + near

"""Selective state space language models, in plain PyTorch."""

import math
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.models._checks import check_at_least, check_one_of, token_sizes
from mesocosm.models.scans import diagonal_scan, scalar_scan
from mesocosm.tasks.base import Task

__all__ = ["SelectiveSSM"]

Decay = Literal["scalar", "diagonal"]
Cache = list[tuple[Tensor, Tensor]]
"""Of each block the last inputs of its convolution `[B, d_conv - 1, E]` and its state `[B, ...]`."""


class SelectiveSSM(nn.Module):
    """A Mamba language model: token embedding, `n_layers` blocks without MLP or positions, RMSNorm, linear head.

    Its memory of the past is `d_state` numbers for each of E = `expand` * `d_model` channels and block, which decay
    channel by channel and number by number as in Mamba ("diagonal": a loop over time), or all alike in a head of
    `d_head` channels as in Mamba-2 ("scalar": matrix products, twice as fast). Around either is Mamba's block, without
    Mamba-2's additional norm. Weights not named in the papers start as PyTorch's layers do.
    Weight decay, where the optimiser has it, acts on the decays' parameters too; the original exempts them.

    Args:
        d_conv: positions that each block's causal convolution sees.
        d_head: channels that share a decay, for `decay="scalar"` only.
        n_outputs: outputs per position, d_vocab when None.

    Raises:
        ValueError: for an illegal argument.

    Source: Gu & Dao (2023), Mamba, arXiv 2312.00752; Dao & Gu (2024), Transformers are SSMs, arXiv 2405.21060
    """

    def __init__(
        self,
        *,
        d_vocab: int,
        d_model: int = 64,
        n_layers: int = 2,
        d_state: int = 16,
        expand: int = 2,
        d_conv: int = 4,
        decay: Decay = "scalar",
        d_head: int = 16,
        n_outputs: int | None = None,
    ) -> None:
        super().__init__()
        n_outputs = d_vocab if n_outputs is None else n_outputs
        check_at_least(1, d_vocab=d_vocab, d_model=d_model, n_layers=n_layers, d_state=d_state, expand=expand)
        check_at_least(1, d_conv=d_conv, d_head=d_head, n_outputs=n_outputs)
        check_one_of(Decay, decay=decay)
        if decay == "scalar" and expand * d_model % d_head:
            raise ValueError(f"d_head={d_head} is not legal: it must divide expand * d_model = {expand * d_model}")
        self.embed = nn.Embedding(d_vocab, d_model)
        block = ScalarBlock if decay == "scalar" else DiagonalBlock
        self.blocks = nn.ModuleList(block(d_model, expand * d_model, d_state, d_conv, d_head) for _ in range(n_layers))
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.unembed = nn.Linear(d_model, n_outputs, bias=False)

    @classmethod
    def for_task(cls, task: Task, **sizes: Any) -> Self:
        """Vocabulary and outputs from a task of tokens `(T,)` and outputs `(T, V)`, the rest from `sizes`."""
        _, d_vocab, n_outputs = token_sizes(task, cls)
        return cls(**{"d_vocab": d_vocab, "n_outputs": n_outputs} | sizes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` of `tokens` `[B, T]`."""
        return self.forward_with_cache(tokens)[0]

    def forward_with_cache(self, tokens: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        """Logits `[B, T, V]` of `tokens` `[B, T]` that follow those of `cache`, and the cache after them.

        Time and memory do not grow with what came before. `cache` is left as it is.
        """
        x, after = self.embed(tokens), []
        for block, memory in zip(self.blocks, cache or len(self.blocks) * [None]):
            x, memory = block(x, memory)
            after.append(memory)
        return self.unembed(self.norm(x)), after


class Block(nn.Module):
    """Mamba's block, around a recurrence that the subclass gives; E channels, N numbers each."""

    def __init__(self, d_model: int, d_inner: int, d_state: int, d_conv: int, d_dt: int, n_decays: int) -> None:
        super().__init__()
        self.sizes = [d_dt, d_state, d_state]
        self.norm = nn.RMSNorm(d_model, eps=1e-5)
        self.proj_in = nn.Linear(d_model, 2 * d_inner, bias=False)
        self.conv = nn.Conv1d(d_inner, d_inner, d_conv, groups=d_inner)
        self.select = nn.Linear(d_inner, sum(self.sizes), bias=False)
        step = torch.empty(n_decays).uniform_(math.log(0.001), math.log(0.1)).exp()
        self.step_bias = nn.Parameter(step + (-torch.expm1(-step)).log())  # softplus gives `step` back
        self.skip = nn.Parameter(torch.ones(d_inner))
        self.proj_out = nn.Linear(d_inner, d_model, bias=False)

    def forward(self, x: Tensor, memory: tuple[Tensor, Tensor] | None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        window, state = memory or (None, None)
        inner, gate = self.proj_in(self.norm(x)).chunk(2, -1)  # [B, T, 2 E] -> [B, T, E]
        width = self.conv.kernel_size[0] - 1
        inner = F.pad(inner, (0, 0, width, 0)) if window is None else torch.cat([window, inner], 1)
        window = inner[:, inner.shape[1] - width :]
        inner = F.silu(self.conv(inner.mT).mT)  # [B, d_conv - 1 + T, E] -> [B, T, E]
        step, write, read = self.select(inner).split(self.sizes, -1)
        output, state = self.recur(inner, step, write, read, state)
        output = (output + self.skip * inner) * F.silu(gate)
        return x + self.proj_out(output), (window, state)

    def recur(
        self, x: Tensor, step: Tensor, write: Tensor, read: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs `[B, T, E]` of the recurrence for `x` `[B, T, E]`, and its last state."""
        raise NotImplementedError


class DiagonalBlock(Block):
    def __init__(self, d_model: int, d_inner: int, d_state: int, d_conv: int, _: int) -> None:
        rank = math.ceil(d_model / 16)
        super().__init__(d_model, d_inner, d_state, d_conv, rank, d_inner)
        self.step = nn.Linear(rank, d_inner, bias=False)
        self.log_rate = nn.Parameter(torch.arange(1.0, d_state + 1).log().repeat(d_inner, 1))

    def recur(
        self, x: Tensor, step: Tensor, write: Tensor, read: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        step = softplus(self.step(step) + self.step_bias)  # [B, T, E]
        state = x.new_zeros(len(x), *self.log_rate.shape) if state is None else state
        output, states = diagonal_scan(step, self.log_rate.exp(), step * x, write, read, state)
        return output, states[:, -1]


class ScalarBlock(Block):
    def __init__(self, d_model: int, d_inner: int, d_state: int, d_conv: int, d_head: int) -> None:
        n_heads = d_inner // d_head
        super().__init__(d_model, d_inner, d_state, d_conv, n_heads, n_heads)
        self.n_heads = n_heads
        self.log_rate = nn.Parameter(torch.empty(n_heads).uniform_(1, 16).log())

    def recur(
        self, x: Tensor, step: Tensor, write: Tensor, read: Tensor, state: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        step = softplus(step + self.step_bias).mT  # [B, T, H] -> [B, H, T]
        log_decay = step * -self.log_rate.exp()[:, None]
        heads = x.unflatten(-1, (self.n_heads, -1)).transpose(-2, -3)  # [B, T, E] -> [B, H, T, P]
        output, state = scalar_scan(log_decay, heads * step[..., None], write[:, None], read[:, None], state)
        return output.transpose(-2, -3).flatten(-2), state  # [B, H, T, P] -> [B, T, E]


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), whose last bits, unlike those of PyTorch's, do not depend on where in `x` a number stands."""
    return -F.logsigmoid(-x)

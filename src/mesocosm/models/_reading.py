"""How a causal language model of transformers reads rows of tokens: each token once where its cache allows it."""

import inspect
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

LOGITS_AT_ONCE = 2**26
"""256 MiB in float32."""
WORTH_SHARING = 64
"""Tokens that a shared beginning must save to be worth a call of its own."""


class CachedRows:
    """Rows of any lengths, padded on the left, behind the tokens with which all of them begin, which are read once.

    `last` are the logits `[B, V]` after each row.
    """

    def __init__(self, module: Any, rows: list[list[int]]) -> None:
        self.module = module
        self.cache = None
        self.last_only = {"logits_to_keep": 1} if "logits_to_keep" in _arguments(module) else {}
        shared = min(sum(1 for _ in takewhile(_same, zip(*rows))), min(map(len, rows)) - 1)
        shared = shared if shared * (len(rows) - 1) >= WORTH_SHARING else 0
        if shared:
            beginning = torch.tensor([rows[0][:shared]], device=module.device)
            self.cache = module(beginning, use_cache=True, **self.last_only).past_key_values
            self.cache.batch_repeat_interleave(len(rows))
        longest = max(map(len, rows)) - shared
        padding = [longest + shared - len(row) for row in rows]
        tokens = torch.tensor([[0] * n + row[shared:] for n, row in zip(padding, rows)], device=module.device)
        real = torch.arange(longest) >= torch.tensor(padding)[:, None]
        self.mask = torch.cat([torch.ones(len(rows), shared, dtype=torch.bool), real], 1).long().to(module.device)
        self.length = self.mask.sum(1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, shared:]
        self.last = self._read(tokens, positions, **self.last_only)[:, -1]

    def append(self, tokens: Tensor) -> Tensor:
        """Logits `[B, T, V]` after each of the `tokens` `[B, T]` that come next."""
        self.mask = torch.cat([self.mask, torch.ones_like(tokens)], 1)
        positions = self.length[:, None] + torch.arange(tokens.shape[1], device=tokens.device)
        self.length = self.length + tokens.shape[1]
        return self._read(tokens, positions)

    def repeat(self, times: int) -> None:
        """Each row `times` times, side by side."""
        if self.cache is not None:
            self.cache.batch_repeat_interleave(times)
        self.mask, self.length = (t.repeat_interleave(times, 0) for t in (self.mask, self.length))

    def _read(self, tokens: Tensor, positions: Tensor, **keep: int) -> Tensor:
        output = self.module(
            tokens,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            **keep,
        )
        self.cache = output.past_key_values
        return output.logits.float()


class WholeRows:
    """The same for models that keep another state than keys and values: all is read again, padded on the right."""

    def __init__(self, module: Any, rows: list[list[int]]) -> None:
        self.module = module
        self.rows = rows
        self.last = self._read(1)[:, -1]

    def append(self, tokens: Tensor) -> Tensor:
        self.rows = [row + new for row, new in zip(self.rows, tokens.tolist())]
        return self._read(tokens.shape[1])

    def repeat(self, times: int) -> None:
        self.rows = [row for row in self.rows for _ in range(times)]

    def _read(self, count: int) -> Tensor:
        longest = max(map(len, self.rows))
        tokens = torch.tensor([row + [0] * (longest - len(row)) for row in self.rows], device=self.module.device)
        ends = torch.tensor([len(row) for row in self.rows], device=tokens.device)
        wanted = ends[:, None] - count + torch.arange(count, device=tokens.device)
        at_once = pieces_of(self.module, longest)
        pieces = zip(tokens.split(at_once), wanted.split(at_once))
        return torch.cat([logits_at(self.module, some, where) for some, where in pieces])


def logits_at(module: Any, tokens: Tensor, places: Tensor) -> Tensor:
    """Logits `[B, P, V]` after the tokens at `places` `[B, P]` of rows `[B, T]`, computed nowhere else if possible."""
    options = {}
    if "logits_to_keep" in _arguments(module):
        options["logits_to_keep"], places = places.unique(return_inverse=True)
    logits = module(tokens, use_cache=False, **options).logits
    return logits[torch.arange(len(tokens), device=tokens.device)[:, None], places].float()


def pieces_of(module: Any, rows: int) -> int:
    """How many tokens of each of `rows` rows may be read at once, for the memory that their logits take."""
    return max(1, LOGITS_AT_ONCE // (rows * module.config.get_text_config().vocab_size))


@torch.no_grad()
def reader(module: Any) -> type[CachedRows] | type[WholeRows]:
    """`CachedRows` for a model that remembers the keys and values of all tokens and nothing else."""
    from transformers.cache_utils import DynamicCache, DynamicLayer

    if not {"attention_mask", "position_ids", "past_key_values"} <= _arguments(module):
        return WholeRows
    cache = module(torch.zeros(1, 1, dtype=torch.long, device=module.device), use_cache=True).past_key_values
    plain = type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers)
    return CachedRows if plain else WholeRows


def _arguments(module: Any) -> set[str]:
    return set(inspect.signature(module.forward).parameters)


def _same(tokens: tuple[int, ...]) -> bool:
    return len(set(tokens)) == 1

"""Embeddings of tokens that are pairs."""

from torch import Tensor, nn

from mesocosm.models._checks import check_at_least

__all__ = ["FactoredEmbedding", "PairEmbedding"]


class FactoredEmbedding(nn.Module):
    """Embeds token a * base + b as the sum of an embedding of a and one of b.

    Where tokens are edges u -> v of a graph, as in `PathStar`, it shows which edges share a node, which a plain table
    of N^2 rows does not. Put it in place of a model's `embed`.

    Raises:
        ValueError: for a size below 1.
    """

    def __init__(self, *, d_vocab: int, base: int, d_model: int, embedding_std: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, d_vocab=d_vocab, base=base, d_model=d_model)
        self.base = base
        self.high = nn.Embedding(-(-d_vocab // base), d_model)
        self.low = nn.Embedding(base, d_model)
        for embedding in (self.high, self.low):
            nn.init.normal_(embedding.weight, std=embedding_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., D]` of tokens `[...]`."""
        return self.high(tokens // self.base) + self.low(tokens % self.base)


class PairEmbedding(nn.Module):
    """Embeds a token as the sum of an embedding of its left half and one of its right half.

    Put it in place of a model's `embed` where a table says what tokens have in common, as `symbol_pairs` does for the
    lines of `VariableAssignment`.

    Args:
        pairs: `[V, 2]` int64, the two halves of each token, from 0.

    Raises:
        ValueError: for pairs of another shape, and for a size below 1.
    """

    pairs: Tensor

    def __init__(self, pairs: Tensor, d_model: int, embedding_std: float = 1.0) -> None:
        super().__init__()
        check_at_least(1, d_model=d_model)
        if pairs.dim() != 2 or pairs.shape[1] != 2:
            raise ValueError(f"pairs of shape {tuple(pairs.shape)} is not legal: it must be [V, 2]")
        self.left, self.right = (nn.Embedding(size, d_model) for size in (pairs.amax(0) + 1).tolist())
        self.register_buffer("pairs", pairs.to(self.left.weight.device), persistent=False)
        for embedding in (self.left, self.right):
            nn.init.normal_(embedding.weight, std=embedding_std)

    def forward(self, tokens: Tensor) -> Tensor:
        """`[..., D]` of tokens `[...]`."""
        left, right = self.pairs[tokens].unbind(-1)
        return self.left(left) + self.right(right)

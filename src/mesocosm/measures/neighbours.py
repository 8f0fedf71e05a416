"""Predict from the nearest examples: search once, then try any number of neighbours and any bandwidth."""

import importlib
from typing import NamedTuple

import torch
from torch import Tensor

from mesocosm.measures._arrays import Array, tensor

__all__ = ["knn_predict", "nearest_neighbours"]


class Neighbours(NamedTuple):
    """Each query's neighbours, nearest first."""

    distances: Tensor
    """`[M, k]`, Euclidean."""
    indices: Tensor
    """`[M, k]`, rows of the memory."""


def nearest_neighbours(memory: Array, queries: Array | None = None, neighbours: int = 1) -> Neighbours:
    """Exact search for the nearest rows of a memory, by `faiss` (in float32) where installed, else by scikit-learn.

    Args:
        memory: `[N, D]`.
        queries: `[M, D]`; without them the rows of the memory, each left out of its own neighbours.
        neighbours: how many, k.

    Raises:
        ValueError: when the memory holds fewer than k rows to choose from.

    Source: Cover & Hart (1967), Nearest neighbor pattern classification, doi 10.1109/TIT.1967.1053964
    """
    own = queries is None
    rows, asked = tensor(memory).cpu(), tensor(memory if queries is None else queries).cpu()
    if not 1 <= neighbours <= len(rows) - own:
        raise ValueError(f"neighbours={neighbours} is not legal: it must be from 1 to {len(rows) - own}")
    distances, indices = _search(rows, asked, neighbours + own)
    if own:
        other = indices != torch.arange(len(rows))[:, None]
        other[:, -1] &= ~other.all(dim=1)  # a row hidden by its duplicates: the farthest of them goes instead
        distances, indices = distances[other].view(-1, neighbours), indices[other].view(-1, neighbours)
    return Neighbours(distances, indices)


def knn_predict(
    values: Array, found: Neighbours, neighbours: int | None = None, sigma: float = torch.inf, chunk: int = 1024
) -> Tensor:
    """Mean of the neighbours' values, weighted by w_i ~ exp(-distance_i / sigma), `[M, ...]`.

    Args:
        values: `[N, ...]`, one for each row of the memory: numbers, residuals, or one-hot classes, whose weighted
            mean is the share of votes.
        found: of `nearest_neighbours`.
        neighbours: only the nearest so many of those found; all where not given.
        sigma: bandwidth, in the units of the distances; infinite weighs all alike. Distances grow with the width of a
            layer, so give it relative to, say, `found.distances.median()`.
        chunk: queries at a time.

    Raises:
        ValueError: for a bandwidth that is not above 0, or more neighbours than were found.

    Source: Yang et al. (2023), ResMem: Learn what you can and memorize the rest, arXiv 2302.01576
    """
    most = found.indices.shape[1]
    count = most if neighbours is None else neighbours
    if not 1 <= count <= most:
        raise ValueError(f"neighbours={neighbours} is not legal: it must be from 1 to the {most} that were found")
    if not sigma > 0:
        raise ValueError(f"sigma={sigma} is not legal: it must be above 0")
    known = tensor(values).cpu()
    known = known if known.is_floating_point() else known.double()
    weights = torch.softmax(-found.distances[:, :count] / sigma, dim=1).to(known)
    parts = zip(weights.split(chunk), found.indices[:, :count].split(chunk))
    return torch.cat([torch.einsum("mk,mk...->m...", weight, known[indices]) for weight, indices in parts])


def _search(rows: Tensor, queries: Tensor, neighbours: int) -> tuple[Tensor, Tensor]:
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        from sklearn.neighbors import NearestNeighbors

        exact = torch.promote_types(rows.dtype, torch.float32)  # NumPy has no bfloat16
        index = NearestNeighbors(n_neighbors=neighbours).fit(rows.to(exact).numpy())
        distances, indices = index.kneighbors(queries.to(exact).numpy())
        return torch.from_numpy(distances), torch.from_numpy(indices)
    index = faiss.IndexFlatL2(rows.shape[1])
    index.add(rows.float().contiguous().numpy())
    squares, indices = index.search(queries.float().contiguous().numpy(), neighbours)
    return torch.from_numpy(squares).clamp(min=0).sqrt(), torch.from_numpy(indices)

"""Classes at the leaves of a binary tree, at each node of which a parity tells the way."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import WordTask
from mesocosm.tasks.parity import cube, signs_of

__all__ = ["HierarchicalParity"]


class HierarchicalParityBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    nodes: Tensor
    path: Tensor


@dataclass(frozen=True, kw_only=True)
class HierarchicalParity(WordTask):
    """Uniform ±1 bits labelled by the leaf of a complete binary tree that a parity at each node leads to.

                  node 0: x1 x2 x3
                  +1 /        \\ -1                4 classes, k = 3
        node 1: x4 x5 x6    node 2: x7 x8 x9
          +1 /   \\ -1         +1 /   \\ -1
            0     1             2     3

    From the root the way goes left where the product of the node's k bits is +1, and right where it is -1. Blocks of
    different nodes are disjoint. With two classes the label is 0 or 1 for a sparse parity of +1 or -1.

    Source: Panigrahi et al. (2025), Progressive distillation induces an implicit curriculum, arXiv 2410.05464
    """

    n: int = setting(30, "number of input bits", low=1)
    k: int = setting(3, "number of bits at each node", low=1)
    n_classes: int = setting(4, "number of leaves, a power of two", low=2, high=2**20)

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, n] float32, ±1: the bits",
        "targets": "[B] int64: the leaf, from the left",
        "weights": "[B] float32: 1 everywhere",
        "nodes": "[B, classes - 1] float32, ±1: product of each node's bits, level by level from the root",
        "path": "[B, log2 classes] int64: nodes on the way to the leaf",
    }

    def check(self) -> None:
        if self.n_classes & (self.n_classes - 1):
            raise ValueError(f"n_classes={self.n_classes} is not legal: it must be a power of two")
        if (self.n_classes - 1) * self.k > self.n:
            most = self.n // (self.n_classes - 1)
            raise ValueError(
                f"k={self.k} is not legal: {self.n_classes - 1} nodes on n={self.n} bits leave {most} each"
            )

    @property
    def input_shape(self) -> tuple[int]:
        return (self.n,)

    @property
    def output_shape(self) -> tuple[int]:
        return (self.n_classes,)

    @property
    def supports(self) -> Tensor:
        """Coordinates of each node's bits, `[classes - 1, k]`."""
        return torch.arange((self.n_classes - 1) * self.k).view(-1, self.k)

    @property
    def node_levels(self) -> Tensor:
        """Level of each node, `[classes - 1]`; 0 of the root."""
        return torch.tensor([(node + 1).bit_length() - 1 for node in range(self.n_classes - 1)])

    @property
    def chance(self) -> float:
        """Accuracy of a guess."""
        return 1 / self.n_classes

    @property
    def words(self) -> int:
        return -(-self.n // 64)

    def read(self, words: Tensor) -> HierarchicalParityBatch:
        """The samples of random words `[..., words]`."""
        return self.label(signs_of(words, self.n))

    def enumerate(self) -> HierarchicalParityBatch:
        """Every input once, in the order of `cube`; raises `ValueError` for n > 20."""
        return self.label(cube(self.n))

    def label(self, inputs: Tensor) -> HierarchicalParityBatch:
        """The batch of given inputs `[..., n]` of ±1."""
        nodes = inputs[..., self.supports].prod(-1)
        node, path = torch.zeros(inputs.shape[:-1], dtype=torch.int64, device=inputs.device), []
        for _ in range(self.n_classes.bit_length() - 1):
            path.append(node)
            went_right = nodes.gather(-1, node[..., None])[..., 0] < 0
            node = 2 * node + 1 + went_right.long()
        return HierarchicalParityBatch(
            inputs,
            targets=node - (self.n_classes - 1),
            weights=torch.ones_like(inputs[..., 0]),
            nodes=nodes,
            path=torch.stack(path, dim=-1),
        )

"""Path-star graphs: find the way from the centre of a star to the end of one of its arms."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor

from mesocosm.settings import setting
from mesocosm.tasks.base import Task

__all__ = ["PathStar"]


class PathStarBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor
    arms: Tensor
    start: Tensor
    goal: Tensor
    path: Tensor


@dataclass(frozen=True, kw_only=True)
class PathStar(Task):
    """The path to a goal in a star graph G(d, l), given as a shuffled list of directed edges.

        3 -> 7 -> 0 -> 5       the start 3 has d = 2 arms, each a path of l = 4 nodes with the start;
        3 -> 1 -> 8 -> 2       to the goal 2 leads the path 3 1 8 2

    A string is the edges, the start, the goal and the answer, the path's l - 1 nodes after the start, which alone carry
    weight. Only the first of them needs planning: each other node is the one successor of the node before it, so
    that a learner who is shown the true answer so far can do without a plan. Written in reverse, from the goal on, each
    node is the one predecessor of the node before. Nodes are drawn afresh from N labels for every graph.

    The vocabulary begins with the N nodes, and only they are predicted. It ends with a dummy, `$`, for answers that are
    not shown. As `edges`, an edge u -> v is one token, (u + 1) N + v. As `tokens`, the paper's form, it is `u v |`, and
    start and goal stand between `/` and `=`.

    Source: Bachmann & Nagarajan (2024), The Pitfalls of Next-Token Prediction, section 4, arXiv 2403.06963
    """

    degree: int = setting(2, "number of arms d", low=2, high=1000)
    path_length: int = setting(4, "nodes l in a path, with start and goal", low=3, high=1000)
    nodes: int = setting(10, "number of labels N to draw nodes from, at least d (l - 1) + 1", low=5, high=10_000)
    reverse: bool = setting(False, "write the answer from the goal on")
    form: Literal["edges", "tokens"] = setting("edges", "an edge as one token, or as the paper's text `u v |`")

    fields: ClassVar[dict[str, str]] = {
        "inputs": "[B, T] int64: edges, start, goal, and the answer without its last node",
        "targets": "[B, T] int64: the answer at the last l - 1 positions, 0 before",
        "weights": "[B, T] float32: 1 at the last l - 1 positions",
        "arms": "[B, d, l-1] int64: nodes of each arm from the start outwards, the path's arm first",
        "start": "[B] int64: the node in the middle",
        "goal": "[B] int64: the node at the end of the path",
        "path": "[B, l] int64: nodes from start to goal",
    }

    def check(self) -> None:
        least = self.edges + 1
        if self.nodes < least:
            raise ValueError(f"nodes={self.nodes} is not legal: it must be at least {least}, the nodes of the graph")

    @property
    def edges(self) -> int:
        return self.degree * (self.path_length - 1)

    @property
    def input_shape(self) -> tuple[int]:
        prefix = self.edges + 2 if self.form == "edges" else 3 * self.edges + 4
        return (prefix + self.path_length - 2,)

    @property
    def output_shape(self) -> tuple[int, int]:
        return (*self.input_shape, self.nodes)

    @property
    def tokens(self) -> tuple[str, ...]:
        nodes = [str(node) for node in range(self.nodes)]
        if self.form == "tokens":
            return (*nodes, "|", "/", "=", "$")
        return (*nodes, *(f"{u}>{v}" for u in nodes for v in nodes), "$")

    @property
    def dummy(self) -> int:
        """Token `$`, which stands for an answer that is not shown."""
        return len(self.tokens) - 1

    @property
    def chance(self) -> float:
        """Share of right paths when the first node after the start is guessed and the others follow it: 1/d."""
        return 1 / self.degree

    @property
    def cheat_loss(self) -> float:
        """Least cross-entropy per answer node, in nats, of who guesses the first and follows edges: ln d / (l - 1)."""
        return math.log(self.degree) / (self.path_length - 1)

    def sample(self, size: int, generator: torch.Generator) -> PathStarBatch:
        labels = torch.rand(size, self.nodes, generator=generator).argsort(1)
        start, arms = labels[:, 0], labels[:, 1 : self.edges + 1].unflatten(1, (self.degree, -1))
        goal = arms[:, 0, -1]
        answer = arms[:, 0].flip(1) if self.reverse else arms[:, 0]
        string = torch.cat([self._prefix(start, arms, goal, generator), answer], 1)
        weights = torch.zeros(size, string.shape[1] - 1)
        weights[:, 1 - self.path_length :] = 1
        path = torch.cat([start[:, None], arms[:, 0]], 1)
        targets = torch.where(weights > 0, string[:, 1:], 0)
        return PathStarBatch(string[:, :-1], targets, weights, arms, start, goal, path)

    def _prefix(self, start: Tensor, arms: Tensor, goal: Tensor, generator: torch.Generator) -> Tensor:
        """All but the answer, the edges in random order."""
        order = torch.rand(len(start), self.edges, generator=generator).argsort(1)
        inwards = torch.cat([start[:, None, None].expand(-1, self.degree, 1), arms[:, :, :-1]], 2)
        sources, ends = (nodes.flatten(1).gather(1, order) for nodes in (inwards, arms))  # [B, E]
        if self.form == "edges":
            return torch.cat([(sources + 1) * self.nodes + ends, torch.stack([start, goal], 1)], 1)
        bar, slash, equals = range(self.nodes, self.nodes + 3)
        text = torch.stack([sources, ends, torch.full_like(ends, bar)], 2).flatten(1)  # [B, 3 E]
        question = [torch.full_like(start, slash), start, goal, torch.full_like(start, equals)]
        return torch.cat([text, torch.stack(question, 1)], 1)

    def down_another_arm(self, batch: PathStarBatch) -> PathStarBatch:
        """The same graphs with an answer that begins with the first node of an arm that leads elsewhere.

        The targets are the rest of that arm, outwards, and only they carry weight. Who copies edges follows it.
        """
        arm = batch.arms[:, 1]
        first = 1 - self.path_length
        inputs, targets, weights = (field.clone() for field in batch[:3])
        inputs[:, first + 1 :], targets[:, first:] = arm[:, :-1], arm
        weights[:, first] = 0
        return batch._replace(inputs=inputs, targets=targets, weights=weights)

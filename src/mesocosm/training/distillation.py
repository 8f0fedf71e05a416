"""Learning from a teacher's probabilities beside the labels, or in their place."""

from collections import namedtuple
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mesocosm.training.objectives import _mean
from mesocosm.training.population import Population
from mesocosm.training.streams import kinds_of

__all__ = ["Taught", "distil", "from_top", "stand_in", "top_of", "two_stages"]


class Taught:
    """A stream whose batches carry a teacher's probabilities, `soft` `[R, B, ..., V]`, and how much these count.

    Args:
        stream: gives the batches.
        teachers: the teacher at successive checkpoints (or the one teacher): modules of one network for all replicas,
            or populations with a teacher a replica. A `stand_in` finds all classes equally likely.
        schedule: which of the teachers teaches at a step; the last one where not given.
        temperature: of the teacher's softmax; 0 gives its most likely class alone.
        weight: of the soft labels, from 0 (labels only) to 1 (teacher only), or a function of the step. At weight 0 the
            teacher is not asked, and its probabilities are 0.

    Source: Hinton et al. (2015), Distilling the knowledge in a neural network, arXiv 1503.02531; schedules of
    checkpoints: Panigrahi et al. (2025), arXiv 2410.05464; weights by step: Rawat et al. (2024), arXiv 2410.18779
    """

    def __init__(
        self,
        stream: Callable[[int, Sequence[int], torch.device], Any],
        teachers: Sequence[nn.Module | Population],
        schedule: Callable[[int], int] = lambda step: -1,
        temperature: float = 1.0,
        weight: float | Callable[[int], float] = 1.0,
    ) -> None:
        if not teachers:
            raise ValueError("teachers=[] is not legal: give at least one")
        if temperature < 0:
            raise ValueError(f"temperature={temperature!r} is not legal: it must be a number, at least 0")
        self.stream, self.teachers, self.schedule, self.temperature = stream, list(teachers), schedule, temperature
        self.weight = weight if callable(weight) else lambda step: weight

    def __call__(self, step: int, index: Sequence[int], device: torch.device) -> Any:
        """The batch `[R, B, ...]` of this step for the replicas at `index`, with `soft` and `soft_weight`."""
        batch, weight = self.stream(step, index, device), self.weight(step)
        if weight > 0:
            soft = self._probabilities(self.teachers[self.schedule(step)], batch.inputs, index)
        else:
            soft = torch.zeros((), device=device).expand(len(index))
        return _with_soft(batch._fields)(*batch, soft, torch.full((len(index),), weight, device=device))

    def kinds(self, step: int, index: Sequence[int]) -> list[Any]:
        """What the cost of a replica's step depends on: which teacher is asked, if any."""
        asked = self.schedule(step) % len(self.teachers) if self.weight(step) > 0 else None
        return [(asked, kind) for kind in kinds_of(self.stream, step, index)]

    def _probabilities(self, teacher: nn.Module | Population, inputs: Tensor, index: Sequence[int]) -> Tensor:
        if isinstance(teacher, Population):
            chosen = teacher if list(index) == list(range(len(teacher))) else teacher.select(index)
            logits = chosen.map(lambda model, x: logits_of(model(x)), inputs)
        else:
            untrained = next(teacher.parameters(), inputs).is_meta
            with torch.no_grad():
                flat = inputs.flatten(0, 1).to("meta" if untrained else inputs.device)
                logits = logits_of(teacher(flat)).unflatten(0, inputs.shape[:2])
            logits = torch.zeros_like(logits, device=inputs.device) if untrained else logits
        if self.temperature == 0:
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).to(logits.dtype)
        return (logits / self.temperature).softmax(-1)


def stand_in(make_model: Callable[[], nn.Module]) -> nn.Module:
    """A network without numbers, for a plan: in place of a teacher that is yet to be trained, it has its price."""
    with torch.device("meta"):
        return make_model()


@cache
def _with_soft(fields: tuple[str, ...]) -> Any:
    return namedtuple("TaughtBatch", [*fields, "soft", "soft_weight"])


def two_stages(weight: float, until: int, over: int = 0, ratio: bool = False) -> Callable[[int], float]:
    """Weight of the soft labels by step: `weight` for `until` steps, falling to 0 over the next `over`, then 0.

    Args:
        over: steps of the transition; 0 switches at once.
        ratio: whether it is w / (1 - w), and not w, that falls in a straight line.

    Raises:
        ValueError: for a weight outside 0 to 1, or of 1 with `ratio`.

    Source: Rawat et al. (2024), A Little Help Goes a Long Way: Efficient LLM Training by Leveraging Small LMs,
    algorithm 1 and the transitions of its appendix, arXiv 2410.18779
    """
    if not 0 <= weight <= 1 or (ratio and weight == 1):
        raise ValueError(f"weight={weight!r} is not legal: it must be from 0 to 1, and below 1 for ratio=True")

    def at(step: int) -> float:
        left = min(max(1 - (step + 1 - until) / (over + 1), 0.0), 1.0)
        if not ratio:
            return weight * left
        odds = left * weight / (1 - weight)
        return odds / (1 + odds)

    return at


class Top(NamedTuple):
    """The likeliest classes of a law: less to store than the whole."""

    classes: Tensor
    """`[..., k]` int64, the likeliest first."""
    probabilities: Tensor
    """`[..., k]`."""


def top_of(probabilities: Tensor, k: int) -> Top:
    """The `k` likeliest of the classes `[..., V]`, to keep a teacher's answers on disk.

    Raises:
        ValueError: for a k that is not from 1 to V.
    """
    if not 1 <= k <= probabilities.shape[-1]:
        raise ValueError(f"k={k} is not legal: it must be from 1 to the number of classes, {probabilities.shape[-1]}")
    values, classes = probabilities.topk(k)
    return Top(classes, values)


def from_top(top: Top, n_classes: int) -> Tensor:
    """The law `[..., V]` with these probabilities, what is left being shared equally by all other classes."""
    others = max(n_classes - top.classes.shape[-1], 1)
    rest = (1 - top.probabilities.sum(-1, keepdim=True)).clamp_min(0) / others
    return rest.expand(*rest.shape[:-1], n_classes).scatter(-1, top.classes, top.probabilities)


def logits_of(output: Any) -> Tensor:
    """The logits of a model's output, as they come or as a Hugging Face model wraps them."""
    return output.logits if hasattr(output, "logits") else output


def distil(model: nn.Module, batch: Any) -> Tensor:
    """(1 - w) CE(targets, model) + w CE(soft, model), in nats, for batches of `Taught` with w = `soft_weight`.

    CE(soft, .) is the forward KL divergence from the teacher, up to the teacher's entropy. Logits are `[B, ..., V]`,
    targets `[B, ...]`.
    """
    log_probabilities = logits_of(model(batch.inputs)).log_softmax(-1)
    hard = -log_probabilities.gather(-1, batch.targets.unsqueeze(-1)).squeeze(-1)
    soft = -(batch.soft * log_probabilities).sum(-1)
    return _mean((1 - batch.soft_weight) * hard + batch.soft_weight * soft, batch.weights)

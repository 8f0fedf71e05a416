"""Whether a model plans its way through a path-star graph, or only follows edges."""

from typing import Any

from torch import Tensor, nn

from mesocosm.measures.sequences import exact_match, free_running

__all__ = ["cheat_rate", "first_step_share"]


def cheat_rate(model: nn.Module, batch: Any) -> Tensor:
    """Share of graphs on which a model, set on the first node of a wrong arm, follows that arm to its end.

    A model that plans has no reason to; one that has learned only to copy the edge from the last node always does.

    Args:
        batch: graphs with such an answer begun, as `PathStar.down_another_arm` gives them.

    Source: Bachmann & Nagarajan (2024), The Pitfalls of Next-Token Prediction, section 4, arXiv 2403.06963
    """
    return exact_match(free_running(model, batch), batch.targets, batch.weights)


def first_step_share(predictions: Tensor, batch: Any) -> Tensor:
    """Share of graphs whose answer begins with a neighbour of the start, be it the right one or not.

    Args:
        predictions: `[..., B, T]`, leading axes for replicas.
        batch: of `PathStar`, not reversed.
    """
    first = batch.weights.argmax(1)[:, None].expand((*predictions.shape[:-1], 1))
    return (predictions.gather(-1, first) == batch.arms[:, :, 0]).any(-1).double().mean(-1)

"""What networks answer on graphs that all of them share."""

from typing import TYPE_CHECKING, Any

from mesocosm import lab, measures, training

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.studies.path_star import Config
    from mesocosm.training import Population

TEACHERLESS = ("teacherless", "shallow", "teacherless reversed")
"""Arms that are never shown the answer."""


def held_out(task: Any, sample: str, count: int, device: Any) -> Any:
    """Fixed graphs, the same for all models of a task."""
    from mesocosm.seeding import generator

    batch = task.sample(count, generator("path-star", sample))
    return batch._make(field.to(device) for field in batch)


def predict(arm: str, task: Any, batch: Any, model: "nn.Module") -> "Tensor":
    """Answers `[B, T]`: with a teacher each node after the true ones, without one all in parallel."""
    asked = training.hide_answers(batch, task.dummy) if arm in TEACHERLESS else batch
    return measures.teacher_forced(model, asked)


def track(config: "Config", arm: str, task: Any, population: "Population", step: int) -> "dict[str, Tensor]":
    """Share of right paths and of each right node, which the learning curves show."""
    batch = held_out(task, "tracking", config.tracked_graphs, population.device)

    def measure(model: "nn.Module") -> "dict[str, Tensor]":
        # All nodes are right after the true ones if and only if all are right after the model's own.
        return accuracies(predict(arm, task, batch, model), task, batch)

    return population.map(measure)


def accuracies(predictions: "Tensor", task: Any, batch: Any) -> "dict[str, Tensor]":
    """Share of right paths, and of right answers at each node of the path, 1 the first after the start."""
    nodes = measures.accuracy_by_position(predictions, batch.targets, batch.weights)[1 - task.path_length :]
    order = range(task.path_length - 1, 0, -1) if task.reverse else range(1, task.path_length)
    right = measures.exact_match(predictions, batch.targets, batch.weights)
    return {"right paths": right, **{f"right at node {node}": nodes[i] for i, node in enumerate(order)}}


def evaluate(config: "Config", cell: lab.Cell, population: "Population") -> "dict[str, Tensor]":
    """Every replica on the held-out graphs, `[R]` by name."""
    task: Any = cell.task
    arm = cell.settings["arm"]
    batch = held_out(task, "test", config.graphs, population.device)
    misleading = task.down_another_arm(batch)

    def measure(model: "nn.Module") -> "dict[str, Tensor]":
        found = accuracies(predict(arm, task, batch, model), task, batch)
        found["loss"] = cell.objective(model, batch)
        if arm in TEACHERLESS:
            return found
        own = measures.free_running(model, batch)
        return found | {
            "right paths": measures.exact_match(own, batch.targets, batch.weights),
            "first steps to a neighbour": measures.first_step_share(own, batch),
            "wrong arm followed": measures.cheat_rate(model, misleading),
        }

    return population.map(measure)

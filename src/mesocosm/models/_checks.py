"""Checks that models share: each raises a `ValueError` that names what is wrong, its value and what is legal."""

import math
from typing import Any, get_args

from mesocosm.tasks.base import Task


def check_at_least(low: int, **sizes: int) -> None:
    for name, size in sizes.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < low:
            raise ValueError(f"{name}={size!r} is not legal: it must be an integer, at least {low}")


def check_probabilities(**probabilities: float) -> None:
    for name, p in probabilities.items():
        if not 0 <= p <= 0.99:
            raise ValueError(f"{name}={p!r} is not legal: it must be a number from 0 to 0.99")


def check_one_of(literal: Any, **choices: str) -> None:
    """`literal` is the `Literal[...]` type of the arguments."""
    for name, choice in choices.items():
        if choice not in get_args(literal):
            raise ValueError(f"{name}={choice!r} is not legal: it must be one of {', '.join(get_args(literal))}")


def token_sizes(task: Task, model: type) -> tuple[int, int, int]:
    """T, d_vocab and n_outputs of a task with tokens `(T,)` in and `(T, V)` out."""
    inputs, outputs = task.input_shape, task.output_shape
    if task.tokens is None or len(inputs) != 1 or len(outputs) != 2 or outputs[0] != inputs[0]:
        raise _unfit(task, model, "tokens (T,) in and (T, V) out")
    return inputs[0], len(task.tokens), outputs[1]


def number_sizes(task: Task, model: type) -> tuple[int, int | None]:
    """Numbers in and classes out (None for a score) of a task with numbers of any shape in and `()` or `(K,)` out."""
    if task.tokens is not None or len(task.output_shape) > 1:
        raise _unfit(task, model, "numbers in and a score () or classes (K,) out")
    return math.prod(task.input_shape), task.output_shape[0] if task.output_shape else None


def score_size(task: Task, model: type) -> int:
    """Numbers in of a task with a score `()` out."""
    if task.tokens is not None or task.output_shape != ():
        raise _unfit(task, model, "numbers in and a score () out")
    return math.prod(task.input_shape)


def image_sizes(task: Task, model: type) -> tuple[tuple[int, int, int], int]:
    """Channels, height and width in and classes out of a task with images `(H, W)` or `(C, H, W)` in and `(K,)` out."""
    if task.tokens is not None or len(task.input_shape) not in (2, 3) or len(task.output_shape) != 1:
        raise _unfit(task, model, "images (H, W) or (C, H, W) in and classes (K,) out")
    *channels, height, width = task.input_shape
    return (channels[0] if channels else 1, height, width), task.output_shape[0]


def _unfit(task: Task, model: type, needs: str) -> ValueError:
    kind = "numbers" if task.tokens is None else "tokens"
    has = f"{kind} {task.input_shape} in and {task.output_shape} out"
    return ValueError(f"{model.__name__} needs {needs}, but {type(task).__name__} has {has}")

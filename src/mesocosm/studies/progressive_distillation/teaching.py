"""Which checkpoints of its teacher a student learns from, and when."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mesocosm import training

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mesocosm.training import Population

SHARES = (0.06, 0.4, 0.96)
"""Of a teacher's whole gain over chance: where its transition begins, is on its way, and ends. On a parity of two
classes these are accuracies of 0.53, 0.70 and 0.98."""


def transition(accuracy: "Tensor", steps: Sequence[int], chance: float) -> "Tensor":
    """The first of the `steps` at which each teacher has made each of the `SHARES` of its gain over chance.

    Args:
        accuracy: `[E, R]` along training, at E steps.

    Returns:
        `[3, R]` int64; the last step where it never does.
    """
    import torch

    gain = (accuracy - chance) / (accuracy.amax(0) - chance).clamp_min(1e-6)
    made = torch.stack([gain >= share for share in SHARES])
    made[:, -1] = True
    return torch.tensor(steps)[made.long().argmax(1)]


def syllabus(way: str, marks: "Tensor", steps: Sequence[int], count: int) -> list[list[int]]:
    """Steps of the checkpoints before the final one that each teacher teaches from, a list a stage.

    Args:
        marks: `[3, R]`, from `transition`.
        steps: those at which a checkpoint was kept.
        count: stages of the progressive way.
    """
    import torch

    begun, halfway, done = marks.double()
    wanted = {
        "one-shot": [],
        "progressive": [begun + (done - begun) * i / max(count - 1, 1) for i in range(count)],
        "two-shot": [halfway],
        "two-shot early": [begun / 2],
        "two-shot late": [(done + steps[-1]) / 2],
    }[way]
    kept = torch.tensor(steps)
    return [kept[(kept - stage[:, None]).abs().argmin(1)].tolist() for stage in wanted]


def lessons(
    stream: Any, stages: Sequence["Population | nn.Module"], guided: int, temperature: float
) -> "training.Taught":
    """Batches with the teacher's answers: of each stage but the last for an equal part of `guided` steps, then of it.

    Args:
        stages: the teacher at successive checkpoints, the final one last.
    """
    early = len(stages) - 1
    return training.Taught(stream, stages, lambda step: min(step * early // guided, early), temperature)

"""Weights kept along a training, to learn from or to look at afterwards."""

import os
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from mesocosm.training.loop import Measure
from mesocosm.training.population import Population

__all__ = ["Checkpoints"]


class Checkpoints:
    """Keeps each replica's weights at every measured step: give it to `train` as the measurement, around another.

        kept = Checkpoints(measure, folder)
        history = train(population, ..., measure=kept, every=100)
        early = kept.at(history.population, [300, 500])

    Args:
        measure: what else is measured.
        folder: where the weights are written, a file for each replica and step, so that a training which was cut off
            and goes on still has the earlier ones; in memory where not given.
    """

    def __init__(self, measure: Measure | None = None, folder: Path | None = None) -> None:
        self.measure, self.folder = measure, folder
        self._held: dict[tuple[int, int], dict[str, Tensor]] = {}

    def __call__(self, population: Population, step: int) -> dict[str, Tensor]:
        """Keep what the replicas are at this step, and measure them."""
        if population.sharded:
            raise ValueError("Checkpoints are not legal for sharded replicas, of which each process has but a part")
        for place, replica in enumerate(population.index):
            state = {f"state.{name}": value[place].clone() for name, value in population.state.items()}
            self._keep(replica, step, {"theta": population.theta[place].clone(), **state})
        return self.measure(population, step) if self.measure else {}

    def at(self, population: Population, steps: Sequence[int]) -> Population:
        """A copy of `population` in which replica r has the weights of `steps[r]`.

        Raises:
            ValueError: when nothing was kept of a replica at a step.
        """
        earlier = population.select(range(len(population)))
        for r, step in enumerate(steps):
            kept = self._find(population.index[r], step)
            earlier.theta[r] = kept["theta"].to(earlier.device)
            for name in earlier.state:
                earlier.state[name][r] = kept[f"state.{name}"].to(earlier.device)
        return earlier

    def _keep(self, replica: int, step: int, tensors: dict[str, Tensor]) -> None:
        if self.folder is None:
            self._held[replica, step] = tensors
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path, written = self._path(replica, step), self.folder / f"{os.getpid()}.part"
        save_file(tensors, written)
        with written.open("rb") as file:
            os.fsync(file.fileno())
        written.replace(path)

    def _find(self, replica: int, step: int) -> dict[str, Tensor]:
        if (replica, step) in self._held:
            return self._held[replica, step]
        if self.folder is None or not self._path(replica, step).exists():
            raise ValueError(f"step={step} is not legal: nothing was kept of replica {replica} there")
        return load_file(self._path(replica, step))

    def _path(self, replica: int, step: int) -> Path:
        assert self.folder is not None
        return self.folder / f"replica {replica} at {step}.safetensors"

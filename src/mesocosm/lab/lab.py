"""The laboratory: trains a study's cells into a run folder, remembers what is done, and keeps the records."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mesocosm.lab.files import RunError, file_name, read_tensors, write_tensors
from mesocosm.lab.interruption import first_ctrl_c
from mesocosm.lab.study import Cell

if TYPE_CHECKING:
    import pandas
    from torch import Tensor, nn

    from mesocosm.lab.progress import Watcher
    from mesocosm.training.history import History, Saved
    from mesocosm.training.population import Population

COLUMNS = ["cell", "seed", "step", "metric", "value"]

CHECKPOINT_SECONDS = 15.0


class Lab:
    """Where a study runs.

    Args:
        folder: the run folder; None keeps everything in memory, for pricing and tests.
        shard: splits every replica over the processes that train together, if there are several.
        architecture: replaces the model of every swappable cell.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        device: str = "cpu",
        compile: bool = False,
        stack: int | None = None,
        shard: bool = False,
        precision: 'Literal["float32", "bfloat16"]' = "float32",
        architecture: "Callable[[Any], Any] | None" = None,
        progress: "Watcher | None" = None,
    ) -> None:
        from mesocosm.training.history import PHASES
        from mesocosm.training.parallel import leads, processes

        self.folder, self.device, self.compile, self.stack = folder, device, compile, stack
        self.shard = shard and processes() > 1
        self.precision, self.architecture, self.progress = precision, architecture, progress
        self.log = logging.getLogger("mesocosm.run")
        self.seconds: dict[str, float] = {}
        self.phases = dict.fromkeys(PHASES, 0.0)
        """Where the time went."""
        self.interrupted = False
        self.writes = leads()
        """False in all but one of several processes that train together."""
        self._tables: list[pandas.DataFrame] = []

    def population(self, cell: Cell) -> "Population":
        """The untrained population of a cell."""
        from mesocosm.training.population import Population
        from mesocosm.training.sharding import ShardedPopulation

        kind = ShardedPopulation if self.shard else Population
        population = kind(lambda: self.model(cell), cell.init or list(cell.seeds), self.device)
        if cell.start:
            cell.start(population)
        return population

    def model(self, cell: Cell) -> "nn.Module":
        """One network of a cell, of the user's architecture where that takes its place."""
        make = self.architecture if self.architecture and cell.swappable else cell.model
        return make(cell.task)

    def train(self, cell: Cell) -> "History":
        """Train a cell, go on with it, or read it back when it is done; its measurements become records."""
        history = self.fit(cell, range(len(cell.seeds)), cell.name)
        self._tables.append(_history_table(cell, history))
        return history

    def fit(self, cell: Cell, rows: Sequence[int], name: str) -> "History":
        """Train these replicas of a cell as `train` does, without records; `name` is that of their checkpoint."""
        from mesocosm.training.loop import train
        from mesocosm.training.streams import Online

        population = self.population(cell)
        if list(rows) != population.index:
            population = population.select(rows)
        watcher = _Watcher(self, cell, name, population.index)
        history = train(
            population,
            cell.stream or Online(cell.task, cell.batch_size, list(cell.seeds)),
            cell.objective,
            cell.optimiser,
            steps=cell.steps,
            accumulate=cell.accumulate,
            schedule=cell.schedule,
            clip=cell.clip,
            grow=cell.grow,
            average=cell.average,
            measure=cell.measure,
            every=cell.every,
            stop=cell.stop,
            stack=self.stack,
            compile=self.compile,
            precision=self.precision,
            observer=watcher,
        )
        watcher.finish(history)
        for phase, seconds in history.seconds.items():
            self.phases[phase] += seconds
        return history

    def record(
        self,
        cell: str,
        metrics: "Mapping[str, float | Sequence[float] | Tensor]",
        *,
        seed: int | Sequence[int],
        step: int | Sequence[int] = 0,
        **settings: Any,
    ) -> None:
        """Add measurements to the records: one number by name for a seed, or one for each of several in a row."""
        import pandas

        for name, value in metrics.items():
            values = value.tolist() if hasattr(value, "tolist") else value
            columns = {"cell": cell, "seed": seed, "step": step, "metric": name, "value": values, **settings}
            scalar = not any(isinstance(c, (list, tuple, range)) for c in columns.values())
            self._tables.append(pandas.DataFrame(columns, index=[0] if scalar else None))

    def remember(self, name: str, compute: "Callable[[], dict[str, Tensor]]") -> "dict[str, Tensor]":
        """`compute()`, kept in the run folder under `name` so that a resumed run need not do it again."""
        path = self.checkpoint(name)
        if path and path.exists():
            tensors, facts = read_tensors(path)
            return self._spent(name, facts["seconds"], tensors)
        if self.progress:
            self.progress.note(name)
        self.stop_if_interrupted()
        began = time.monotonic()
        tensors = compute()
        seconds = time.monotonic() - began
        if path and self.writes:
            write_tensors(path, tensors, {"seconds": seconds})
        return self._spent(name, seconds, tensors)

    def _spent(self, name: str, seconds: float, tensors: "dict[str, Tensor]") -> "dict[str, Tensor]":
        self.seconds[name] = seconds
        self.phases["measuring"] += seconds
        return tensors

    def records(self) -> "pandas.DataFrame":
        """All records so far, in an order that does not depend on how they were made."""
        import pandas

        table = pandas.concat(self._tables, ignore_index=True)
        table = table.dropna(subset=["value"]).astype({"seed": int, "step": int, "value": float})
        settings = sorted(c for c in table.columns if c not in COLUMNS)
        order = ["cell", *settings, "seed", "step", "metric"]
        return table[[*COLUMNS[:1], *settings, *COLUMNS[1:]]].sort_values(order, kind="stable", ignore_index=True)

    def checkpoint(self, name: str) -> Path | None:
        return self.folder / "checkpoints" / f"{file_name(name)}.safetensors" if self.folder else None

    def stop_if_interrupted(self) -> None:
        if self.interrupted:
            raise KeyboardInterrupt

    def interruptible(self) -> AbstractContextManager[None]:
        """Let the first Ctrl-C save and stop at the next step, and the second stop at once."""

        def interrupt() -> None:
            self.interrupted = True

        return first_ctrl_c(interrupt if self.writes else None)


class _Watcher:
    """A training's observer: progress, checkpoints, and its state when it is done."""

    def __init__(self, lab: Lab, cell: Cell, name: str, rows: Sequence[int]) -> None:
        self.lab, self.cell, self.name, self.rows = lab, cell, name, rows
        self.path = lab.checkpoint(name)
        self.began = self.saved_at = time.monotonic()
        self.pause = CHECKPOINT_SECONDS
        self.before = 0.0

    def restore(self) -> "Saved | None":
        saved = None
        if self.path and self.path.exists():
            saved = read_tensors(self.path)
            shapes = {len(t) for n, t in saved[0].items() if n == "final.theta"}
            if shapes != {len(self.rows)}:
                raise RunError(f"{self.path} is not a checkpoint of {self.name}; delete it and resume the run")
            self.before = saved[1]["seconds"]
        if self.lab.progress:
            self.lab.progress.begin(self.cell, len(self.rows))
        return saved

    def tick(self, step: int, fraction: float, alive: int, loss: float, save: "Callable[[], Saved]") -> None:
        from mesocosm.training.parallel import agreed

        now = time.monotonic()
        if self.lab.progress:
            self.lab.progress.update(fraction, step, alive, loss)
        due = now - self.saved_at > self.pause or self.lab.interrupted
        # All processes have a part in saving what is sharded.
        if self.path and (agreed(due) if self.lab.shard else due):
            self._write(save())
            self.saved_at = time.monotonic()
            self.pause = max(CHECKPOINT_SECONDS, 20 * (self.saved_at - now))
        self.lab.stop_if_interrupted()

    def finish(self, history: "History") -> None:
        seconds = self._write(history.saved())
        self.lab.seconds[self.name] = seconds
        reason = history.population.reason
        self.lab.log.info(
            "%s: %d replicas, %d steps, %s, %.1f s", self.name, len(self.rows), self.cell.steps, reason, seconds
        )
        for place, step in sorted(history.diverged.items()):
            replica = self.rows[place]
            self.lab.log.warning(
                "%s: replica %d (seed %d) diverged at step %d", self.name, replica, self.cell.seeds[replica], step
            )
        if self.lab.progress:
            self.lab.progress.end(history)

    def _write(self, saved: "Saved") -> float:
        tensors, facts = saved
        seconds = self.before + time.monotonic() - self.began
        if self.path and self.lab.writes:
            write_tensors(self.path, tensors, {**facts, "seconds": seconds})
        return seconds


def _history_table(cell: Cell, history: "History") -> "pandas.DataFrame":
    import pandas

    replicas = len(cell.seeds)
    fixed = {"cell": cell.name, "seed": list(cell.seeds)}
    fixed |= {n: list(v) if isinstance(v, (list, tuple, range)) else [v] * replicas for n, v in cell.settings.items()}
    tables = [
        pandas.DataFrame({**fixed, "step": step, "metric": name, "value": row.tolist()})
        for name, table in history.metrics.items()
        for step, row in zip(history.steps, table)
        if not row.isnan().all()
    ]
    for replica, step in history.diverged.items():
        one = {n: [v[replica] if isinstance(v, list) else v] for n, v in fixed.items()}
        tables.append(pandas.DataFrame({**one, "step": step, "metric": "diverged", "value": 1.0}))
    return pandas.concat(tables, ignore_index=True) if tables else pandas.DataFrame(columns=COLUMNS)

"""Live progress: what is training, replicas alive, step, loss and time left; plain lines where there is no terminal."""

import time
from typing import TYPE_CHECKING, Any, Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from mesocosm.lab.study import Cell

if TYPE_CHECKING:
    from mesocosm.training.history import History

LINE_SECONDS = 20.0


def duration(seconds: float) -> str:
    """`4 s`, `3 min 20 s`, `2 h 5 min`, `3 d 4 h`."""
    whole = max(round(seconds), 0)
    for unit, size, smaller, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // part} {smaller}"
    return f"{whole} s" if whole else "under 1 s"


class Watcher(Protocol):
    """Is told how trainings go."""

    def begin(self, cell: Cell, replicas: int) -> None: ...
    def update(self, fraction: float, step: int, alive: int, loss: float) -> None: ...
    def end(self, history: "History") -> None: ...
    def note(self, what: str) -> None: ...


class Progress:
    """Shows a run as it goes.

    Args:
        work: expected work of each cell by name, in any unit; only their ratio counts.
    """

    def __init__(self, title: str, work: dict[str, float], console: Console) -> None:
        self.title, self.work, self.console = title, work, console
        self.total = sum(work.values()) or 1.0
        self.done = self.resumed = 0.0
        self.began = self.line_at = time.monotonic()
        self.cell = ""
        self.number = 0
        self.facts: dict[str, Any] = {}
        self.live = Live(console=console, refresh_per_second=8, transient=True, get_renderable=self._render)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.live.stop()

    def begin(self, cell: Cell, replicas: int) -> None:
        self.cell, self.number, self.first = cell.name, self.number + 1, True
        self.facts = {"replicas": replicas, "alive": replicas, "steps": cell.steps, "step": 0, "fraction": 0.0}

    def update(self, fraction: float, step: int, alive: int, loss: float) -> None:
        if self.first:
            self.resumed += self.work.get(self.cell, 0.0) * max(fraction - 0.02, 0.0) * (fraction > 0.1)
            self.first = False
        self.facts |= {"fraction": fraction, "step": step, "alive": alive, "loss": loss}
        if not self.console.is_terminal and time.monotonic() - self.line_at > LINE_SECONDS:
            self.line_at = time.monotonic()
            self.console.print(self._line(), highlight=False)

    def end(self, history: "History") -> None:
        share = self.work.get(self.cell, 0.0)
        if self.first:
            self.resumed += share
        self.done += share
        self.facts["fraction"] = 0.0
        diverged = f", {len(history.diverged)} diverged" if history.diverged else ""
        loss = history.last("loss").nanmean().item() if "loss" in history.metrics else float("nan")
        replicas = len(history.population)
        counted = f"{replicas} replica{'s' * (replicas != 1)}"
        done = f"[{self.number}/{len(self.work)}] {self.cell}: {counted}, loss {loss:.3g}{diverged}"
        self.console.print(Text(done, style="dim"))

    def note(self, what: str) -> None:
        self.cell, self.facts = what, {}
        if not self.console.is_terminal:
            self.console.print(what, highlight=False)

    def reached(self) -> float:
        """Work that is done, with what is done of the cell that trains."""
        return self.done + self.work.get(self.cell, 0.0) * self.facts.get("fraction", 0.0)

    def left(self) -> float | None:
        """Seconds until the end, from the speed so far; None before there is one."""
        done = self.reached()
        gained, elapsed = done - self.resumed, time.monotonic() - self.began
        return elapsed * (self.total - done) / gained if gained > 0.01 * self.total and elapsed > 1 else None

    def _line(self) -> str:
        left = self.left()
        parts = [f"{self.title}: {self.cell}"]
        if "step" in self.facts:
            parts.append(f"step {self.facts['step']:,}/{self.facts['steps']:,}")
            parts.append(f"{self.facts['alive']}/{self.facts['replicas']} training")
        if "loss" in self.facts:
            parts.append(f"loss {self.facts['loss']:.4f}")
        parts.append(f"{duration(left)} left" if left is not None else "estimating the time left")
        return ", ".join(parts)

    def _render(self) -> Table:
        from rich.progress_bar import ProgressBar

        done = self.reached()
        grid = Table.grid(padding=(0, 1))
        grid.add_row(ProgressBar(total=self.total, completed=done, width=36), f"{100 * done / self.total:3.0f} %")
        grid.add_row(self._line())
        return grid

"""Live progress of jobs on many workers: what waits, runs and is done, and where; plain lines where no terminal is."""

import socket
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mesocosm.lab.jobs import Job
from mesocosm.lab.progress import LINE_SECONDS, Progress, duration
from mesocosm.lab.study import Cell

if TYPE_CHECKING:
    from mesocosm.training.history import History

TELL_SECONDS = 0.5
"""Between two reports of a training."""

SHOWN = 12
"""Running jobs in the table, at most."""


class Reporter:
    """Watches one training and passes on how it goes.

    Args:
        tell: takes `replicas`, `steps`, `step`, `fraction`, `alive`, and the `node` where it runs.
    """

    def __init__(self, tell: Callable[[dict[str, Any]], Any]) -> None:
        self.tell = tell

    def begin(self, cell: Cell, replicas: int) -> None:
        self.facts = {"steps": cell.steps, "step": 0, "fraction": 0.0, "alive": replicas, "node": socket.gethostname()}
        self.told = time.monotonic()
        self.tell(self.facts)

    def update(self, fraction: float, step: int, alive: int, loss: float) -> None:
        if time.monotonic() - self.told > TELL_SECONDS:
            self.told = time.monotonic()
            self.tell(self.facts | {"fraction": fraction, "step": step, "alive": alive})

    def end(self, history: "History") -> None: ...
    def note(self, what: str) -> None: ...


class Overview(Progress):
    """Shows jobs as they go."""

    def __init__(self, title: str, jobs: Sequence[Job], console: Console) -> None:
        self.running: dict[Job, dict[str, Any]] = {}
        super().__init__(title, {str(job.path): job.work for job in jobs}, console)

    def watch(self, job: Job) -> Reporter:
        """A watcher of a job that is done in this process."""
        return Reporter(lambda facts: self.hear(job, facts))

    def hear(self, job: Job, facts: dict[str, Any]) -> None:
        """How a running job goes, as a reporter tells it."""
        if job not in self.running and facts["fraction"] > 0.1:
            self.resumed += job.work * facts["fraction"]
        self.running[job] = facts
        if not self.console.is_terminal and time.monotonic() - self.line_at > LINE_SECONDS:
            self.line_at = time.monotonic()
            self.console.print(self._line(), highlight=False)

    def finish(self, job: Job, seconds: float, again: bool = False) -> None:
        """A job is done; `again` where an earlier run had done it."""
        facts = self.running.pop(job, {})
        self.number += 1
        self.done += job.work
        self.resumed += job.work * again
        where = f" on {facts['node']}" if "node" in facts else ""
        replicas = f"{len(job.rows)} replica{'s' * (len(job.rows) != 1)}"
        line = f"[{self.number}/{len(self.work)}] {job.title}: {replicas}, {duration(seconds)}{where}"
        self.console.print(Text(line, style="dim"))

    def fail(self, job: Job, error: Exception) -> None:
        """A job can't be done."""
        self.running.pop(job, None)
        self.number += 1
        self.console.print(Text(f"[{self.number}/{len(self.work)}] {error}", style="red"))

    def reached(self) -> float:
        return self.done + sum(job.work * facts["fraction"] for job, facts in list(self.running.items()))

    def _line(self) -> str:
        nodes = {facts["node"] for facts in list(self.running.values())}
        parts = [
            f"{self.title}: {self.number}/{len(self.work)} trainings done",
            f"{len(self.running)} running on {len(nodes)} node{'s' * (len(nodes) != 1)}",
            f"{len(self.work) - self.number - len(self.running)} waiting",
        ]
        left = self.left()
        parts.append(f"{duration(left)} left" if left is not None else "estimating the time left")
        return ", ".join(parts)

    def _render(self) -> Table:
        grid = super()._render()
        table = Table("training", "replicas", "step", "node", box=None, header_style="dim")
        for job, facts in list(self.running.items())[:SHOWN]:
            step = f"{facts['step']:,}/{facts['steps']:,}"
            table.add_row(job.title, f"{facts['alive']} of {len(job.rows)}", step, facts["node"])
        grid.add_row(table)
        return grid

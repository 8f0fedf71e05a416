"""Trainings ahead of a study's run, anywhere: jobs of plain values, and what they gave as finished checkpoints.

A job names a run and a cell; whoever does it makes the cell again from the run's configuration. Replicas train the same
way in any company, so a job may be some replicas of a cell, or all replicas of several cells of one shape. What it
gives becomes the cells' finished checkpoints in their run folders, which `Lab.train` then reads back.
"""

import hashlib
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mesocosm.lab.files import RunError, UserError, read_tensors, write_tensors
from mesocosm.lab.folder import Request, load_study, read_request
from mesocosm.lab.lab import Lab
from mesocosm.lab.runner import load_architecture
from mesocosm.lab.study import Cell

if TYPE_CHECKING:
    from rich.console import Console

    from mesocosm.lab.overview import Overview
    from mesocosm.lab.progress import Watcher
    from mesocosm.training.history import Saved

STACKED = 16
"""A stack of fewer replicas takes about as long as one of so many, where a replica's step does not fill the device."""


@dataclass(frozen=True)
class Part:
    """A cell of a run, by name."""

    request: Request
    folder: Path
    """The run folder."""
    cell: str
    replicas: int

    @property
    def path(self) -> Path:
        """Its finished checkpoint."""
        path = Lab(self.folder).checkpoint(self.cell)
        assert path is not None
        return path

    @property
    def done(self) -> bool:
        """Whether that is there."""
        return _kept(self.path, self.replicas) is not None


@dataclass(frozen=True)
class Job:
    """Some replicas of a cell, or of several cells of one shape in a row."""

    parts: tuple[Part, ...]
    rows: range
    steps: int
    flops: float
    """Floating-point operations of one step of one replica."""
    fills: int
    """Replicas in lockstep that fill the device."""
    weights: int
    """Bytes of one replica's weights."""
    lockstep: int
    """Bytes that one replica of those in lockstep takes besides: gradients, optimiser state, activations."""
    device: str = "cpu"
    compile: bool = False
    stack: int | None = None

    @property
    def replicas(self) -> int:
        """Of all its parts, of which `rows` are this job's."""
        return sum(part.replicas for part in self.parts)

    @property
    def title(self) -> str:
        more = f" and {len(self.parts) - 1} more" if len(self.parts) > 1 else ""
        return self.parts[0].cell + more

    @property
    def name(self) -> str:
        """Its checkpoint's, in the first part's run folder: that of the cell itself where it is the whole of one."""
        if len(self.parts) == 1 and len(self.rows) == self.replicas:
            return self.title
        which = repr([(str(part.folder), part.cell) for part in self.parts]).encode()
        digest = hashlib.blake2b(which, digest_size=4).hexdigest() if len(self.parts) > 1 else ""
        return f"{self.title} {digest} replicas {self.rows.start} to {self.rows.stop} of {self.replicas}"

    @property
    def path(self) -> Path:
        return replace(self.parts[0], cell=self.name).path

    @property
    def work(self) -> float:
        """Expected work in floating-point operations; what a step costs besides counts as a tenth of a full device."""
        return self.steps * self.flops * (len(self.rows) + self.fills / 10)

    @property
    def memory(self) -> int:
        """Bytes that it takes."""
        return self.weights * len(self.rows) + self.lockstep * min(len(self.rows), self.fills)


class Executor(Protocol):
    """Does jobs."""

    workers: int
    """How many it does at once."""
    nodes: int
    memory: float
    """Bytes that a worker has."""
    device: str

    def carry_out(self, jobs: Sequence[Job], done: "Callable[[Job, Saved], None]", overview: "Overview") -> None:
        """Do all jobs, in any order, and hand over what each gave; one that fails does not keep back the others.

        Raises:
            UserError: when a worker can't do it as it is set up.
            RunError: in the end, when a job has failed.
            KeyboardInterrupt: when the user wants it to stop.
        """


class InProcess:
    """Does one job after the other, here."""

    workers = nodes = 1
    memory = float("inf")

    def __init__(self, device: str = "cpu") -> None:
        self.device = device

    def carry_out(self, jobs: Sequence[Job], done: "Callable[[Job, Saved], None]", overview: "Overview") -> None:
        failed = None
        for job in jobs:
            try:
                saved = train_job(job, overview.watch(job))
            except UserError:
                raise
            except Exception as error:
                failed = RunError(f"{job.title} failed: {type(error).__name__}: {error}")
                overview.fail(job, failed)
            else:
                done(job, saved)
        if failed:
            raise failed


def spread(title: str, groups: Iterable[Sequence[Part]], lab: Lab, executor: Executor, console: "Console") -> None:
    """Train groups of parts ahead, each of which can be one population."""
    from mesocosm.lab.overview import Overview

    jobs = plan_jobs(groups, lab, executor)
    with Overview(title, jobs, console) as overview:
        train_ahead(jobs, executor, overview)


def train_ahead(jobs: Sequence[Job], executor: Executor, overview: "Overview") -> None:
    """Do what is not done yet; a cell's finished checkpoint is written as soon as all its replicas are there."""
    from mesocosm.lab.joining import own
    from mesocosm.training.history import merged, taken

    given: dict[tuple[Part, ...], dict[Job, Saved]] = defaultdict(dict)

    def settle(job: Job, saved: "Saved", again: bool = False) -> None:
        overview.finish(job, saved[1]["seconds"], again)
        if len(job.parts) > 1 or len(job.rows) < job.replicas:
            write_tensors(job.path, *saved)
        pieces = given[job.parts]
        pieces[job] = saved
        if sum(len(piece.rows) for piece in pieces) < job.replicas:
            return
        whole = merged([pieces[piece] for piece in sorted(pieces, key=lambda piece: piece.rows.start)])
        seconds = sum(facts["seconds"] for _, facts in pieces.values()) / job.replicas
        ends = accumulate((part.replicas for part in job.parts), initial=0)
        for part, rows in zip(job.parts, pairwise(ends)):
            tensors, facts = taken(whole, range(*rows))
            if len(job.parts) > 1:
                tensors, facts = own((tensors, facts))
            write_tensors(part.path, tensors, {**facts, "seconds": seconds * part.replicas})
        for piece in given.pop(job.parts):
            if piece.path not in {part.path for part in job.parts}:
                piece.path.unlink(missing_ok=True)

    waiting = []
    for job in jobs:
        kept = _kept(job.path, len(job.rows))
        if kept:
            settle(job, kept, again=True)
        else:
            waiting.append(job)
    executor.carry_out(sorted(waiting, key=lambda job: -job.work), settle, overview)


def train_job(job: Job, watcher: "Watcher | None" = None) -> "Saved":
    """Train a job's replicas, or go on with them; gives what a finished checkpoint of them holds.

    On the first Ctrl-C the job keeps a checkpoint, if it sees the run folder, and raises `KeyboardInterrupt`.
    """
    lab = laboratory(job)
    lab.progress = watcher
    with lab.interruptible():
        tensors, facts = lab.fit(cell_of(job.parts), job.rows, job.name).saved()
    return {name: tensor.cpu() for name, tensor in tensors.items()}, {**facts, "seconds": lab.seconds[job.name]}


def laboratory(job: Job) -> Lab:
    """Where a job is done: with the run folder if that can be seen from here."""
    request, folder = job.parts[0].request, job.parts[0].folder
    seen = (folder / "config.json").exists() and read_request(folder).identity() == request.identity()
    architecture = load_architecture(request.model) if request.model else None
    return Lab(
        folder if seen else None,
        device=job.device,
        compile=job.compile,
        stack=job.stack,
        precision=request.precision,
        architecture=architecture,
    )


def cell_of(parts: Sequence[Part]) -> Cell:
    """The cell that a part names, or several joined to one."""
    plans = {
        request: {cell.name: cell for cell in load_study(request.study).plan(request.config)}
        for request in {part.request for part in parts}
    }
    cells = [plans[part.request][part.cell] for part in parts]
    if len(cells) == 1:
        return cells[0]
    from mesocosm.lab.joining import join

    return join(cells)


def plan_jobs(groups: Iterable[Sequence[Part]], lab: Lab, executor: Executor) -> list[Job]:
    """Jobs for groups of parts, each of which can be one population: about as many as keep the workers busy.

    Args:
        lab: says how to train.
    """
    return cut([_job(tuple(group), lab, executor.device) for group in groups], executor)


def cut(wholes: Sequence[Job], executor: Executor) -> list[Job]:
    """Jobs of whole groups, in pieces that keep the executor's workers busy."""
    # Of twice as many jobs as workers, the last one to end keeps few waiting.
    few = executor.workers == 1
    share = float("inf") if few else sum(job.work for job in wholes) / (2 * executor.workers)
    return [piece for job in wholes for piece in _split(job, share, executor.memory)]


def _job(parts: tuple[Part, ...], lab: Lab, device: str) -> Job:
    """All replicas of the parts as one job."""
    from mesocosm.lab.cost import price
    from mesocosm.training.gradients import fitting

    first = cell_of(parts[:1])  # A step of the others costs as much.
    (cost,) = price(lab, [first], timed=False)
    flops = max(1.0, cost.flops / max(1, cost.steps * cost.replicas))
    fills = max(1, fitting(flops / first.accumulate, device))
    weights = 4 * cost.parameters
    return Job(
        parts,
        range(sum(part.replicas for part in parts)),
        cost.steps,
        flops,
        fills,
        weights,
        lockstep=max(0, cost.memory - weights * cost.replicas) // min(fills, cost.replicas),
        device=device,
        compile=lab.compile,
        stack=lab.stack,
    )


def ahead(request: Request, folder: Path) -> dict[Part, Cell]:
    """The cells of a run that can be trained ahead, done or not."""
    cells = [cell for cell in load_study(request.study).plan(request.config) if cell.complete]
    return {Part(request, folder.absolute(), cell.name, len(cell.seeds)): cell for cell in cells}


def unfinished(request: Request, folder: Path) -> list[Part]:
    """The cells of a run that can be trained ahead and are not yet."""
    return [part for part in ahead(request, folder) if not part.done]


def _kept(path: Path, replicas: int) -> "Saved | None":
    """What a finished training left there."""
    saved = read_tensors(path) if path.exists() else None
    return saved if saved and saved[1]["first"] >= replicas else None


def _split(job: Job, share: float, memory: float) -> list[Job]:
    """A job in pieces of about that share of work, but not in smaller ones than stacking makes fast and memory wants.

    What an earlier run began stays as it was cut then.
    """
    begun = [job.rows] if job.path.exists() else _begun(job)
    edges = sorted({0, job.replicas, *(edge for rows in begun for edge in (rows.start, rows.stop))})
    pieces = []
    for start, stop in pairwise(edges):
        whole = replace(job, rows=range(start, stop))
        count = min(round(whole.work / share), len(whole.rows) // min(STACKED, job.fills))
        count = 1 if whole.rows in begun else min(len(whole.rows), max(1, count, ceil(whole.memory / memory)))
        cuts = [start + len(whole.rows) * i // count for i in range(count + 1)]
        pieces += [replace(job, rows=range(*cut)) for cut in pairwise(cuts)]
    return pieces


def _begun(job: Job) -> list[range]:
    """Rows of which there are checkpoints."""
    before, _, after = replace(job, rows=range(0)).path.stem.rpartition("0_to_0")
    piece = re.compile(re.escape(before) + r"(\d+)_to_(\d+)" + re.escape(after))
    found = (piece.fullmatch(path.stem) for path in job.path.parent.glob("*.safetensors"))
    return [range(int(match[1]), int(match[2])) for match in found if match]

"""The one training loop: steps, batches, gradients, measurements and checkpoints; everything else is passed in."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from mesocosm.tasks.base import Task
from mesocosm.training import parallel
from mesocosm.training.accounting import COUNTED, Meter
from mesocosm.training.averaging import EMA
from mesocosm.training.gradients import part_of, plan
from mesocosm.training.growing import Growth
from mesocosm.training.history import History, Saved, under
from mesocosm.training.lockstep import Optimiser, Stack, step_of
from mesocosm.training.population import Population
from mesocosm.training.precision import mixed
from mesocosm.training.streams import Online

Measure = Callable[[Population, int], dict[str, Tensor]]
"""`measure(population, step)` gives numbers `[R]` by name; `population.index` says which replicas are asked for."""

TICK = 0.1
"""Seconds between two calls of an observer."""


class Observer(Protocol):
    """Watches a training from outside: progress, checkpoints, interruption."""

    def restore(self) -> Saved | None:
        """What an earlier `save` gave, to go on from."""

    def tick(self, step: int, fraction: float, alive: int, loss: float, save: Callable[[], Saved]) -> None:
        """Called some times a second between two steps, with the share of the whole that is done; may raise to stop."""


def train(
    population: Population,
    stream: Any,
    objective: Callable[..., Tensor],
    optimiser: Optimiser,
    *,
    steps: int,
    batch_size: int | None = None,
    accumulate: int = 1,
    schedule: Callable[[int], float] | None = None,
    clip: float | None = None,
    grow: Sequence[Growth] = (),
    average: EMA | None = None,
    measure: Measure | None = None,
    every: int | None = None,
    stop: Callable[[dict[str, Tensor]], Tensor] | None = None,
    stack: int | None = None,
    compile: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    observer: Observer | None = None,
) -> History:
    """Train every replica for `steps` steps; `population` holds the final weights afterwards.

    What grows ends as another population, `History.population`. Averaged weights are kept beside the weights, and
    `population.averaged()` has them, in measurements too.

    A replica whose loss or weights stop being finite is frozen and named in `History.diverged`; the others go on as if
    nothing had happened. `History.metrics["loss"]` is the mean training loss since the measurement before, and
    "flops" and "tokens" are what a replica's training has cost so far: floating-point operations of all forward and
    backward passes, a teacher's included and skipped layers not, and tokens read (samples where inputs are no tokens).

    Where `torchrun` started several processes, each takes its share of every batch (`training.parallel`).

    Args:
        stream: `stream(step, index, device)` gives the batch `[R, B, ...]` of the replicas at `index`; or a task,
            which is then sampled afresh at every step, `batch_size` samples a replica.
        objective: `objective(model, batch)` gives the loss of ONE replica.
        accumulate: parts in which a batch that is too large for memory is read, one after the other; gradients are of
            the whole batch to float tolerance, except where activations are dropped: each part drops others.
        schedule: factor of the learning rate after so many updates.
        clip: largest norm of a replica's gradient.
        grow: changes of the architecture on the way, in order of their steps.
        average: keeps an average of the weights for evaluation.
        measure: called at step 0, every `every` steps (a hundredth of `steps` by default) and at the end.
        stop: says from a measurement which replicas `[R]` are done; each is frozen there.
        stack: replicas in lockstep at once, planned where not given; changes speed and memory, never results.
        compile: compile the step by `torch.compile`; results agree to float tolerance.
        precision: of matrix products in training; weights, optimiser and measurements are float32 in any case.
    """
    if isinstance(stream, Task):
        if batch_size is None:
            raise ValueError("batch_size=None is not legal: a task needs a batch size, at least 1")
        stream = Online(stream, batch_size, population.seeds)
    if compile and parallel.processes() > 1:
        raise ValueError("compile=True is not legal on several processes: leave it out")
    if grow and population.sharded:
        raise ValueError("grow is not legal for sharded replicas: leave it out")
    if steps < 0:
        raise ValueError(f"steps={steps} is not legal: it must be at least 0")
    ages = _ages(population, grow, steps)
    if precision == "bfloat16":
        objective = mixed(objective, population.device)
    every = every or max(1, steps // 100)
    history = History(ages[-1], sorted({*range(0, steps, every), steps}))
    saved = observer.restore() if observer else None
    if saved is None:
        first_batch = stream(0, population.index[:2], population.device)
        samples = first_batch[0].shape[1]
        if not 1 <= accumulate <= samples:
            raise ValueError(
                f"accumulate={accumulate} is not legal: it must be from 1 to the {samples} samples of a step"
            )
        planned = plan(ages[-1], objective, part_of(first_batch, 0, accumulate))
        stack, first = (stack if stack and ages[-1].mappable else planned), 0
    else:
        stack, first = saved[1]["stack"], saved[1]["first"]
        history.restore(*saved)
    for age in ages:
        age.mappable, age.reason = ages[-1].mappable, ages[-1].reason
    draw, read = (stream.draw, stream.read) if isinstance(stream, Online) else (stream, lambda batch: batch)
    advances = [step_of(age, objective, optimiser, schedule, clip, average, compile, accumulate, read) for age in ages]
    meter = Meter(objective, stream, read, 2 if hasattr(optimiser, "ascend") else 1, accumulate)
    loop = _Loop(
        history, ages, list(grow), draw, optimiser, advances, meter, average, measure, every, stop, compile, observer
    )
    while first < len(population):
        rows = list(range(first, min(first + stack, len(population))))
        loop.run(rows, {"stack": stack, "first": first}, saved)
        first, saved = first + stack, None
    return history


def _ages(population: Population, grow: Sequence[Growth], steps: int) -> list[Population]:
    """The population at each size, untrained."""
    changes = [0, *(growth.step for growth in grow), steps]
    if grow and any(later <= earlier for earlier, later in pairwise(changes)):
        raise ValueError(f"grow at steps {changes[1:-1]} is not legal: they must rise between 0 and steps={steps}")
    ages = [population]
    for growth in grow:
        ages.append(Population(growth.make_model, population.seeds, str(population.device)))
        ages[-1].index, ages[-1].of = population.index, population.of
        growth.transfer(ages[-2].layout.views(ages[-2].theta), ages[-1].layout.views(ages[-1].theta))
    return ages


@dataclass
class _Loop:
    history: History
    ages: list[Population]
    grow: list[Growth]
    draw: Callable[..., Any]
    optimiser: Optimiser
    advances: list[Callable[[Stack, Any, int], Tensor]]
    meter: Meter
    average: EMA | None
    measure: Measure | None
    every: int
    stop: Callable[[dict[str, Tensor]], Tensor] | None
    compile: bool
    observer: Observer | None

    def run(self, rows: list[int], facts: dict[str, Any], saved: Saved | None) -> None:
        """Train the replicas at `rows` to the end, or until all of them are done."""
        device, total = self.history.population.device, self.history.steps[-1]
        if saved is None:
            stack, start = self._stack(rows), 0
            losses = torch.zeros(self.every, len(stack.population), device=device)
        else:
            stack, losses, start = self._restore(*saved)
        next_tick = time.monotonic()
        since = max(start - 1, 0) // self.every * self.every
        for step in range(start, total + 1):
            if step == 0 or step == total or step == since + self.every:
                began = time.perf_counter()
                done = self._evaluate(stack, losses[: step - since], step)
                self.history.seconds["measuring"] += time.perf_counter() - began
                since = step
                if done.any():
                    self._retire(stack, done)
                    if not stack.live:
                        return
                    # Compiled code is kept until half of its work would be idle.
                    if not self.compile or 2 * len(stack.live) <= len(stack.rows):
                        stack = self._compact(stack)
                        losses = torch.zeros(self.every, len(stack.population), device=device)
            if step == total:
                break
            if stack.age < len(self.grow) and step == self.grow[stack.age].step:
                stack = self._grow(stack)
            began = time.perf_counter()
            batch = self.draw(step, stack.population.index, device)
            drawn = time.perf_counter()
            stack.spent += self.meter.step(stack.population, batch, step)
            losses[step - since] = self.advances[stack.age](stack, batch, step)
            self.history.seconds["sampling"] += drawn - began
            self.history.seconds["step"] += time.perf_counter() - drawn
            due = time.monotonic() >= next_tick
            if self.observer and (parallel.agreed(due) if stack.population.sharded else due):
                done_before = facts["first"] * total + (step + 1) * len(rows)
                self.observer.tick(
                    step + 1,
                    done_before / (total * len(self.history.population)),
                    len(stack.live),
                    losses[step - since, stack.live].nanmean().item(),
                    partial(self._save, stack, losses, {**facts, "step": step + 1}),
                )
                next_tick = time.monotonic() + TICK
        self._write_back(stack)

    def _stack(self, rows: list[int], live: list[int] | None = None, age: int = 0) -> Stack:
        whole = self.ages[age]
        padded = self._padded(rows)
        population = whole.select(padded)
        columns = self.optimiser.columns(whole.of, whole.device)
        columns = {name: column[population.index] for name, column in columns.items()}
        state = self.optimiser.init(population.theta)
        if self.average:
            state["average"] = population.theta.clone()
        live, spent = list(range(len(rows))) if live is None else live, torch.zeros(len(padded), 2).double()
        return Stack(population, rows, live, state, columns, age, spent)

    def _grow(self, stack: Stack) -> Stack:
        """The stack one age on, with weights and optimiser state taken over."""
        larger = self._stack(stack.rows, stack.live, stack.age + 1)
        old, new = stack.population.layout, larger.population.layout
        growth = self.grow[stack.age]
        transfer = growth.transfer
        transfer(old.views(stack.population.theta), new.views(larger.population.theta))
        transfer(stack.population.state, larger.population.state)
        for name, memory in larger.state.items():
            if growth.carry or name == "average":
                transfer(old.views(stack.state[name]), new.views(memory))
        larger.spent = stack.spent
        return larger

    def _evaluate(self, stack: Stack, losses: Tensor, step: int) -> Tensor:
        """Record a measurement of the live replicas; which of them are done, `[R]`."""
        live, population = stack.live, stack.population
        bad = ~losses[:, live].isfinite()
        finite = population.layout.norms(population.theta[live], torch.inf).isfinite()[:, 0]
        broken = (bad.any(0) | ~finite).cpu()
        for i in broken.nonzero().flatten().tolist():
            self.history.diverged[stack.rows[live[i]]] = step - len(losses) + int((~bad[:, i]).long().cumprod(0).sum())
        population.average = stack.state.get("average")
        values = {n: v[live] for n, v in self.measure(population, step).items()} if self.measure else {}
        done = broken | (self.stop(values).cpu() if self.stop else torch.zeros(len(live), dtype=torch.bool))
        if len(losses):
            values = {"loss": losses[:, live].double().mean(0), **values}
        values |= dict(zip(COUNTED, stack.spent[live].unbind(1)))
        values = {n: v.detach().double().cpu().masked_fill(broken, torch.nan) for n, v in values.items()}
        self.history.add(step, stack.live_rows(), values)
        return done

    def _write_back(self, stack: Stack) -> None:
        """Put the live replicas' weights, grown to the last size, into the history."""
        while stack.age < len(self.grow):
            stack = self._grow(stack)
        whole, rows = self.history.population, stack.live_rows()
        whole.theta[rows] = stack.population.theta[stack.live]
        for name, value in stack.population.state.items():
            whole.state[name][rows] = value[stack.live]
        if self.average:
            whole.average = whole.theta.clone() if whole.average is None else whole.average
            whole.average[rows] = stack.state["average"][stack.live]

    def _retire(self, stack: Stack, done: Tensor) -> None:
        """Freeze the live replicas for which `done` holds."""
        self._write_back(stack)
        stack.live = [place for place, gone in zip(stack.live, done.tolist()) if not gone]

    def _compact(self, stack: Stack) -> Stack:
        places, rows = self._padded(stack.live), stack.live_rows()
        state, columns = ({n: t[places] for n, t in ts.items()} for ts in (stack.state, stack.columns))
        population, live = stack.population.select(places), list(range(len(rows)))
        return Stack(population, rows, live, state, columns, stack.age, stack.spent[places])

    def _padded(self, rows: list[int]) -> list[int]:
        # A lone replica gets an idle twin: kernels for one differ in the last bits from those for many.
        return rows * 2 if self.history.population.mappable and len(rows) == 1 else rows

    def _save(self, stack: Stack, losses: Tensor, facts: dict[str, Any]) -> Saved:
        tensors, finished = self.history.saved()
        rows = {"theta": stack.population.theta} | {f"optimiser.{n}": t for n, t in stack.state.items()}
        tensors |= {n: stack.population.layout.gathered(t) for n, t in rows.items()}
        tensors |= {"losses": losses, "spent": stack.spent}
        tensors |= {f"state.{n}": t for n, t in stack.population.state.items()}
        return tensors, {**finished, **facts, "rows": stack.rows, "live": stack.live, "age": stack.age}

    def _restore(self, tensors: dict[str, Tensor], facts: dict[str, Any]) -> tuple[Stack, Tensor, int]:
        device = self.history.population.device
        stack = self._stack(facts["rows"], facts["live"], facts["age"])
        # An idle twin stays behind when the training goes on sharded.
        places, layout = len(stack.population), stack.population.layout
        stack.population.theta = layout.scattered(tensors["theta"][:places]).to(device)
        stack.population.state = {n: t[:places] for n, t in under("state.", tensors, device).items()}
        rows = under("optimiser.", tensors, "cpu")
        stack.state = {n: layout.scattered(t[:places]).to(device) for n, t in rows.items()}
        stack.spent = tensors["spent"][:places].clone()
        return stack, tensors["losses"][:, :places].to(device), facts["step"]

"""The same work in mesocosm, in an ordinary PyTorch loop, in JAX and in loops shaped as published ones.

    python benchmarks/field.py [--settings parity transformer] [--replicas 1 8 64] [--threads 2] [--blocks 5]
    python benchmarks/field.py --device cuda --precision bfloat16 --settings transformer gpt2

Each variant is the main program of a process of its own, and they take turns, block after block; ratios to the
ordinary loop are taken within a block, and medians over blocks come with the smallest and largest. Architecture,
batch, optimiser and the share of fresh samples are equal within a setting. On a busy machine the ratios of CPU time
with `--threads 1` are the ones to read.

Beside each stand the arithmetic of matrix products as a share of the peak measured in the same minutes, and the least
traffic (weights, gradients, optimiser state and activations, each moved as often as it must be) as a share of the
bandwidth of a copy of 256 MB. The stand-ins, all of them fresh code:

- parity-wide: ProgressiveDistillation's parity script. All examples in memory behind a DataLoader, a loss read a step.
- markov: the induction heads of Edelman et al., whose relative attention gathers a table `[T, T, D]`, with dropout, a
  loss read a step and a copy of the model every 10 steps.
- zoology: the basic MHA of HazyResearch/zoology. Examples in memory behind a DataLoader, a loss read and logged a step.
"""

import argparse
import importlib.util
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import torch
from field_scripts import GatheringTransformer, loaded
from settings import GPT2, MARKOV, PARITY, PARITY_WIDE, TRANSFORMER, ZOOLOGY, Setting, operations, traffic

from mesocosm.seeding import generator
from mesocosm.training import Online, Population, train


@dataclass
class Field:
    setting: Setting
    replicas: int
    replica_steps: int
    """Of one turn, about."""
    jax: bool = False
    standin: Callable[[Setting, str], Callable[[], None]] | None = None


FIELDS = {
    "parity": Field(PARITY, 64, 4096, jax=True),
    "transformer": Field(TRANSFORMER, 8, 64, jax=True),
    "parity-wide": Field(PARITY_WIDE, 16, 512, standin=loaded),
    "markov": Field(
        MARKOV,
        8,
        16,
        standin=lambda setting, device: loaded(setting, device, GatheringTransformer(2, 100, 16), copies=10),
    ),
    "zoology": Field(ZOOLOGY, 1, 8, standin=loaded),
    "gpt2": Field(GPT2, 1, 4),
}


class Turn(NamedTuple):
    """What one turn of a variant took."""

    replica_steps: int
    seconds: float
    cpu_seconds: float
    sampling: float
    """Seconds."""
    memory: int
    """Most bytes that tensors on the GPU have held so far."""


class Turns:
    """A variant's end of the line: it waits for its turn, works, and tells what that took."""

    def __init__(self, line: Connection, device: str) -> None:
        self.line, self.device = line, device

    def wait(self) -> None:
        self.line.recv()
        self.began = time.perf_counter(), time.process_time()

    def tell(self, replica_steps: int, sampling: float = 0.0) -> None:
        memory = 0
        if self.device == "cuda":
            torch.cuda.synchronize()
            memory = torch.cuda.max_memory_allocated()
        seconds, cpu = time.perf_counter() - self.began[0], time.process_time() - self.began[1]
        self.line.send(Turn(replica_steps, seconds, cpu, sampling, memory))


def repeated(step: Callable[[], None], count: int, turns: Turns) -> None:
    while True:
        turns.wait()
        for _ in range(count):
            step()
        turns.tell(count)


def ordinary(at: Field, given: argparse.Namespace, turns: Turns) -> None:
    setting, device = at.setting, given.device
    model, stream = setting.make().to(device), generator(0, "benchmark")
    optimiser = setting.plain_optimiser(model.parameters())
    mixed = given.precision == "bfloat16"

    def step() -> None:
        batch = setting.task.sample(setting.batch_size, stream)
        optimiser.zero_grad()
        with torch.autocast(device, torch.bfloat16) if mixed else nullcontext():
            loss = setting.objective(model, batch._make(part.to(device) for part in batch))
        loss.backward()
        optimiser.step()

    repeated(step, max(1, at.replica_steps // 10), turns)


def standin(at: Field, given: argparse.Namespace, turns: Turns) -> None:
    assert at.standin
    repeated(at.standin(at.setting, given.device), max(1, at.replica_steps // 10), turns)


class Timed(Online):
    """A stream that adds up the seconds it takes."""

    seconds = 0.0

    def draw(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        drawn = super().draw(*arguments)
        self.seconds += time.perf_counter() - began
        return drawn


def population(at: Field, given: argparse.Namespace, turns: Turns, compile: bool = False) -> None:
    setting, replicas = at.setting, at.replicas
    stream = Timed(setting.task, setting.batch_size, range(replicas))
    # Whole chunks of samples in every turn.
    every = -(-max(1, at.replica_steps // replicas) // stream.chunk) * stream.chunk if replicas > 8 else 8

    def turn(stack: Population, step: int) -> dict:
        if step:
            # Replicas whose step fills the device are trained one after the other.
            turns.tell(every * min(len(stack), replicas), stream.seconds)
        turns.wait()
        stream.seconds = 0.0
        return {}

    train(
        Population(setting.make, range(replicas), given.device),
        stream,
        setting.objective,
        setting.optimiser,
        steps=1000 * every,
        every=every,
        measure=turn,
        stack=replicas,
        compile=compile,
        precision=given.precision,
    )


def compiled(at: Field, given: argparse.Namespace, turns: Turns) -> None:
    population(at, given, turns, compile=True)


def jax(at: Field, given: argparse.Namespace, turns: Turns) -> None:
    """JAX's version, which must give the losses of PyTorch's on the same weights and batch."""
    import field_jax

    setting, replicas = at.setting, at.replicas
    loss, sample, update = field_jax.PARTS[setting.name]
    models = Population(setting.make, range(replicas))
    weights = field_jax.from_torch(models.weights())
    batch = Online(setting.task, setting.batch_size, range(replicas))(0, range(replicas), models.device)
    theirs = torch.tensor(field_jax.losses(loss, weights, batch))
    torch.testing.assert_close(theirs, models.map(setting.objective, batch), rtol=1e-5, atol=1e-5)
    steps = max(8, at.replica_steps // replicas)
    run = field_jax.trainer(loss, sample, update, steps)
    memory, keys, step = field_jax.zeros(weights), field_jax.keys(replicas), 0
    while True:
        turns.wait()
        weights, memory, losses = run(weights, memory, keys, step)
        losses.block_until_ready()
        step += steps
        turns.tell(steps * replicas)


def serve(line: Connection, name: str, variant: Callable, given: argparse.Namespace) -> None:
    """A variant's process."""
    hold(given.threads)
    variant(field_of(name, given), given, Turns(line, given.device))


def hold(threads: int) -> None:
    """Stay on so many cores: JAX takes as many threads as there are cores for it."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)


def field_of(name: str, given: argparse.Namespace) -> Field:
    field = FIELDS[name]
    field.replicas = given.at or field.replicas
    return field


def limits(device: str, precision: str) -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second of a large copy, at their best."""
    size = 1024 if device == "cpu" else 8192
    a, source = torch.randn(size, size, device=device, dtype=getattr(torch, precision)), torch.randn(1 << 26)
    source = source.to(device)
    target = torch.empty_like(source)

    def fastest(work: Callable[[], Any]) -> float:
        seconds = []
        for _ in range(10):
            began = time.perf_counter()
            work()
            if device == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    return 2 * size**3 / fastest(lambda: a @ a), 2 * source.nbytes / fastest(lambda: target.copy_(source))


def variants(at: Field, given: argparse.Namespace) -> dict[str, Callable]:
    found = {"ordinary loop": ordinary, "stand-in": standin, "population": population, "compiled": compiled, "jax": jax}
    leave = {
        "stand-in": not at.standin,
        "compiled": given.no_compile,
        "jax": not at.jax or given.precision != "float32",
    }
    if at.jax and not importlib.util.find_spec("jax"):
        print("JAX is not installed: its row is left out")
        leave["jax"] = True
    return {name: variant for name, variant in found.items() if not leave.get(name)}


def measured(name: str, given: argparse.Namespace) -> dict[str, list[Turn]]:
    """The turns of every variant, block by block; the first block warms up, compiles, and does not count."""
    context = multiprocessing.get_context("spawn")
    lines, processes = {}, []
    for variant, work in variants(FIELDS[name], given).items():
        lines[variant], end = context.Pipe()
        processes.append(context.Process(target=serve, args=(end, name, work, given), daemon=True))
        processes[-1].start()
        end.close()
    rows: dict[str, list[Turn]] = {variant: [] for variant in lines}
    try:
        for _ in range(given.blocks + 1):
            for variant, line in lines.items():
                line.send(None)
                rows[variant].append(line.recv())
    except EOFError:
        raise SystemExit(f"{variant} has failed: its message is above") from None
    finally:
        for process in processes:
            process.terminate()
    return {variant: turns[1:] for variant, turns in rows.items()}


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def compare(name: str, given: argparse.Namespace) -> None:
    at = field_of(name, given)
    best, bandwidth = limits(given.device, given.precision)
    flops, moved = operations(at.setting), traffic(at.setting)
    tokens = at.setting.batch_size * at.setting.task.input_shape[0] if at.setting is not PARITY else 0
    print(f"\n{at.setting.name}; R = {at.replicas}; {flops / 1e6:.3g} MFLOP and at least {moved / 1e3:,.0f} kB a step")
    print(f"{given.threads} threads, {given.device}, {given.precision}; ", end="")
    print(f"{best / 1e9:,.0f} GFLOP/s, {bandwidth / 1e9:,.1f} GB/s")
    print(f"{'':14} {'us/replica-step':>26} {'CPU us':>26} {'x by clock':>20} {'x by CPU':>20} peak  copy sampling")
    rows = measured(name, given)
    for variant, turns in rows.items():
        clock, cpu = ([1e6 * turn[i] / turn.replica_steps for turn in turns] for i in (1, 2))
        first = rows["ordinary loop"]
        by_clock, by_cpu = (
            [own.replica_steps / own[i] * base[i] / base.replica_steps for own, base in zip(turns, first)]
            for i in (1, 2)
        )
        rate = 1e6 / statistics.median(clock)
        sampling = statistics.median(turn.sampling / turn.seconds for turn in turns)
        memory = f" {turns[-1].memory / 1e6:,.0f} MB" if given.device == "cuda" else ""
        print(
            f"{variant:14} {spread(clock, '.4g'):>26} {spread(cpu, '.4g'):>26} {spread(by_clock, '.3g'):>20} "
            f"{spread(by_cpu, '.3g'):>20} {100 * rate * flops / best:3.0f}% {100 * rate * moved / bandwidth:4.0f}% "
            f"{100 * sampling:6.1f}%{memory}" + (f" {rate * tokens:,.0f} tokens/s" if tokens else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--settings", nargs="*", choices=FIELDS, default=[n for n in FIELDS if n != "gpt2"])
    parser.add_argument("--replicas", type=int, nargs="*", default=[0], help="where not the setting's own number")
    parser.add_argument("--blocks", type=int, default=5, help="measured blocks (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled population out")
    given = parser.parse_args()
    hold(given.threads)
    for name in given.settings:
        for replicas in given.replicas:
            given.at = replicas
            compare(name, given)


if __name__ == "__main__":
    main()

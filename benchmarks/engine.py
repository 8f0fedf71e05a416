"""Replica-steps per second of an ordinary PyTorch loop, the population and the compiled population, side by side.

    python benchmarks/engine.py [--blocks 5] [--replicas 1 8 64 512] [--no-compile]

One process measures all variants in turn, block after block, and reports medians over blocks with the smallest and
largest; ratios are taken within a block, so that they hold when the machine's speed drifts. Every step draws fresh
samples.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mesocosm.models import MLP, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import FlipFlop, SparseParity
from mesocosm.tasks.base import Task
from mesocosm.training import SGD, AdamW, Population, cross_entropy, hinge, train
from mesocosm.training.streams import Online


@dataclass
class Setting:
    name: str
    task: Task
    make: Callable[[], nn.Module]
    objective: Callable
    optimiser: object
    plain_optimiser: Callable
    batch_size: int


PARITY = Setting(
    "parity MLP 50-100-1, batch 32, SGD",
    SparseParity(n=50, k=3),
    lambda: MLP.for_task(PARITY.task, hidden=(100,)),
    hinge,
    SGD(0.1, weight_decay=0.01),
    lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=0.01),
    32,
)
TRANSFORMER = Setting(
    "transformer 2 layers, width 64, 16 x 63 tokens, AdamW",
    FlipFlop(length=64),
    lambda: Transformer.for_task(TRANSFORMER.task, d_model=64, n_heads=4, n_layers=2),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.1),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    16,
)


def ordinary(setting: Setting, seconds: float) -> float:
    """Steps per second of one model in an ordinary loop."""
    model, stream = setting.make(), generator(0, "benchmark")
    optimiser = setting.plain_optimiser(model.parameters())

    def step() -> None:
        batch = setting.task.sample(setting.batch_size, stream)
        optimiser.zero_grad()
        setting.objective(model, batch).backward()
        optimiser.step()

    for _ in range(5):
        step()
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        count += 1
    return count / (time.perf_counter() - began)


class Timed:
    """A stream that adds up the time it takes."""

    def __init__(self, stream: Online) -> None:
        self.stream, self.seconds = stream, 0.0

    def __call__(self, *arguments):
        began = time.perf_counter()
        batch = self.stream(*arguments)
        self.seconds += time.perf_counter() - began
        return batch


def population(setting: Setting, replicas: int, seconds: float, rate: float, compile: bool) -> tuple[float, float]:
    """Replica-steps per second, and the share of the time spent in sampling.

    `rate` is a guess of it, from which the number of steps follows.
    """
    many = Population(setting.make, range(replicas))
    stream = Timed(Online(setting.task, setting.batch_size, range(replicas)))
    every = max(32, int(seconds * rate / replicas) // 32 * 32)
    marks = []

    def mark(population: Population, step: int) -> dict:
        marks.append((time.perf_counter(), stream.seconds))
        return {}

    # The first span of each stack warms up, and of the first stack compiles; the second is measured.
    train(
        many, stream, setting.objective, setting.optimiser, steps=2 * every, every=every, measure=mark, compile=compile
    )
    spans = [(after[0] - before[0], after[1] - before[1]) for before, after in zip(marks[1::3], marks[2::3])]
    elapsed, sampled = (sum(column) for column in zip(*spans))
    return every * replicas / elapsed, sampled / elapsed


def operations(setting: Setting) -> int:
    """Floating-point operations of the matrix products of one replica's step."""
    model, batch = setting.make(), setting.task.sample(setting.batch_size, generator(0))
    with FlopCounterMode(display=False) as counter:
        setting.objective(model, batch).backward()
    return counter.get_total_flops()


def peak() -> float:
    """Measured operations per second of a large matrix product."""
    a, times = torch.randn(1024, 1024), []
    for _ in range(12):
        began = time.perf_counter()
        a @ a
        times.append(time.perf_counter() - began)
    return 2 * 1024**3 / min(times)


def spread(values: list[float], form: str) -> str:
    return f"{statistics.median(values):{form}} [{min(values):{form}}, {max(values):{form}}]"


def compare(setting: Setting, counts: list[int], blocks: int, seconds: float, compiled: bool) -> None:
    best, flops = peak(), operations(setting)
    threads = torch.get_num_threads()
    print(f"\n{setting.name}; {flops / 1e6:.3g} MFLOP a replica-step; {threads} threads; peak {best / 1e9:.0f} GFLOP/s")
    print(f"{'R':>4} {'':9} {'replica-steps/s':>28} {'x ordinary loop':>22} {'sampling':>9} {'of peak':>8}")
    for replicas in counts:
        modes = [False, True] if compiled else [False]
        rows: dict[str, list[tuple[float, float, float]]] = {}
        guess = dict.fromkeys(modes, 0.0)
        for _ in range(blocks):
            plain = ordinary(setting, seconds)
            rows.setdefault("ordinary", []).append((plain, 1.0, 0.0))
            for mode in modes:
                rate, share = population(setting, replicas, seconds, guess[mode] or plain, mode)
                guess[mode] = rate
                rows.setdefault("compiled" if mode else "eager", []).append((rate, rate / plain, share))
        for name, block in rows.items():
            rates, ratios, shares = (list(column) for column in zip(*block))
            sampled = f"{100 * statistics.median(shares):8.1f}%" if name != "ordinary" else f"{'':>9}"
            fraction = f"{100 * statistics.median(rates) * flops / best:7.1f}%"
            print(f"{replicas:4} {name:9} {spread(rates, ',.0f'):>28} {spread(ratios, '.2f'):>22} {sampled} {fraction}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--blocks", type=int, default=5, help="measured blocks (default 5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="length of a measurement (default 1)")
    parser.add_argument("--replicas", type=int, nargs="*", default=[1, 8, 64, 512], help="of the parity MLP")
    parser.add_argument("--transformers", type=int, nargs="*", default=[1, 8], help="replicas of the transformer")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled population out")
    given = parser.parse_args()
    for setting, counts in ((PARITY, given.replicas), (TRANSFORMER, given.transformers)):
        if counts:
            compare(setting, counts, given.blocks, given.seconds, not given.no_compile)


if __name__ == "__main__":
    main()

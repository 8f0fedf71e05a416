"""The same work in mesocosm, in an ordinary PyTorch loop, in JAX and in loops shaped as published ones.

    python benchmarks/field.py [--settings parity transformer] [--threads 2] [--device cpu] [--blocks 5]

One process measures all variants in turn, block after block; ratios to the first variant are taken within a block, and
medians over blocks come with the smallest and largest. Architecture, batch, optimiser and the share of fresh samples
are equal within a setting. On a busy machine the ratios of CPU time with `--threads 1` are the ones to read.

Beside each stand the arithmetic of matrix products as a share of the peak measured in the same process, and the least
traffic (weights, gradients, optimiser state and activations, each moved as often as it must be) as a share of the
bandwidth of a copy of 256 MB. The stand-ins, all of them fresh code:

- parity-wide: ProgressiveDistillation's parity script. All examples in memory behind a DataLoader, a loss read a step.
- markov: the induction heads of Edelman et al., whose relative attention gathers a table `[T, T, D]`, with dropout, a
  loss read a step and a copy of the model every 10 steps.
- zoology: the basic MHA of HazyResearch/zoology. Examples in memory behind a DataLoader, a loss read and logged a step.
"""

import argparse
import os
import queue
import statistics
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from engine import PARITY, TRANSFORMER, Setting, operations, spread
from field_scripts import GatheringTransformer, loaded
from torch import Tensor

from mesocosm.models import MLP, Transformer
from mesocosm.seeding import generator
from mesocosm.tasks import MarkovChains, SparseParity
from mesocosm.tasks.base import Task
from mesocosm.training import SGD, AdamW, Online, Population, cross_entropy, hinge, train

Span = Callable[[], int]
"""Steps on for a while; gives the replica-steps that it took."""


@dataclass
class Field:
    setting: Setting
    replicas: int
    steps: int
    """Of a population in one span; a single model takes as many, or a tenth of the replica-steps."""
    jax: str | None = None
    standin: Callable[[Setting, str], Callable[[], None]] | None = None


def ordinary(setting: Setting, device: str) -> Callable[[], None]:
    model, stream = setting.make().to(device), generator(0, "benchmark")
    optimiser = setting.plain_optimiser(model.parameters())

    def step() -> None:
        batch = setting.task.sample(setting.batch_size, stream)
        optimiser.zero_grad()
        setting.objective(model, batch._make(part.to(device) for part in batch)).backward()
        optimiser.step()

    return step


def repeated(step: Callable[[], None], steps: int) -> Span:
    def span() -> int:
        for _ in range(steps):
            step()
        return steps

    return span


class Trained:
    """`train` on a thread of its own, which goes on for a span whenever it is asked to."""

    def __init__(self, at: Field, device: str, compile: bool) -> None:
        self.at, self.device, self.compile = at, device, compile
        self.turns: queue.Queue = queue.Queue()
        self.done: queue.Queue = queue.Queue()
        self.seconds, self.together = 0.0, 0
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._train()
        except Exception as error:
            self.done.put(error)

    def _train(self) -> None:
        setting, replicas = self.at.setting, self.at.replicas
        online = Online(setting.task, setting.batch_size, range(replicas))

        def stream(*arguments: Any) -> Any:
            began = time.perf_counter()
            batch = online(*arguments)
            self.seconds += time.perf_counter() - began
            return batch

        def pause(population: Population, step: int) -> dict:
            if step:
                self.done.put(None)
            # Replicas whose step fills the device are trained one after the other.
            self.together = min(len(population), replicas)
            self.turns.get()
            self.seconds = 0.0
            return {}

        train(
            Population(setting.make, range(replicas), self.device),
            stream,
            setting.objective,
            setting.optimiser,
            steps=1000 * self.at.steps,
            every=self.at.steps,
            measure=pause,
            stack=replicas,
            compile=self.compile,
        )

    def __call__(self) -> int:
        self.turns.put(None)
        error = self.done.get()
        if error:
            raise error
        return self.at.steps * self.together


class Jax:
    """JAX's version, which must give the losses of PyTorch's on the same weights and batch."""

    def __init__(self, at: Field) -> None:
        import field_jax

        self.at = at
        setting, replicas = at.setting, at.replicas
        loss, sample, update = field_jax.PARTS[at.jax]
        population = Population(setting.make, range(replicas))
        self.weights = field_jax.from_torch(population.weights())
        batch = Online(setting.task, setting.batch_size, range(replicas))(0, range(replicas), population.device)
        ours = population.map(setting.objective, batch)
        theirs = field_jax.losses(loss, self.weights, batch)
        torch.testing.assert_close(torch.tensor(theirs), ours, rtol=1e-5, atol=1e-5)
        self.run = field_jax.trainer(loss, sample, update, at.steps)
        self.memory, self.keys, self.step = field_jax.zeros(self.weights), field_jax.keys(replicas), 0

    def __call__(self) -> int:
        self.weights, self.memory, losses = self.run(self.weights, self.memory, self.keys, self.step)
        losses.block_until_ready()
        self.step += self.at.steps
        return self.at.steps * self.at.replicas


def traffic(setting: Setting) -> float:
    """Least bytes that a replica-step moves through memory, from shapes.

    Weights are read forward, backward and by the update, and written; gradients written and read; what the optimiser
    remembers read and written; inputs written and read twice; what layers put out written, read and its gradient
    written and read.
    """
    model, batch = setting.make(), setting.task.sample(setting.batch_size, generator(0))
    weights = sum(p.numel() for p in model.parameters())
    outputs: list[int] = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda module, inputs, output: outputs.append(output.numel()))
    with torch.no_grad():
        model(batch.inputs)
    memory = len(setting.optimiser.init(torch.zeros(1, 1)))
    return 4 * (weights * (6 + 2 * memory) + 3 * batch.inputs.numel() + 4 * sum(outputs))


def fastest(work: Callable[[], Any], device: str, times: int = 10) -> float:
    """Seconds of `work` at its best."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    seconds = []
    for _ in range(times):
        wait()
        began = time.perf_counter()
        work()
        wait()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


def limits(device: str) -> tuple[float, float]:
    """Operations a second of a large matrix product, and bytes a second of a large copy, as measured."""
    size = 1024 if device == "cpu" else 8192
    a, source = torch.randn(size, size, device=device), torch.randn(1 << 26, device=device)
    target = torch.empty_like(source)
    return 2 * size**3 / fastest(lambda: a @ a, device), 2 * source.nbytes / fastest(
        lambda: target.copy_(source), device
    )


def variants(at: Field, device: str, compiled: bool) -> dict[str, Span]:
    alone = max(at.steps, at.steps * at.replicas // 10)
    found: dict[str, Span] = {"ordinary loop": repeated(ordinary(at.setting, device), alone)}
    if at.standin:
        found["stand-in"] = repeated(at.standin(at.setting, device), alone)
    found["population"] = Trained(at, device, compile=False)
    if compiled:
        found["compiled"] = Trained(at, device, compile=True)
    if at.jax:
        try:
            found["jax"] = Jax(at)
        except ImportError:
            print("JAX is not installed: its row is left out")
    return found


def compare(name: str, at: Field, given: argparse.Namespace) -> None:
    best, bandwidth = limits(given.device)
    flops, moved = operations(at.setting), traffic(at.setting)
    print(
        f"\n{at.setting.name}; R = {at.replicas}; {flops / 1e6:.3g} MFLOP and at least {moved / 1e3:,.0f} kB a ", end=""
    )
    print(f"replica-step; {given.threads} threads, {best / 1e9:.0f} GFLOP/s, {bandwidth / 1e9:.1f} GB/s")
    print(f"{'':14} {'us/replica-step':>26} {'CPU us':>26} {'x by clock':>20} {'x by CPU':>20} peak  copy  sampling")
    spans = variants(at, given.device, not given.no_compile)
    rows: dict[str, list[tuple[float, float]]] = {variant: [] for variant in spans}
    shares: dict[str, list[float]] = {variant: [] for variant in spans}
    for block in range(given.blocks + 1):
        for variant, span in spans.items():
            began, cpu = time.perf_counter(), time.process_time()
            count = span()
            if given.device == "cuda":
                torch.cuda.synchronize()
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            if block:  # The first one warms up and compiles.
                rows[variant].append((1e6 * seconds / count, 1e6 * cpu / count))
                shares[variant].append(span.seconds / seconds if isinstance(span, Trained) else 0.0)
    for variant, times in rows.items():
        clock, cpu = zip(*times)
        by_clock, by_cpu = ([first[i] / own[i] for first, own in zip(rows["ordinary loop"], times)] for i in range(2))
        rate = 1e6 / statistics.median(clock)
        print(
            f"{variant:14} {spread(list(clock), '.4g'):>26} {spread(list(cpu), '.4g'):>26} "
            f"{spread(by_clock, '.3g'):>20} {spread(by_cpu, '.3g'):>20} {100 * rate * flops / best:3.0f}% "
            f"{100 * rate * moved / bandwidth:4.0f}% {100 * statistics.median(shares[variant]):6.1f}%"
        )


WIDE = Setting(
    "parity MLP 100-1000-1, batch 32, SGD",
    SparseParity(n=100, k=6),
    lambda: MLP.for_task(WIDE.task, hidden=(1000,)),
    hinge,
    SGD(0.01),
    lambda parameters: torch.optim.SGD(parameters, lr=0.01),
    32,
)
MARKOV = Setting(
    "attention-only transformer, 2 layers, width 16, relative positions, dropout, 64 x 100 symbols, AdamW",
    MarkovChains(symbols=2, length=100),
    lambda: Transformer.for_task(
        MARKOV.task,
        d_model=16,
        n_heads=1,
        d_mlp=0,
        positions="relative",
        dropout=0.1,
        attention_dropout=0.1,
        embedding_dropout=0.1,
    ),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.1),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1),
    64,
)


class TokenBatch(NamedTuple):
    inputs: Tensor
    targets: Tensor
    weights: Tensor


@dataclass(frozen=True, kw_only=True)
class Tokens(Task):
    """Uniform tokens, in the shape of zoology's multi-query recall."""

    input_shape = (64,)
    output_shape = (64, 256)
    tokens = tuple(map(str, range(256)))

    def sample(self, size: int, generator: torch.Generator) -> TokenBatch:
        inputs = torch.randint(256, (size, 64), generator=generator)
        return TokenBatch(inputs, inputs.flip(1), torch.ones(size, 64))


ZOOLOGY = Setting(
    "transformer 2 layers, width 128, one head, 32 x 64 tokens of 256, AdamW",
    Tokens(),
    lambda: Transformer(d_vocab=256, max_length=64, d_model=128, n_heads=1, n_layers=2, tied=True),
    cross_entropy,
    AdamW(1e-3, weight_decay=0.01),
    lambda parameters: torch.optim.AdamW(parameters, lr=1e-3),
    32,
)
FIELDS = {
    "parity": Field(PARITY, 64, 64, jax="parity"),
    "transformer": Field(TRANSFORMER, 8, 8, jax="transformer"),
    "parity-wide": Field(WIDE, 16, 32, standin=loaded),
    "markov": Field(
        MARKOV,
        8,
        2,
        standin=lambda setting, device: loaded(setting, device, GatheringTransformer(2, 100, 16), copies=10),
    ),
    "zoology": Field(ZOOLOGY, 1, 8, standin=loaded),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--settings", nargs="*", choices=FIELDS, default=list(FIELDS))
    parser.add_argument("--replicas", type=int, help="replicas of a population, where not the setting's own number")
    parser.add_argument("--blocks", type=int, default=5, help="measured blocks (default 5)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--no-compile", action="store_true", help="leave the compiled population out")
    given = parser.parse_args()
    # JAX takes as many threads as there are cores for it.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.threads])
    torch.set_num_threads(given.threads)
    for name in given.settings:
        at = FIELDS[name]
        at.replicas = given.replicas or at.replicas
        compare(name, at, given)


if __name__ == "__main__":
    main()

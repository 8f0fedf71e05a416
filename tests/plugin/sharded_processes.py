"""What processes that share replicas do together, in a module that all can import."""

import gc
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from mesocosm.lab.files import read_tensors, write_tensors
from mesocosm.lab.lab import Lab
from mesocosm.models import Transformer
from mesocosm.tasks import ProbabilisticGrammar
from mesocosm.training import EMA, SAM, SGD, AdamW, History, Lazy, NormalisedSGD, Population, cross_entropy, loop, train
from mesocosm.training.parallel import leads, processes, together
from mesocosm.training.sharding import ShardedPopulation
from mesocosm.training.streams import Online

# Sentences of different lengths: seven of them are shared out unequally, and shares have different numbers of tokens.
TASK = ProbabilisticGrammar(levels=3)
SEEDS = [3, 4]
SIZES: dict[str, Any] = {"d_model": 10, "n_heads": 2, "n_layers": 2}
STEPS, KILLED_AFTER = 4, 2


def model(**sizes: Any) -> Transformer:
    network = Transformer.for_task(TASK, **SIZES | sizes)
    network.ln_final.requires_grad_(False)
    return network


CASES: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "momentum": (SGD(0.1, momentum=0.9), {"average": EMA()}, {"tied": True}),
    # Biases of keys have no gradient but rounding errors, which a smaller eps would blow up.
    "clipped": (AdamW([0.003, 0.01], weight_decay=0.1, eps=1e-3), {"clip": 0.5, "average": EMA()}, {}),
    "norms": (SAM(Lazy(NormalisedSGD(0.1)), rho=0.1, adaptive=True), {}, {}),
    "in parts": (SGD(0.1), {"clip": 0.5, "accumulate": 2}, {}),
    "dropout": (SGD(0.1), {"clip": 0.1}, {"dropout": 0.5}),
}


def measure(population: Population, step: int) -> dict[str, Tensor]:
    inputs = torch.arange(12).reshape(2, 6) % 3
    chosen = population.averaged() if population.average is not None else population
    return {
        "output": population.outputs(inputs).square().mean((1, 2, 3)),
        "averaged": chosen.outputs(inputs)[:, 0, 0, 0],
    }


def trained(case: str, kind: type[Population], observer: Any = None) -> History:
    optimiser, options, sizes = CASES[case]
    population = kind(partial(model, **sizes), SEEDS)
    stream = Online(TASK, 7, SEEDS)
    return train(
        population,
        stream,
        cross_entropy,
        optimiser,
        steps=STEPS,
        measure=measure,
        every=2,
        observer=observer,
        **options,
    )


def found(history: History) -> dict[str, Tensor]:
    """All that a training leaves, whole."""
    population = history.population
    replica = {f"replica.{name}": t for name, t in population.replica(1).state_dict().items()}
    average = population.averaged().weights() if population.average is not None else {}
    return {**population.weights(), **history.metrics, **replica, **{f"average.{n}": t for n, t in average.items()}}


class Keeper:
    """Writes a checkpoint at every step, and may die after one."""

    def __init__(self, path: Path, dies: bool = False) -> None:
        self.path, self.dies = path, dies

    def restore(self) -> Any:
        return read_tensors(self.path) if self.path.exists() else None

    def tick(self, step: int, fraction: float, alive: int, loss: float, save: Any) -> None:
        if self.dies:
            saved = save()
            if leads():
                write_tensors(self.path, *saved)
            if step == KILLED_AFTER:
                if processes() == 1:
                    raise KeyboardInterrupt
                distributed.barrier()
                os.kill(os.getpid(), signal.SIGKILL)


def of_rank(rank: int, count: int, port: int, out: Path, then: str) -> None:
    """Train every case sharded and one shared; then go on from the checkpoints there are, or die over one."""
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    loop.TICK = 0.0
    with together("cpu"):
        results = {"held": held(), "refused": refused(), "shards": Lab(None, shard=True).shard}
        for case in CASES:
            results[case] = found(trained(case, ShardedPopulation))
        results["dropout, shared"] = found(trained("dropout", Population))
        results["start"] = ShardedPopulation(partial(model, tied=True), SEEDS).weights()
        if then == "resume":
            for name in ("sharded", "stacked"):
                results[name] = found(trained("clipped", ShardedPopulation, Keeper(out / f"{name}.safetensors")))
        torch.save(results, out / f"{rank} of {count}.pt")
        if then == "die":
            trained("clipped", ShardedPopulation, Keeper(out / "sharded.safetensors", dies=True))


def held() -> dict[str, float]:
    """What one process holds between steps, relative to the parameters of the whole network."""
    make = partial(Transformer.for_task, TASK, d_model=48, n_layers=4)
    network = ShardedPopulation(make, [0])
    numbers = {}

    def look(population: Population, step: int) -> dict[str, Tensor]:
        gc.collect()
        tensors = [t for t in gc.get_objects() if issubclass(type(t), Tensor) and t.is_floating_point()]
        local = [t.to_local() if hasattr(t, "to_local") else t for t in tensors]
        numbers["tensors"] = sum({s.data_ptr(): s.nbytes() / 4 for s in (t.untyped_storage() for t in local)}.values())
        return {}

    history = train(network, Online(TASK, 4, [0]), cross_entropy, AdamW(0.01), steps=2, measure=look)
    whole = network.layout.whole.size
    return {"theta": history.population.theta.numel() / whole, "tensors": numbers["tensors"] / whole}


def refused() -> str:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

    try:
        ShardedPopulation(Scaled, [0])
    except ValueError as error:
        return str(error)
    return ""

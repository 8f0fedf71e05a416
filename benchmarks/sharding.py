"""Memory and time of one transformer trained by several processes: each holds everything, or its shards.

torchrun --nproc-per-node 2 benchmarks/sharding.py [--shard] [--width 512] [--layers 8]
"""

import argparse
import resource
import time
from functools import partial

import torch

from mesocosm.models import Transformer
from mesocosm.tasks import FlipFlop
from mesocosm.training import AdamW, Population, cross_entropy, train
from mesocosm.training.parallel import leads, processes, together
from mesocosm.training.sharding import ShardedPopulation
from mesocosm.training.streams import Online


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--shard", action="store_true")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--steps", type=int, default=4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = FlipFlop(length=64)
    make = partial(Transformer.for_task, task, d_model=options.width, n_heads=8, n_layers=options.layers)
    with together("cpu"):
        imported = peak()
        population = (ShardedPopulation if options.shard else Population)(make, [0])
        stream, made, began = Online(task, 4, [0], chunk=1), peak(), time.perf_counter()
        history = train(population, stream, cross_entropy, AdamW(1e-3, weight_decay=0.1), clip=1.0, steps=options.steps)
        seconds = (time.perf_counter() - began) / options.steps
        if leads():
            name = "sharded" if options.shard else "data-parallel"
            held, whole = population.theta.numel() / 1e6, population.layout.whole.size / 1e6
            print(f"{name} over {processes()}: {whole:.1f} M parameters, {held:.1f} M held, {seconds:.2f} s a step")
            print(f"peak memory in MB: {imported:.0f} imported, {made:.0f} made, {peak():.0f} trained")
            print(f"last loss {history.last('loss').item():.6f}")


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    main()

"""Tokens per second of every task of token sequences, all hidden state included, on one thread.

    python benchmarks/samplers.py [--batch 2048] [--blocks 7]

Each block draws every sampler once in turn; medians over blocks with the smallest and largest.
"""

import argparse
import statistics
import time

import torch

from mesocosm.pieces import pieces
from mesocosm.seeding import generator


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--blocks", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    tasks = {name: piece.load()() for name, piece in pieces("task").items()}
    tasks = {name: task for name, task in tasks.items() if task.tokens}
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for block in range(options.blocks + 1):
        for name, task in tasks.items():
            stream = generator("benchmark", block)
            began = time.perf_counter()
            batch = task.sample(options.batch, stream)
            seconds = time.perf_counter() - began
            if block:  # the first block warms up
                rates[name].append(batch.inputs.numel() / seconds / 1e6)
    print("| task | tokens a sample | million tokens/s |\n| --- | --- | --- |")
    for name, rate in rates.items():
        low, middle, high = min(rate), statistics.median(rate), max(rate)
        print(f"| {name} | {tasks[name].input_shape[0]} | {middle:.1f} [{low:.1f}, {high:.1f}] |")


if __name__ == "__main__":
    main()

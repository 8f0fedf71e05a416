"""Programs per second of the sandbox, beside a plain interpreter started for each program, which isolates far less.

    python benchmarks/sandbox.py [--programs 2000] [--blocks 5]

Each block runs every way once in turn; medians over blocks with the smallest and largest.
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from mesocosm.sandbox import execute, execute_all

PROGRAM = '''def simple_math_problem() -> int:
    """A shop sells {eggs} eggs on Monday and twice as many on Tuesday. How many are that?"""
    monday_eggs = {eggs}
    tuesday_eggs = 2 * monday_eggs
    result = monday_eggs + tuesday_eggs
    return result
'''
ENTRY = "simple_math_problem()"


def together(workers: int) -> Callable[[list[str]], list]:
    return lambda programs: [outcome.value for outcome in execute_all(programs, entry=ENTRY, workers=workers)]


def one_by_one(programs: list[str]) -> list:
    return [execute(program, entry=ENTRY).value for program in programs]


def plain(programs: list[str]) -> list:
    commands = ([sys.executable, "-I", "-S", "-c", f"{program}\nprint({ENTRY})"] for program in programs)
    return [int(subprocess.run(command, capture_output=True, timeout=10).stdout) for command in commands]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--blocks", type=int, default=5)
    options = parser.parse_args()
    ways: dict[str, tuple[Callable[[list[str]], list], int]] = {
        "execute_all, 1 worker": (together(1), 1),
        "execute_all, 2 workers": (together(2), 1),
        "execute": (one_by_one, 10),  # Slow ways run fewer programs.
        "python -I -S": (plain, 50),
    }
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for block in range(options.blocks + 1):
        for name, (run, fewer) in ways.items():
            numbers = range(options.programs // fewer)
            programs = [PROGRAM.format(eggs=number) for number in numbers]
            began = time.perf_counter()
            values = run(programs)
            seconds = time.perf_counter() - began
            assert values == [3 * number for number in numbers]
            if block:  # the first block warms up
                rates[name].append(len(programs) / seconds)
    print("| way | programs/s |\n| --- | --- |")
    for name, rate in rates.items():
        print(f"| {name} | {statistics.median(rate):.0f} [{min(rate):.0f}, {max(rate):.0f}] |")


if __name__ == "__main__":
    main()

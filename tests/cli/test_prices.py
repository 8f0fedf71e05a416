from io import StringIO

from rich.console import Console

from mesocosm.cli.prices import print_prices
from mesocosm.lab.cost import Price


def price(cell: str, replicas: int, seconds: float) -> Price:
    return Price(cell, replicas, steps=1000, parameters=77, flops=2e9, memory=replicas * 1000, seconds=seconds)


def shown(*arguments) -> list[list[str]]:
    out = StringIO()
    print_prices(*arguments, "cpu", Console(file=out, width=160))
    return [[word.strip() for word in line.split("│")[1:-1]] for line in out.getvalue().splitlines() if "│" in line]


def test_rows_are_sums_and_the_last_is_the_sum_of_all() -> None:
    rows = [[price("a", 3, 60.0)], [price("b", 4, 30.0), price("b", 4, 40.0)]]
    assert shown(rows, {"asking": 20.0}, "whole run") == [
        ["a", "3", "1,000", "77", "2 GFLOP", "3 kB", "about 1 min 0 s"],
        ["b, 2 times", "8", "1,000", "77", "4 GFLOP", "4 kB", "about 1 min 10 s"],
        ["asking", "", "", "", "", "", "about 20 s"],
        ["whole run", "11", "", "", "6 GFLOP", "4 kB", "about 2 min 30 s"],
    ]


def test_what_trains_nothing_has_a_price_too() -> None:
    assert shown([], {"asking": 20.0}, "whole run")[-1] == ["whole run", "0", "", "", "0 FLOP", "0 B", "about 20 s"]

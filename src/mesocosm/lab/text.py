"""Numbers in words: as tables, pages and progress show them."""

from collections.abc import Sequence


def number(value: float, digits: int = 3) -> str:
    """`0.123`, `12345`, `1.2e-05`: three significant digits, and all those before the point below a million."""
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.{digits}g}"


def effect(estimate: float | None, interval: Sequence[float | None], unit: str = "") -> str:
    """`1.2 [1.1, 1.3] steps`; without the interval where it is unknown or a single point.

    `1.0034 [1.0017, 1.0051]`: with more digits, up to six, where the ends would else look alike.
    """
    low, high = interval
    if estimate is None:
        return "not measured"
    if low is None or high is None or low == high:
        return f"{number(estimate)} {unit}".strip()
    apart = len({low, estimate, high})
    numbers = [[number(value, digits) for value in (low, estimate, high)] for digits in range(3, 7)]
    first, middle, last = next((three for three in numbers if len(set(three)) == apart), numbers[-1])
    return f"{middle} [{first}, {last}] {unit}".strip()


def flops(count: float) -> str:
    """`3.2 PFLOP`: floating-point operations in a readable unit."""
    return _scaled(count, "FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


def size(count: float) -> str:
    """`1.5 GB`: bytes in a readable unit."""
    return _scaled(count, "B", "kB", "MB", "GB", "TB")


def _scaled(count: float, *units: str) -> str:
    while count >= 999.5 and len(units) > 1:
        count, units = count / 1000, units[1:]
    return f"{number(count)} {units[0]}"

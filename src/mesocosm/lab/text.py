"""Numbers in words: as tables, pages and progress show them."""

from collections.abc import Sequence


def number(value: float) -> str:
    """`0.123`, `12345`, `1.2e-05`: three significant digits, and all those before the point below a million."""
    return f"{value:.0f}" if 999.5 <= abs(value) < 1e6 else f"{value:.3g}"


def effect(estimate: float | None, interval: Sequence[float | None], unit: str = "") -> str:
    """`1.2 [1.1, 1.3] steps`; without the interval where it is unknown or a single point."""
    low, high = interval
    if estimate is None:
        return "not measured"
    ends = f" [{number(low)}, {number(high)}]" if low is not None and high is not None and low != high else ""
    return f"{number(estimate)}{ends} {unit}".strip()


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

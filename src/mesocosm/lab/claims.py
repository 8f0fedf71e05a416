"""Claims and verdicts. A rule is a list of checks, each an estimate that must clear a bound fixed before the run."""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from mesocosm.lab.statistics import Interval

if TYPE_CHECKING:
    import pandas

Verdict = Literal["supported", "not supported", "inconclusive"]


@dataclass(frozen=True)
class Check:
    """One estimate held against its bound."""

    name: str
    estimate: float
    low: float
    high: float
    bound: str
    verdict: Verdict


def _decide(clears: bool, fails: bool) -> Verdict:
    return "supported" if clears else "not supported" if fails else "inconclusive"


def above(name: str, interval: Interval, bound: float) -> Check:
    """The whole interval must lie above `bound`; inconclusive when it spans it."""
    verdict = _decide(interval.low > bound, interval.high <= bound)
    return Check(name, interval.estimate, interval.low, interval.high, f"> {bound:g}", verdict)


def below(name: str, interval: Interval, bound: float) -> Check:
    """The whole interval must lie below `bound`; inconclusive when it spans it."""
    verdict = _decide(interval.high < bound, interval.low >= bound)
    return Check(name, interval.estimate, interval.low, interval.high, f"< {bound:g}", verdict)


def within(name: str, interval: Interval, low: float, high: float) -> Check:
    """The whole interval must lie inside `[low, high]`; not supported when it lies wholly outside."""
    verdict = _decide(low <= interval.low and interval.high <= high, interval.high < low or interval.low > high)
    return Check(name, interval.estimate, interval.low, interval.high, f"in [{low:g}, {high:g}]", verdict)


def contains(name: str, interval: Interval, value: float) -> Check:
    """The interval must contain `value`."""
    inside = interval.low <= value <= interval.high
    verdict = _decide(inside, interval.low > value or interval.high < value)
    return Check(name, interval.estimate, interval.low, interval.high, f"interval contains {value:g}", verdict)


def holds(name: str, interval: Interval, bound: str, condition: bool | None) -> Check:
    """A rule on the estimate itself, such as an identity or a share of the seeds; None where it can't be told."""
    unknown = condition is None or math.isnan(interval.estimate)
    verdict = _decide(not unknown and bool(condition), not unknown)
    return Check(name, interval.estimate, interval.low, interval.high, bound, verdict)


def overall(checks: list[Check]) -> Verdict:
    """Supported when all checks are; not supported when one is not; inconclusive otherwise."""
    verdicts = {check.verdict for check in checks}
    if "not supported" in verdicts:
        return "not supported"
    return "supported" if verdicts == {"supported"} else "inconclusive"


Judge = Callable[["pandas.DataFrame"], list[Check]]


@dataclass(frozen=True, kw_only=True)
class Control:
    """Where the effect must be absent: `judge` gives checks that are supported when it is."""

    statement: str
    judge: Judge


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A statement of the paper with the rule that judges it; the first check is the headline effect."""

    id: str
    statement: str
    rule: str
    paper: str
    """The paper's own figure."""
    judge: Judge
    control: Control | None = None
    unit: str = ""
    cells: tuple[str, ...] = ("",)
    """Prefixes of the cells whose records it reads."""

    def reads(self, cell: str) -> bool:
        return cell.startswith(self.cells)


@dataclass(frozen=True)
class Judgement:
    """A claim's verdict as `verdicts.json` holds it."""

    id: str
    statement: str
    verdict: Verdict
    effect: float | None
    interval: list[float | None]
    unit: str
    rule: str
    control: dict[str, Any] | None
    paper: str
    seconds: float
    checks: list[dict[str, Any]] = field(default_factory=list)
    note: str = ""


def judge(claim: Claim, records: "pandas.DataFrame", seconds: dict[str, float]) -> Judgement:
    """Apply a claim's rule and its control to a run's records.

    A claim whose control shows the effect can't be supported: it is then inconclusive, and the note says why.

    Args:
        seconds: wall seconds by cell.
    """
    mine = records[[claim.reads(cell) for cell in records["cell"]]]
    checks, note = _apply(claim.judge, mine)
    verdict, control = overall(checks), None
    if claim.control:
        control_checks, why = _apply(claim.control.judge, mine)
        outcome = overall(control_checks)
        absent = {"supported": "absent", "not supported": "present", "inconclusive": "inconclusive"}[outcome]
        control = {"statement": claim.control.statement, "verdict": absent, "checks": list(map(_plain, control_checks))}
        note = note or why
        if verdict == "supported" and absent != "absent":
            verdict, note = "inconclusive", note or f"the rule holds, but the effect is {absent} in its control"
    head = _plain(checks[0]) if checks else {"estimate": None, "low": None, "high": None}
    return Judgement(
        id=claim.id,
        statement=claim.statement,
        verdict=verdict,
        effect=head["estimate"],
        interval=[head["low"], head["high"]],
        unit=claim.unit,
        rule=claim.rule,
        control=control,
        paper=claim.paper,
        seconds=round(sum(s for cell, s in seconds.items() if claim.reads(cell)), 1),
        checks=list(map(_plain, checks)),
        note=note,
    )


class NotEnough(Exception):
    """Raised by a rule whose records are too few to apply it; the claim is then inconclusive."""


def rows(
    records: "pandas.DataFrame", metric: str, cells: str | tuple[str, ...], **settings: object
) -> "pandas.DataFrame":
    """Records of a metric in these cells, given by their whole names, where settings have these values.

    Raises:
        NotEnough: where there are none.
    """
    names = [cells] if isinstance(cells, str) else cells
    found = records[(records["metric"] == metric) & records["cell"].isin(names)]
    for column, value in settings.items():
        found = found[found[column] == value]
    if found.empty:
        told = ", ".join(f"{column}={value}" for column, value in settings.items())
        raise NotEnough(f"there is no {metric} of {cells}{told and ' with ' + told}")
    return found


def _apply(rule: Judge, records: "pandas.DataFrame") -> tuple[list[Check], str]:
    try:
        return rule(records), ""
    except NotEnough as reason:
        return [], str(reason)


def _plain(check: Check) -> dict[str, Any]:
    """As JSON has it: no infinities, no NaN."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in asdict(check).items()}

"""The bookkeeping: studies, presets, claims, verdicts, statistics, records, run folders and the figures' style."""

from mesocosm.lab.claims import Check, Claim, Control, NotEnough, above, below, contains, holds, rows, within
from mesocosm.lab.statistics import Interval, bootstrap, exact, mean, median, rank_correlation, share
from mesocosm.lab.study import Cell, Config, Drawing, Study

__all__ = [
    "Cell",
    "Check",
    "Claim",
    "Config",
    "Control",
    "Drawing",
    "Interval",
    "NotEnough",
    "Study",
    "above",
    "below",
    "bootstrap",
    "contains",
    "exact",
    "holds",
    "mean",
    "median",
    "rank_correlation",
    "rows",
    "share",
    "within",
]

"""The rules of the claims, from records alone."""

from typing import TYPE_CHECKING

from mesocosm import lab

if TYPE_CHECKING:
    from pandas import DataFrame, Series

ATTENTION, STATE_SPACE = "attention", "state space"
LARGE = 70
"""Entries from which on the paper finds a small transformer ahead of a large state space model."""
NO_WORSE = 0.05
"""Nats per byte within which two models predict text alike."""
GUESSED = 0.05
FEW = 60
"""Questions below which a share of 0 has an upper bound above 0.05."""


def lead(rows: "DataFrame") -> "Series":
    """Of transformers over state space models, by question: the means over models of one kind, less the other's."""
    by_kind = rows.pivot_table(index="seed", columns="kind", values="value")
    if STATE_SPACE not in by_kind:
        raise lab.NotEnough("no state space model was asked: name one for each transformer with --state-space")
    return by_kind[ATTENTION] - by_kind[STATE_SPACE]


def judge_lead(records: "DataFrame") -> list[lab.Check]:
    books, passages = lab.rows(records, "exact", "phone book"), lab.rows(records, "exact", "text")
    longest = passages["length"].max()
    looked_up = lead(books[books["entries"] >= LARGE])
    copied = lead(passages[passages["length"] == longest])
    losses = lab.rows(records, "loss", "text")
    worse = -lead(losses[losses["length"] == longest])
    return [
        lab.above(f"lead at look-up, books of at least {LARGE} entries", lab.mean(looked_up), 0),
        lab.above("lead at copying the longest passages", lab.mean(copied), 0),
        lab.below("loss of state space models, less that of transformers", lab.mean(worse), NO_WORSE),
    ]


def judge_absent(records: "DataFrame") -> list[lab.Check]:
    right = lab.rows(records, "exact without the line", "phone book")["value"]
    found = lab.share(int(right.sum()), len(right))
    if len(right) < FEW:
        return [lab.holds("exact answers without the line", found, "none right", not right.any())]
    return [lab.below("exact answers without the line", found, GUESSED)]

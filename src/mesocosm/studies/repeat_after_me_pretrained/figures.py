"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from mesocosm import lab
from mesocosm.lab.style import BLUE, GREY, ORANGE
from mesocosm.studies.repeat_after_me_pretrained.rules import ATTENTION, STATE_SPACE

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = {ATTENTION: BLUE, STATE_SPACE: ORANGE}
MARKERS = "osD^vP"


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(10.5, 4.0), sharey=True)
    draw(panels[0], records, "phone book", "exact", "entries")
    draw(panels[0], records, "phone book", "exact without the line", "entries", ls=":")
    panels[0].set(title="phone book", xlabel="entries in the book", ylabel="exact answers (share)", ylim=(-0.03, 1.03))
    draw(panels[1], records, "text", "exact", "length")
    panels[1].set(title="copying text", xlabel="tokens in the passage")
    draw(panels[2], records, "text", "exact in random order", "length")
    panels[2].set(title="copying shuffled text", xlabel="tokens in the passage")
    panels[0].plot([], [], ":", color=GREY, label="line that is asked for left out")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    caption = (
        "Exact answers of pretrained models: numbers looked up in a phone book by its entries (dotted: without the "
        "line that is asked for), and passages repeated a third time, as they stand and with their tokens in random "
        "order. Bars are 95 % Wilson intervals over questions."
    )
    yield lab.Drawing("exact", figure, caption)


def draw(axes: Any, records: "DataFrame", cell: str, metric: str, size: str, ls: str = "-") -> None:
    """Share of exact answers by size of the question, a line a model."""
    rows = records[(records["cell"] == cell) & (records["metric"] == metric)]
    for number, (names, own) in enumerate(rows.groupby(["kind", "model"], sort=True)):
        kind, model = map(str, names)
        shares = {x: lab.share(int(values.sum()), len(values)) for x, values in own.groupby(size)["value"]}
        middle = [share.estimate for share in shares.values()]
        ends = [[s.estimate - s.low for s in shares.values()], [s.high - s.estimate for s in shares.values()]]
        label = f"{model} ({kind})" if ls == "-" else None
        look = {"color": COLOURS[kind], "marker": MARKERS[number % len(MARKERS)], "ls": ls, "ms": 5, "capsize": 2.5}
        axes.errorbar(list(shares), middle, yerr=ends, label=label, **look)
    axes.set_xscale("log", base=2)
    ticks = sorted(rows[size].unique())
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()

"""What `mesocosm measure memorization` writes: the scores, the most memorised examples in pictures, and a page."""

import base64
import io
import math
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mesocosm.lab.files import write
from mesocosm.lab.style import BLACK, BLUE, ORANGE, style
from mesocosm.report.page import render

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

    from mesocosm.tasks.own_examples import OwnExamples

PICTURES, ACROSS = 24, 6
BARS = 20
LISTED = 50
CAPTIONS = {
    "most-memorised": "The most memorised examples: label, score with its standard error, and what models that did not "
    "see the example predict most often.",
    "scores": "How many examples have a score, in steps of 0.05; the axis of counts is logarithmic above 1.",
}
HIGH = 0.8
"""Scores above this are counted as memorised in the summary."""


def write_memorization(
    folder: Path, examples: "OwnExamples", table: "DataFrame", warnings: list[str], command: str
) -> Path:
    """Write `scores.csv`, `most-memorised.png`, `scores.png` and `report.html`, which needs no other file.

    Args:
        table: a row an example, in the order of `examples`, with the columns of `scores.csv`.

    Raises:
        RunError: when a file can't be written.
    """
    write(folder / "scores.csv", table.to_csv(index=False, float_format="%.4f").encode())
    with style():
        most = _grid if examples.picture(0) else _bars
        figures = {"most-memorised": _png(most(examples, table)), "scores": _png(_histogram(table))}
    for name, picture in figures.items():
        write(folder / f"{name}.png", picture)
    return render(
        "memorization.html",
        folder / "report.html",
        examples=examples,
        summary=summary(table),
        warnings=warnings,
        figures={name: base64.b64encode(picture).decode() for name, picture in figures.items()},
        rows=ranked(table).head(LISTED).to_dict("records"),
        score=score,
        captions=CAPTIONS,
        command=command,
    )


def ranked(table: "DataFrame") -> "DataFrame":
    """The examples that have a score, most memorised first; of equal scores the highest EL2N first."""
    return table.dropna(subset=["score"]).sort_values(["score", "el2n"], ascending=False, kind="stable")


def summary(table: "DataFrame") -> str:
    """The scores in one sentence."""
    scores = table["score"].dropna()
    return (
        f"Mean score {scores.mean():.3f}; {(scores > HIGH).mean():.1%} of the examples above {HIGH}. Models are right "
        f"about {table['accuracy_in'].mean():.1%} of the examples that they trained on, and about "
        f"{table['accuracy_out'].mean():.1%} of those that they did not."
    )


def score(row: Mapping[Hashable, Any]) -> str:
    """A row's score with its standard error, as tables and pictures show it."""
    return f"{row['score']:.2f} ± {row['standard_error']:.2f}"


def _png(figure: "Figure") -> bytes:
    from matplotlib import pyplot

    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})
    pyplot.close(figure)
    return picture.getvalue()


def _grid(examples: "OwnExamples", table: "DataFrame") -> "Figure":
    """The most memorised pictures with label, score, and what models that did not see them predict."""
    from matplotlib import pyplot

    shown = ranked(table).head(PICTURES)
    height = math.ceil(len(shown) / ACROSS)
    figure, panels = pyplot.subplots(height, ACROSS, figsize=(1.6 * ACROSS, 2.1 * height), squeeze=False)
    for axes in panels.flat:
        axes.set_axis_off()
    for axes, place, row in zip(panels.flat, shown.index.tolist(), shown.to_dict("records")):
        if picture := examples.picture(place):
            picture.thumbnail((256, 256))
            axes.imshow(picture, cmap="gray" if picture.mode == "L" else None)
        words = f"label {_short(row['label'])}\nscore {score(row)}\nunseen: {_short(row['predicted_out'])}"
        axes.set_title(words, fontsize=8, loc="center")
    return figure


def _bars(examples: "OwnExamples", table: "DataFrame") -> "Figure":
    """The most memorised rows of a table, with standard errors."""
    from matplotlib import pyplot

    shown = ranked(table).head(BARS).iloc[::-1]
    rows = shown.to_dict("records")
    names = [f"row {r['example']}: {_short(r['label'])}, unseen: {_short(r['predicted_out'])}" for r in rows]
    figure, axes = pyplot.subplots(figsize=(7.2, 0.6 + 0.27 * len(rows)))
    axes.barh(names, shown["score"], xerr=shown["standard_error"], color=BLUE, ecolor=BLACK, capsize=2.5)
    axes.set(xlabel="memorisation score, with its standard error", xlim=(0, 1.05))
    axes.grid(visible=False, axis="y")
    return figure


def _histogram(table: "DataFrame") -> "Figure":
    from matplotlib import pyplot

    scores = table["score"].dropna()
    edges = [step / 20 - 0.025 for step in range(math.floor(min(scores.min(), 0) * 20), 22)]
    figure, axes = pyplot.subplots(figsize=(6.4, 3.2))
    axes.hist(scores, bins=edges, color=BLUE)
    axes.axvline(scores.mean(), color=ORANGE, linestyle="--", label=f"mean {scores.mean():.3f}")
    axes.set(xlabel="memorisation score", ylabel="examples", yscale="symlog")
    axes.legend(loc="upper center")
    return figure


def _short(text: str, length: int = 18) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"

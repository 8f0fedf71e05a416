"""The figures, from records alone."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from mesocosm import lab
from mesocosm.lab.style import BLACK, BLUE, GREEN, GREY, ORANGE, PURPLE, RED, SKY
from mesocosm.studies.bandit_exploration.rules import MODELS, cells_of, corner, middle, place, values

if TYPE_CHECKING:
    from pandas import DataFrame

COLOURS = {"UCB": BLUE, "Thompson": GREEN, "Greedy": RED, "epsilon-greedy": ORANGE, "uniform": GREY}
MARKERS = {"UCB": "^", "Thompson": "D", "Greedy": "s", "epsilon-greedy": "v", "uniform": "o"}
ANSWERS = {"0": (BLACK, "temperature 0"), "1": (PURPLE, "temperature 1"), "D": (SKY, "distribution")}


def figures(records: "DataFrame") -> Iterable[lab.Drawing]:
    try:
        yield draw_plane(records)
        yield draw_table(records)
    except lab.NotEnough:
        pass
    yield draw_curves(records)
    yield draw_pulls(records)


def rounds_of(records: "DataFrame", cell: str) -> int:
    return int(records[records["cell"] == cell]["step"].max())


def whiskers(found: lab.Interval) -> list[list[float]]:
    return [[max(found.estimate - found.low, 0)], [max(found.high - found.estimate, 0)]]


def draw_plane(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    cells = cells_of(records, *MODELS)
    rounds = rounds_of(records, cells[0])
    figure, axes = pyplot.subplots(figsize=(7.6, 5.0))
    right, top = corner(records)
    axes.fill_between([-0.05, right], -0.03, top, color=GREEN, alpha=0.12, lw=0)
    for agent, colour in COLOURS.items():
        x, y = place(records, f"reference/{agent}")
        axes.plot(x.estimate, y.estimate, MARKERS[agent], color=colour, ms=9, label=agent, zorder=3)
    spread = np.linspace(0, 0.02, len(cells))
    for shift, cell in zip(spread, cells):
        (x, y), code = place(records, cell), cell.split("/")[1]
        colour, _ = ANSWERS[code[4]]
        marker = {"R": "X", "S": "P"}[code[2]]
        inside = "white" if code.endswith("c") else colour
        bars: Any = {"xerr": whiskers(x), "yerr": whiskers(y), "ecolor": colour, "elinewidth": 0.7, "alpha": 0.8}
        axes.errorbar(x.estimate + shift, y.estimate + shift, fmt=marker, ms=9, mec=colour, mfc=inside, **bars)
    codes = {cell.split("/")[1] for cell in cells}
    for answer, (colour, label) in ANSWERS.items():
        if any(code[4] == answer for code in codes):
            axes.plot([], [], "s", color=colour, label=f"model, {label}")
    for marker, label in (("X", "raw history"), ("P", "summarised")):
        axes.plot([], [], marker, color=GREY, ms=8, label=label)
    if any(code.endswith("c") for code in codes):
        axes.plot([], [], "s", mec=BLACK, mfc="white", label="hollow: calibrated")
    axes.set(
        xlabel=f"SuffFailFreq(T/2): share of games, T = {rounds}",
        ylabel="K MinFrac(T): pulls of the least pulled arm, x K / T",
        xlim=(-0.05, 1.05),
        ylim=(-0.03, max(0.55, axes.get_ylim()[1])),
    )
    figure.legend(loc="outside right upper")
    outside = sum(place(records, cell)[0].low > right for cell in cells)
    caption = (
        f"Two ways to fail, by prompt design, with 95 % intervals, points moved a little apart; T = {rounds}. Right: "
        "the best arm is not pulled again. Up: arms are pulled as if uniformly. The shaded corner reaches to the upper "
        f"ends of UCB and Thompson sampling. {outside} of {len(cells)} designs lie clearly to its right."
    )
    return lab.Drawing("plane", figure, caption)


def draw_table(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    names = {"suffix failure": "SuffFailFreq\n(T/2)", "K MinFrac": "K MinFrac\n(T)", "GreedyFrac": "GreedyFrac"}
    names |= {"mean reward": "median\nreward", "best arm": "best arm", "share of the first place": "first place"}
    models = cells_of(records, *MODELS)
    if (records[records["cell"].isin(models)]["metric"] == "invalid").any():
        names["invalid"] = "invalid"
    rows = [*models, *(f"reference/{agent}" for agent in COLOURS)]
    table = np.full((len(rows), len(names) + 1), np.nan)
    for i, cell in enumerate(rows):
        for j, name in enumerate(names):
            if ((records["cell"] == cell) & (records["metric"] == name)).any():
                found = values(records, cell, name)
                table[i, j] = found.median() if name == "mean reward" else found.mean()
    figure, axes = pyplot.subplots(figsize=(9.2, 1.0 + 0.3 * len(rows)))
    axes.imshow(np.where(np.arange(len(names) + 1) < 3, table, np.nan), cmap="Blues", vmin=0, vmax=1.6, aspect="auto")
    for i, j in np.ndindex(table.shape):
        axes.text(j, i, "" if np.isnan(table[i, j]) else f"{table[i, j]:.2f}", ha="center", va="center")
    for i, cell in enumerate(models):
        axes.text(len(names), i, favourite(records, cell), ha="center", va="center")
    axes.set_yticks(range(len(rows)), [cell.split("/")[1] for cell in rows])
    axes.set_xticks(range(len(names) + 1), [*names.values(), "favourite name"])
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.grid(False)
    axes.axhline(len(models) - 0.5, color=BLACK, lw=0.8)
    caption = (
        f"All designs, and agents that are told numbers, at T = {rounds_of(records, models[0])}: means over games of "
        "suffix failures, of K MinFrac and of the share of greedy rounds, median over games of the expected reward a "
        "round, and shares of rounds in which the best arm, the first of the list and the name chosen most were chosen."
    )
    return lab.Drawing("table", figure, caption)


def favourite(records: "DataFrame", cell: str) -> str:
    """The name that a model chose most in all games, with its share of the rounds."""
    rows = records[(records["cell"] == cell) & records["metric"].str.startswith("share of ")]
    shares = rows.groupby("metric")["value"].mean().drop("share of the first place", errors="ignore")
    return f"{str(shares.idxmax()).removeprefix('share of ')} {shares.max():.2f}" if len(shares) else ""


def draw_curves(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9.2, 4.0))
    told = []
    for agent, colour in COLOURS.items():
        rows = records[records["cell"] == f"simulated/hard/{agent}"]
        for axes, name in zip(panels, ("suffix failure", "K MinFrac")):
            curves = rows[rows["metric"] == name].pivot(index="step", columns="seed", values="value")
            found = [
                lab.share(int(c.sum()), len(c)) if name == "suffix failure" else lab.mean(c) for c in curves.to_numpy()
            ]
            axes.plot(curves.index, [f.estimate for f in found], color=colour, marker=MARKERS[agent], ms=4, label=agent)
            axes.fill_between(
                curves.index, [f.low for f in found], [f.high for f in found], color=colour, alpha=0.25, lw=0
            )
        failing, least = place(records, f"simulated/hard/{agent}")
        told.append(f"{agent} {failing.estimate:.3f} and {least.estimate:.2f}")
    rounds = rounds_of(records, "simulated/hard/UCB")
    panels[0].axvline(middle(rounds), color=GREY, ls=":", lw=1)
    panels[0].set(xlabel="round t", ylabel="SuffFailFreq(t): share of games")
    panels[1].set(xlabel="round t", ylabel="K MinFrac(t)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)
    games = records[records["cell"] == "simulated/hard/UCB"]["seed"].nunique()
    caption = (
        f"Agents on the hard instance, {games} games with 95 % bands. Left: share of games in which the best arm is "
        "not pulled from round t on; every curve rises at the end, since few rounds are left. Right: pulls of the "
        f"least pulled arm, times K / t. At T/2 and at T = {rounds}: {'; '.join(told)}."
    )
    return lab.Drawing("curves", figure, caption)


def draw_pulls(records: "DataFrame") -> lab.Drawing:
    from matplotlib import pyplot

    shown = ("Greedy", "Thompson", "UCB")
    figure, axes = pyplot.subplots()
    samples = {agent: values(records, f"simulated/hard/{agent}", "best arm") for agent in shown}
    for agent, sample in samples.items():
        axes.hist(sample, bins=25, range=(0, 1), histtype="step", color=COLOURS[agent], lw=1.8, label=agent)
    axes.set(xlabel="share of rounds on the best arm", ylabel="games")
    axes.legend(loc="upper center")
    seldom = {agent: f"{100 * (sample < 0.1).mean():.0f} %" for agent, sample in samples.items()}
    rewards = [np.median(values(records, f"simulated/hard/{agent}", "mean reward")) for agent in shown]
    caption = (
        f"Games of T = {rounds_of(records, 'simulated/hard/UCB')} rounds on the hard instance. Greedy has two kinds of "
        f"games: in {seldom['Greedy']} of them the best arm gets less than a tenth of the rounds, with Thompson "
        f"sampling in {seldom['Thompson']}. The expected reward is a straight line of this share; its "
        f"medians over games are {', '.join(f'{agent} {reward:.3f}' for agent, reward in zip(shown, rewards))}."
    )
    return lab.Drawing("pulls", figure, caption)

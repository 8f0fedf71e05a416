"""`mesocosm sweep`: a study at every point of a grid of settings."""

import heapq
import itertools
import traceback
from collections import defaultdict
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from mesocosm.cli import runs
from mesocosm.cli.flags import parse, read_values
from mesocosm.cli.prices import print_prices
from mesocosm.lab import folder as folders
from mesocosm.lab.files import RunError, UserError
from mesocosm.lab.text import effect
from mesocosm.settings import setting

if TYPE_CHECKING:
    from pandas import DataFrame

    from mesocosm.lab.lab import Lab
    from mesocosm.lab.sweep import Sweep

console = runs.console

MANY = (2, 8, 32)
"""Workers for which a dry run tells the time."""


@dataclass(frozen=True, kw_only=True)
class SweepOptions(runs.RunOptions):
    """How to sweep it."""

    vary: str | None = setting(None, "a setting and its values, field=a,b,c (16+32,64 of several); again for a grid")
    out: str | None = setting(None, "sweep folder (default: sweeps/STUDY/TIME-ID)")


def sweep(study: str, settings: list[str]) -> int:
    whole, preset = folders.load_study(study), runs.preset_of(settings)
    summary = f"{whole.question} At every point of a grid of settings. Defaults are those of --preset {preset}."
    groups = SweepOptions(preset=preset), whole.presets[preset]
    options, config = parse(f"mesocosm sweep {study}", summary, _gathered(settings), *groups)
    varied = _varied(options.vary, settings, config)
    from mesocosm.lab import sweep as sweeps

    grid = sweeps.Sweep(folders.Request(study, options.preset, config, options.model, options.precision), varied)
    labs = _labs(grid, options)
    if options.dry_run:
        return _dry_run(grid, next(iter(labs.values())))
    folder = sweeps.create(grid, Path(options.out) if options.out else None)
    console.print(f"sweep folder: {folder}")
    return _run_locked(grid, folder, labs, options)


def resume_sweep(folder: Path, **how: Any) -> int:
    """Go on with a sweep; one that is finished gets its tables, figures and page again."""
    from mesocosm.lab import sweep as sweeps

    grid = sweeps.read(folder)
    options = SweepOptions(model=grid.base.model, precision=grid.base.precision, **how)
    return _run_locked(grid, folder, _labs(grid, options), options)


def _labs(grid: "Sweep", options: SweepOptions) -> "dict[str, Lab]":
    """A laboratory for each point; what is asked wrongly shows here, before any work starts."""
    from mesocosm.training.parallel import launched

    if launched():
        raise UserError("mesocosm sweep is not legal under torchrun: run it alone, or with --on ray")
    points = grid.points().items()
    return {name: runs.lab_of(request, options, runs.plan_of(request)) for name, request in points}


def _run_locked(grid: "Sweep", folder: Path, labs: "dict[str, Lab]", options: SweepOptions) -> int:
    try:
        with folders.locked(folder):
            return _run(grid, folder, labs, options)
    except KeyboardInterrupt:
        runs.print_way_on(folder, options)
        raise


def _gathered(settings: list[str]) -> list[str]:
    """Flags with all that `--vary` says, however often it is given, as one."""
    words, said = iter(settings), []
    others = []
    for word in words:
        if word == "--vary":
            said.append(next(words, ""))
        elif word.startswith("--vary="):
            said.append(word.removeprefix("--vary="))
        else:
            others.append(word)
    return [*others, "--vary", "\n".join(said)] if said else others


def _varied(vary: str | None, settings: list[str], config: folders.Config) -> dict[str, tuple]:
    """Values by setting.

    Raises:
        UserError: for a setting given twice, or none.
    """
    if vary is None:
        raise UserError("nothing is varied: give --vary field=a,b,c, where field is a setting of the study")
    varied: dict[str, tuple] = {}
    for text in vary.split("\n"):
        field, values = read_values(text, config)
        if field in varied:
            raise UserError(f"--vary {field} is given twice: give all values at once, --vary {field}=a,b,c")
        if any(word.split("=")[0].replace("-", "_") == f"__{field}" for word in settings):
            raise UserError(f"{field} is given twice, as a flag and by --vary: leave one out")
        varied[field] = values
    return varied


def _run(grid: "Sweep", folder: Path, labs: "dict[str, Lab]", options: SweepOptions) -> int:
    from mesocosm.lab import sweep as sweeps
    from mesocosm.report.sweep import write_figures, write_page

    points, failed = grid.points(), {}
    folders.log_to(folder)
    unfinished = [name for name in points if not folders.finished(sweeps.place(folder, name))]
    for name in unfinished:
        folders.create(points[name], sweeps.place(folder, name))
    try:
        _train_together(grid, folder, labs[next(iter(points))], options)
    except (UserError, KeyboardInterrupt):
        raise
    except Exception as error:
        # Whose fault it is shows when each point trains what it lacks.
        console.print(f"[yellow]not all was trained together:[/] {escape(_sentence(error))}")
    for number, name in enumerate(unfinished, start=1):
        lab = labs.pop(name)  # Its records are then on disk.
        try:
            with console.status(f"[{number}/{len(unfinished)}] {name}"):
                _finish(points[name], sweeps.place(folder, name), lab)
        except Exception as error:
            lab.log.error("failed\n%s", traceback.format_exc())
            failed[name] = _sentence(error)
    _, verdicts = sweeps.gather(grid, folder)
    if len(verdicts):
        _print_verdicts(grid, verdicts)
        captions = write_figures(grid, folder, verdicts)
        for name in captions:
            console.print(f"figure:  {folder / 'figures' / name}.svg")
        console.print(f"table:   {folder / 'verdicts.csv'}")
    for name, why in failed.items():
        console.print(f"[red]failed:[/] {name}: {escape(why)}")
    if failed:
        raise RunError(f"{len(failed)} of {len(points)} points failed; the same command tries them again")
    console.print(f"page:    {write_page(grid, folder, captions)}")
    supported = bool((verdicts["verdict"] == "supported").all())
    return runs.UNSUPPORTED if options.require_supported and not supported else 0


def _train_together(grid: "Sweep", folder: Path, lab: "Lab", options: SweepOptions) -> None:
    from mesocosm.lab import jobs
    from mesocosm.lab import sweep as sweeps

    twins, cluster = sweeps.twins(grid, folder, lab), runs.cluster_of(options)
    sweeps.share(twins)  # An earlier command may have been killed between training and this.
    try:
        if groups := sweeps.groups(twins, lab):
            with cluster() if cluster else nullcontext(jobs.InProcess(options.device)) as executor:
                jobs.spread(f"sweep of {grid.base.study}", map(list, groups), lab, executor, console)
    finally:
        sweeps.share(twins)


def _finish(request: folders.Request, run: Path, lab: "Lab") -> None:
    """Train what is left of a point, then measure, judge, draw and write its page."""
    from mesocosm.lab import runner
    from mesocosm.report.page import write_page

    lab.folder = run
    with folders.locked(run):
        runner.run(request, run, lab, Console(quiet=True))
        write_page(run)


def _sentence(error: Exception) -> str:
    words = " ".join(str(error).split())
    return words if isinstance(error, RunError | UserError) else f"{type(error).__name__}: {words}"


def _print_verdicts(grid: "Sweep", verdicts: "DataFrame") -> None:
    from mesocosm.lab.sweep import told

    claims = list(dict.fromkeys(verdicts["claim"]))
    table = Table(*(Column(name, overflow="fold") for name in grid.varied), show_lines=True)
    for claim in claims:
        table.add_column(claim, min_width=len("inconclusive"))
    for _, rows in verdicts.groupby("point", sort=False):
        squares = []
        for row in rows.to_dict("records"):
            estimate, *interval = (None if row[name] != row[name] else row[name] for name in ("effect", "low", "high"))
            found = effect(estimate, interval, row["unit"])
            squares.append(f"[{runs.COLOURS[row['verdict']]}]{row['verdict']}[/]\n{escape(found)}")
        table.add_row(*(told(rows.iloc[0][field]) for field in grid.varied), *squares)
    console.print(table)


def _dry_run(grid: "Sweep", lab: "Lab") -> int:
    from mesocosm.lab import jobs, joining
    from mesocosm.lab import sweep as sweeps
    from mesocosm.lab.cost import price
    from mesocosm.lab.progress import duration

    study, points = folders.load_study(grid.base.study), grid.points()
    groups = sweeps.groups(sweeps.twins(grid, Path("sweeps"), lab), lab)
    alone = [cell for request in points.values() for cell in study.plan(request.config) if not cell.complete]
    alone.sort(key=lambda cell: cell.name)
    prices = price(lab, [*(joining.join(list(group.values())) for group in groups), *alone])
    together, apart = prices[: len(groups)], prices[len(groups) :]
    rows = [[p] for p in together]
    rows += [list(several) for _, several in itertools.groupby(apart, key=lambda p: p.cell)]
    others: dict[str, float] = defaultdict(float)
    if study.estimate:
        for request in points.values():
            for name, seconds in study.estimate(request.config).items():
                others[name] += seconds
    print_prices(rows, others, f"{len(points)} points", lab.device, console)
    wholes = jobs.plan_jobs(map(list, groups), lab, jobs.InProcess(lab.device))
    rates = {job.parts: (p.seconds or 0) / job.work for job, p in zip(wholes, together)}
    here, several = sum(others.values()) + sum(p.seconds or 0 for p in apart), []
    for workers in MANY:
        executor = jobs.InProcess(lab.device)
        executor.workers = workers
        each = [job.work * rates[job.parts] for job in jobs.cut(wholes, executor)]
        several.append(f"about {duration(here + packed(each, workers))} on {workers}")
    console.print(f"With --on ray, on workers as fast as this machine: {', '.join(several)}.")
    return 0


def packed(seconds: Sequence[float], workers: int) -> float:
    """When the last of these jobs ends, the longest being begun first and each on the first free worker."""
    free = [0.0] * workers
    for job in sorted(seconds, reverse=True):
        heapq.heapreplace(free, free[0] + job)
    return max(free)

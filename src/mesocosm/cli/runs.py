"""`mesocosm run`, `resume`, `judge`, `draw` and `report`."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mesocosm.cli.look import CLAIM, claim_words
from mesocosm.cli.prices import print_prices
from mesocosm.lab import folder as folders
from mesocosm.lab.files import RunError, UserError
from mesocosm.lab.text import effect
from mesocosm.settings import Settings, setting

if TYPE_CHECKING:
    from mesocosm.lab.claims import Judgement
    from mesocosm.lab.jobs import Executor
    from mesocosm.lab.lab import Lab
    from mesocosm.lab.study import Cell

console = Console(highlight=False)

COLOURS = {"supported": "green", "not supported": "red", "inconclusive": "yellow"}
UNSUPPORTED = 3
"""Exit status of `--require-supported` when a claim is not supported."""


@dataclass(frozen=True, kw_only=True)
class RunOptions(Settings):
    """How to run it."""

    preset: Literal["smoke", "small", "paper"] = setting("small", "seconds, minutes, or the paper's own scale")
    model: str | None = setting(None, "your architecture in place of the study's: package.module:Name")
    device: Literal["cpu", "cuda"] = setting("cpu", "where to compute")
    precision: Literal["float32", "bfloat16"] = setting("float32", "of products in training; bfloat16 needs a GPU")
    compile: bool = setting(False, "compile the training step: slow to start, then faster")
    stack: int | None = setting(None, "replicas to train in lockstep (default: planned); never changes results", low=1)
    on: str | None = setting(
        None, "spread trainings over a Ray cluster: ray (RAY_ADDRESS, or here), or ray://HOST:PORT"
    )
    shard: bool = setting(False, "split each network over the processes that torchrun started")
    out: str | None = setting(None, "run folder (default: runs/STUDY/TIME-ID)")
    dry_run: bool = setting(False, "print what it would cost and stop")
    require_supported: bool = setting(False, "exit with status 3 unless every claim is supported")


def run(study: str, settings: list[str]) -> int:
    from mesocosm.cli.flags import parse

    whole, preset = folders.load_study(study), preset_of(settings)
    summary = f"{whole.question} Defaults are those of --preset {preset}."
    groups = RunOptions(preset=preset), whole.presets[preset]
    options, config = parse(f"mesocosm run {study}", summary, settings, *groups)
    from mesocosm.training.parallel import from_leader

    request = folders.Request(study, options.preset, config, options.model, options.precision)
    with _processes(options):
        cells = plan_of(request)
        lab = lab_of(request, options, cells)
        if options.dry_run:
            return _dry_run(request, cells, lab)
        folder = from_leader(lambda: folders.create(request, Path(options.out) if options.out else None))
        judgements = _run(request, folder, lab, options)
    return UNSUPPORTED if options.require_supported and any(j.verdict != "supported" for j in judgements) else 0


def resume(run: Path, **how: Any) -> int:
    if (run / "sweep.json").is_file():
        from mesocosm.cli.sweep import resume_sweep

        return resume_sweep(run, **how)
    request = folders.read_request(run)
    options = RunOptions(model=request.model, precision=request.precision, **how)
    if folders.finished(run) and (run / "records.parquet").exists():
        console.print(f"{run} is finished; judging and drawing it again")
        judge(run)
        return draw(run)
    with _processes(options):
        _run(request, run, lab_of(request, options, plan_of(request)), options)
    return 0


def judge(run: Path) -> int:
    from mesocosm.lab.runner import draw_run, judge_run

    folders.read_request(run)
    with folders.locked(run):
        judgements = judge_run(run)
        if not (run / "figures" / "captions.json").exists():
            draw_run(run)
        _page(run)
    _print_verdicts(judgements)
    return 0


def draw(run: Path) -> int:
    from mesocosm.lab.runner import draw_run

    folders.read_request(run)
    with folders.locked(run):
        draw_run(run)
        _page(run)
    _print_paths(run)
    return 0


def report(runs: list[Path], to: Path, markdown: bool, name: str | None) -> int:
    from mesocosm.report.results import write_results
    from mesocosm.report.site import write_site

    found = runs or sorted(path.parent for path in Path("runs").glob("*/*/verdicts.json"))
    if not found:
        raise UserError("there is no finished run in runs/; name run folders, or make one with `mesocosm run STUDY`")
    if name and (not markdown or len(found) > 1 or not name.replace("-", "").isalnum()):
        raise UserError(
            f"--name {name} is not legal: it is for the Markdown of one run, of letters, digits and hyphens"
        )
    for folder in found:
        folders.read_request(folder)
    if markdown:
        for folder in found:
            console.print(f"results: {write_results(folder, to, name)}")
        return 0
    console.print(f"page: {write_site(found, to)}")
    return 0


def preset_of(settings: list[str]) -> Literal["smoke", "small", "paper"]:
    """The preset whose values are the defaults of the other flags."""
    words = " ".join(settings).replace("--preset=", "--preset ").split()
    name = words[words.index("--preset") + 1] if "--preset" in words[:-1] else "small"
    return "smoke" if name == "smoke" else "paper" if name == "paper" else "small"


@contextmanager
def _processes(options: RunOptions) -> Iterator[None]:
    """Join the other processes that `torchrun` started, if it did; only the first speaks."""
    from mesocosm.training import parallel

    if parallel.launched() and options.compile:
        raise UserError("--compile is not legal on several processes: leave it out")
    if parallel.launched() and options.on:
        raise UserError(f"--on {options.on} is not legal under torchrun: use one of them")
    with parallel.together(options.device):
        console.quiet = not parallel.leads()
        yield


def plan_of(request: folders.Request) -> "list[Cell]":
    """The trainings of a request; what the study needs besides the package is seen to be there."""
    from mesocosm.training.parallel import processes

    study = folders.load_study(request.study)
    try:
        if study.check:
            study.check(request.config)
        cells = list(study.plan(request.config))
    except (ImportError, OSError, ValueError) as error:
        raise UserError(error) from error
    for cell in cells:
        if cell.batch_size < cell.accumulate * processes():
            more = f" for each of {cell.accumulate} parts" if cell.accumulate > 1 else ""
            few = f"batch_size={cell.batch_size} of {cell.name}"
            raise UserError(f"{few} is not legal on {processes()} processes: each needs a sample{more}")
    return cells


def lab_of(request: folders.Request, options: RunOptions, cells: "list[Cell]") -> "Lab":
    """A laboratory for the request; device and architecture are checked before any work starts."""
    from mesocosm.lab.lab import Lab
    from mesocosm.lab.runner import check_architecture, check_device, load_architecture

    device = options.device
    if options.on:
        import torch

        from mesocosm.lab.ray_cluster import check

        check(options.on)
        # The workers have the GPUs; this process measures with what it has.
        device = device if torch.cuda.is_available() else "cpu"
    check_device(device)
    if options.precision == "bfloat16" and options.device == "cpu":
        raise UserError("--precision bfloat16 is not legal on the CPU, which is slower with it: use --device cuda")
    growing = [cell.name for cell in cells if cell.grow]
    if options.shard and growing:
        raise UserError(f"--shard is not legal here: {growing[0]} grows, and what is sharded keeps its size")
    architecture = None
    if request.model:
        architecture = load_architecture(request.model)
        check_architecture(request.model, architecture, cells)
    return Lab(
        None,
        device=device,
        compile=options.compile,
        stack=options.stack,
        shard=options.shard,
        precision=options.precision,
        architecture=architecture,
    )


def cluster_of(options: RunOptions) -> "Callable[[], AbstractContextManager[Executor]] | None":
    """What connects to the cluster that was asked for."""
    if options.on is None:
        return None
    from mesocosm.lab.ray_cluster import connected

    return partial(connected, options.on, options.device)


def _dry_run(request: folders.Request, cells: "list[Cell]", lab: "Lab") -> int:
    from mesocosm.lab.cost import price

    estimate = folders.load_study(request.study).estimate
    others = estimate(request.config) if estimate else {}
    print_prices([[p] for p in price(lab, cells)], others, "whole run", lab.device, console)
    return 0


def _run(request: folders.Request, folder: Path, lab: "Lab", options: RunOptions) -> "list[Judgement]":
    from mesocosm.lab import runner

    lab.folder = folder
    if not lab.writes:
        runner.train_all(request, lab)
        return []
    console.print(f"run folder: {folder}")
    with folders.locked(folder):
        try:
            judgements = runner.run(request, folder, lab, console, cluster_of(options))
            page = _page(folder)
        except KeyboardInterrupt:
            print_way_on(folder, options)
            raise
        except (RunError, UserError):
            raise
        except Exception as error:
            lab.log.error("failed\n%s", traceback.format_exc())
            what = f"{type(error).__name__}: {error}"
            raise RunError(
                f"{what} (details in {folder / 'run.log'}; go on with `mesocosm resume {folder}`)"
            ) from error
    _print_verdicts(judgements)
    _print_paths(folder)
    console.print(f"page:    {page}")
    return judgements


def print_way_on(folder: Path, options: RunOptions) -> None:
    """Say how an interrupted run or sweep goes on."""
    on = f" --on {options.on}" if options.on else ""
    console.print(f"Interrupted; nothing is lost. Go on with: mesocosm resume {folder}{on}")


def _page(folder: Path) -> Path:
    from mesocosm.report.page import write_page

    return write_page(folder)


def _print_verdicts(judgements: "list[Judgement]") -> None:
    table = Table("claim", "verdict", "effect\n[95 % interval]", CLAIM, show_lines=True)
    for j in judgements:
        control = f"{j.control['statement']}: {j.control['verdict']}" if j.control else "none"
        words = claim_words(j.statement, j.rule, control, j.paper) + (
            f"\n[italic]{escape(j.note)}[/]" if j.note else ""
        )
        found = escape(effect(j.effect, j.interval, j.unit))
        table.add_row(j.id, f"[{COLOURS[j.verdict]}]{j.verdict}[/]", found, words)
    console.print(table)


def _print_paths(folder: Path) -> None:
    for path in sorted((folder / "figures").glob("*.svg")):
        console.print(f"figure:  {path}")

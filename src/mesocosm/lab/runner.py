"""Run, judge and draw: from a request to a whole run folder."""

import dataclasses
import importlib
import json
import resource
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from mesocosm.lab import folder as folders
from mesocosm.lab.claims import Judgement, judge
from mesocosm.lab.files import UserError, read_json, read_table, write, write_json, write_table
from mesocosm.lab.study import Cell, Drawing

if TYPE_CHECKING:
    from mesocosm.lab.jobs import Executor
    from mesocosm.lab.lab import Lab


def load_architecture(name: str) -> Callable[[Any], Any]:
    """The function from a task to a model that `package.module:Name` names.

    `Name` is a class with `for_task`, or anything that makes an `nn.Module` when called with a task.

    Raises:
        UserError: when there is none.
    """
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise UserError(f"--model {name} is not legal: it must be package.module:Name")
    sys.path.insert(0, "")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"--model {name} cannot be imported: {error}") from error
    finally:
        sys.path.remove("")
    return getattr(target, "for_task", target)


def check_device(device: str) -> None:
    """See that a device is there.

    Raises:
        UserError: when it is not.
    """
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda is not legal here: PyTorch finds no CUDA device; use --device cpu")


def check_architecture(name: str, architecture: Callable[[Any], Any], cells: Iterable[Cell]) -> None:
    """See that a model takes the inputs and gives the outputs of every swappable cell.

    Raises:
        UserError: saying which shape is given and which is needed.
    """
    import torch
    from torch import nn

    from mesocosm.seeding import generator

    cells = [cell for cell in cells if cell.swappable]
    if not cells:
        raise UserError(f"--model {name} fits nothing: this study has no architecture that can be swapped")
    for cell in cells:
        batch = cell.task.sample(2, generator(0, "shape"))
        given = f"{str(batch.inputs.dtype).removeprefix('torch.')} {list(batch.inputs.shape)}"
        try:
            model = architecture(cell.task)
            if not isinstance(model, nn.Module):
                raise TypeError(f"it made a {type(model).__name__}, not an nn.Module")
            with torch.no_grad():
                output = model.eval()(batch.inputs)
            got, needed = tuple(output.shape), (2, *cell.task.output_shape)
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            raise UserError(f"--model {name} does not work on the inputs {given} of {cell.name}: {reason}") from error
        if got != needed:
            raise UserError(
                f"--model {name} gives outputs {list(got)} on the inputs {given} of {cell.name}; needed: {list(needed)}"
            )


def run(
    request: folders.Request,
    folder: Path,
    lab: "Lab",
    console: Console,
    cluster: "Callable[[], AbstractContextManager[Executor]] | None" = None,
) -> list[Judgement]:
    """Train what is not yet trained, then measure, judge and draw.

    Args:
        cluster: gives what trains ahead the cells that the study trains just as planned.
    """
    from mesocosm.lab import jobs
    from mesocosm.lab.progress import Progress

    study = folders.load_study(request.study)
    lab.log = folders.log_to(folder)
    began, cpu = time.monotonic(), time.process_time()
    earlier = read_json(folder / "environment.json") if (folder / "environment.json").exists() else {}
    lab.log.info("run %s %s", request.study, json.dumps(dataclasses.asdict(request.config)))
    cells, spread_over = list(study.plan(request.config)), earlier.get("cluster")
    if cluster and (here := sum(not cell.complete for cell in cells)):
        console.print(f"{here} of {len(cells)} cells need what the study makes on the way: they train here")
    if cluster and (parts := jobs.unfinished(request, folder)):
        with cluster() as executor:
            spread_over = {"nodes": executor.nodes, "workers": executor.workers}
            jobs.spread(request.study, [[part] for part in parts], lab, executor, console)
    with Progress(request.study, _work(lab, cells), console) as lab.progress:
        train_all(request, lab)
    write_table(folder / "records.parquet", lab.records())
    peak = peak_memory(resource.getrusage(resource.RUSAGE_SELF))
    facts = folders.environment(lab.device, lab.stack, lab.compile) | {
        "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
        "wall_seconds": round(sum(lab.seconds.values()), 2),
        "process_seconds": round(time.monotonic() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_memory_bytes": max(peak, earlier.get("peak_memory_bytes", 0)),
        "seconds_by_cell": {name: round(s, 3) for name, s in lab.seconds.items()},
        **({"cluster": spread_over} if spread_over else {}),
    }
    write_json(folder / "environment.json", facts)
    began = time.monotonic()
    judgements = judge_run(folder)
    draw_run(folder)
    phases = lab.phases | {"drawing": time.monotonic() - began}
    phases = {phase: round(seconds, 3) for phase, seconds in phases.items()}
    write_json(folder / "environment.json", facts | {"seconds_by_phase": phases})
    lab.log.info("done: %s", ", ".join(f"{j.id} {j.verdict}" for j in judgements))
    return judgements


def peak_memory(used: resource.struct_rusage) -> int:
    """The most bytes that a process has held."""
    return used.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def train_all(request: folders.Request, lab: "Lab") -> None:
    """Train and measure what a study is made of: all that processes do which train along with the one that writes."""
    study = folders.load_study(request.study)
    with lab.interruptible():
        if study.run:
            study.run(request.config, lab)
        else:
            for cell in study.plan(request.config):
                lab.train(cell)


def _work(lab: "Lab", cells: list[Cell]) -> dict[str, float]:
    """Expected work by cell: replica-steps, each with a share for overhead and one for arithmetic."""
    work = {}
    for cell in cells:
        lone = lab.population(dataclasses.replace(cell, seeds=list(cell.seeds)[:1], init=None))
        positions = cell.batch_size * max(1, (1 if not cell.task.tokens else cell.task.input_shape[0]))
        work[cell.name] = cell.steps * len(cell.seeds) * (3e5 + lone.layout.size * positions)
    return work


def judge_run(folder: Path) -> list[Judgement]:
    """Judge a run's claims from its records, and write `verdicts.json`."""
    request = folders.read_request(folder)
    study = folders.load_study(request.study)
    records = _records(folder)
    seconds = read_json(folder / "environment.json")["seconds_by_cell"]
    judgements = [judge(claim, records, seconds) for claim in study.claims]
    verdicts = {
        "format": folders.FORMAT,
        "study": request.study,
        "preset": request.preset,
        "seeds": request.config.seeds,
    }
    write_json(folder / "verdicts.json", {**verdicts, "claims": [dataclasses.asdict(j) for j in judgements]})
    return judgements


def draw_run(folder: Path) -> list[tuple[str, str]]:
    """Draw a run's figures from its records as SVG and PNG; gives names and captions."""
    from mesocosm.lab.style import style

    study = folders.load_study(folders.read_request(folder).study)
    records = _records(folder)
    drawn = []
    with style():
        for drawing in study.figures(records):
            save_drawing(drawing, folder / "figures")
            drawn.append((drawing.name, drawing.caption))
    write_json(folder / "figures" / "captions.json", {"captions": dict(drawn)})
    return drawn


def save_drawing(drawing: Drawing, folder: Path) -> Path:
    """Write a figure as SVG and PNG, and close it; gives the path of the SVG."""
    import io

    from matplotlib import pyplot

    for kind in ("png", "svg"):
        picture = io.BytesIO()
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        drawing.figure.savefig(picture, format=kind, metadata=metadata)
        path = folder / f"{drawing.name}.{kind}"
        write(path, picture.getvalue())
    pyplot.close(drawing.figure)
    return path


def _records(folder: Path) -> Any:
    if not (folder / "records.parquet").exists():
        raise UserError(f"{folder} is not finished: it has no records yet; go on with `mesocosm resume {folder}`")
    return read_table(folder / "records.parquet")

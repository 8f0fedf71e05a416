"""`mesocosm bench studies`: what every study costs, and where its time goes."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mesocosm.lab.files import read_json, write, write_json
from mesocosm.lab.folder import load_study, locked
from mesocosm.lab.runner import peak_memory
from mesocosm.lab.text import size
from mesocosm.pieces import pieces

console = Console(highlight=False)

PHASES = ("sampling", "step", "measuring", "drawing")


def bench_studies(names: Sequence[str], preset: str, to: Path) -> int:
    """Run studies one after the other, each in a process of its own, and write the table after each."""
    for name in names:
        load_study(name)
    failed = []
    to.mkdir(parents=True, exist_ok=True)
    with locked(to):
        for name in names or pieces("study"):
            if not _is_timed(to / name, preset) and (error := _run(name, preset, to)):
                console.print(f"{name}: {error}")
                failed.append(name)
            _write_table(to)
    console.print(_table(_rows(to)))
    console.print(f"table: {to / 'studies.md'}")
    if failed:
        console.print(f"not in the table: {', '.join(failed)}")
    return int(bool(failed))


def _is_timed(folder: Path, preset: str) -> bool:
    return (folder / "bench.json").exists() and read_json(folder / "bench.json")["preset"] == preset


def _run(study: str, preset: str, to: Path) -> str | None:
    """Run a study into `to/STUDY`; the sentence that it failed with, if it did."""
    unfinished = to / f"{study}.unfinished"
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(unfinished)
    words = ["run", study, "--preset", preset, "--out", str(unfinished)]
    began = time.monotonic()
    with console.status(study):
        process = subprocess.Popen(
            [sys.executable, "-m", "mesocosm.cli", *words], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            assert process.stderr
            with process.stderr as stream:
                errors = stream.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        except BaseException:
            process.kill()
            process.wait()
            raise
    if process.returncode:
        lines = errors.strip().splitlines() or [f"ended with status {process.returncode}"]
        return lines[-1].removeprefix("mesocosm: error: ")
    facts = {
        "format": 1,
        "preset": preset,
        "seconds": time.monotonic() - began,
        "cpu_seconds": used.ru_utime + used.ru_stime,
        "peak_memory_bytes": peak_memory(used),
    }
    write_json(unfinished / "bench.json", facts)
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(to / study)
    unfinished.rename(to / study)
    console.print(f"{study}: {facts['seconds']:.0f} s")
    return None


def _rows(to: Path) -> list[tuple[str, ...]]:
    """A row a study: preset, wall and CPU seconds, memory, and the percentages of its wall time."""
    rows = []
    for path in sorted(to.glob("*/bench.json")):
        facts, phases = read_json(path), read_json(path.with_name("environment.json"))["seconds_by_phase"]
        rest = facts["seconds"] - sum(phases[phase] for phase in PHASES)
        shares = [100 * seconds / facts["seconds"] for seconds in (*(phases[phase] for phase in PHASES), rest)]
        numbers = f"{facts['seconds']:.0f}", f"{facts['cpu_seconds']:.0f}", size(facts["peak_memory_bytes"])
        rows.append((path.parent.name, facts["preset"], *numbers, *(f"{share:.0f}" for share in shares)))
    return rows


COLUMNS = ("study", "preset", "wall s", "CPU s", "memory", *(f"{phase} %" for phase in PHASES), "rest %")


def _table(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(COLUMNS[0], box=box.SIMPLE)
    for column in COLUMNS[1:]:
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(*row)
    return table


def _write_table(to: Path) -> None:
    folders = [path.parent for path in sorted(to.glob("*/bench.json"))]
    made: list[dict[str, Any]] = [read_json(folder / "environment.json") for folder in folders]
    machines = sorted({f"{e['processor']}, {e['threads']} threads, torch {e['versions']['torch']}" for e in made})
    lines = [" | ".join(["", *row, ""]).strip() for row in (COLUMNS, ["---"] * len(COLUMNS), *_rows(to))]
    about = (
        "Each study in a process of its own, start-up and page included. Shares are of its wall time: sampling of "
        "training batches, steps, measurements and what else a study computes, verdicts with figures; the rest is "
        "start-up, initial weights, checkpoints and the page."
    )
    text = ["# Cost of the studies", "", about, "", *(f"{machine}." for machine in machines), "", *lines, ""]
    write(to / "studies.md", "\n".join(text).encode())

"""One page over many runs: studies, their claims, and the verdict of each."""

import os
from collections import defaultdict
from pathlib import Path
from urllib.parse import quote

from mesocosm.report.page import render, write_page
from mesocosm.report.run import Run, read_run


def write_site(folders: list[Path], to: Path) -> Path:
    """Write `index.html` in the folder `to`, which links to the runs' own pages; those that are missing are written.

    Raises:
        UserError: when a folder holds no run.
        RunError: when a file of a run is missing or damaged, naming the command that makes it again.
    """
    studies: dict[str, list[Run]] = defaultdict(list)
    for run in sorted(map(read_run, folders), key=lambda run: run.date, reverse=True):
        if not (run.folder / "report.html").is_file():
            write_page(run.folder)
        studies[run.request.study].append(run)

    def link(run: Run) -> str:
        return quote(Path(os.path.relpath(run.folder / "report.html", to)).as_posix())

    newest = [claim for runs in studies.values() for claim in runs[0].claims]
    return render("site.html", to / "index.html", studies=dict(sorted(studies.items())), newest=newest, link=link)

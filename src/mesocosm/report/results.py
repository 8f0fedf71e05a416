"""A run's verdicts and figures as Markdown, for documents that keep results."""

import shutil
from pathlib import Path
from typing import Any

from mesocosm.lab.files import write
from mesocosm.lab.text import effect
from mesocosm.report.run import outcome, read_run


def write_results(folder: Path, to: Path, name: str | None = None) -> Path:
    """Write `<name>.md`, the study's where none is given, its figures and its `verdicts.json` into the folder `to`.

    Raises:
        UserError: when `folder` holds no run.
        RunError: when a file of it is missing or damaged, naming the command that makes it again.
    """
    run = read_run(folder)
    name = name or run.request.study
    lines = [f"# {run.study.title}", "", run.study.question, "", f"{run.study.paper}.", ""]
    lines += [f"**{outcome(run.claims)}.** {run.summary}.", "", f"    {run.command}", ""]
    lines += ["| claim | verdict | effect [95 % interval] | rule | control | the paper's figure |", "| --- " * 6 + "|"]
    lines += [_row(claim) for claim in run.claims]
    for claim in run.claims:
        checks = [(claim["checks"], "rule")] + ([(claim["control"]["checks"], "control")] if claim["control"] else [])
        lines += ["", f"## {claim['id']}: {claim['statement']}", ""]
        lines += [f"{claim['note']}.", ""] if claim["note"] else []
        lines += ["| check | of | estimate [95 % interval] | bound | holds |", "| --- " * 5 + "|"]
        lines += [_check(check, of) for found, of in checks for check in found]
    lines += ["", "## Figures"]
    for figure, caption in run.captions.items():
        lines += ["", f"![{caption}]({name}/{figure}.png)", "", caption]
        target = to / name / f"{figure}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "figures" / f"{figure}.png", target)
    shutil.copyfile(folder / "verdicts.json", to / name / "verdicts.json")
    environment = run.environment
    versions = ", ".join(f"{package} {number}" for package, number in environment["versions"].items())
    lines += ["", "## Made with", "", f"{versions}; commit {environment['commit']}; {environment['platform']}.", ""]
    write(to / f"{name}.md", "\n".join(lines).encode())
    return to / f"{name}.md"


def _row(claim: dict[str, Any]) -> str:
    control = f"{claim['control']['statement']}: **{claim['control']['verdict']}**" if claim["control"] else "none"
    found = effect(claim["effect"], claim["interval"], claim["unit"])
    return _cells(
        f"{claim['id']} {claim['statement']}", f"**{claim['verdict']}**", found, claim["rule"], control, claim["paper"]
    )


def _check(check: dict[str, Any], of: str) -> str:
    found = effect(check["estimate"], [check["low"], check["high"]])
    return _cells(
        check["name"],
        of,
        found,
        check["bound"],
        {"supported": "yes", "not supported": "no"}.get(check["verdict"], "open"),
    )


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"

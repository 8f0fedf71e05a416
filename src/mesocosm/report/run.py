"""A finished run as pages show it, read from its folder alone."""

import dataclasses
import re
import shlex
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mesocosm.lab.files import RunError, read_json
from mesocosm.lab.folder import Request, load_study, read_request
from mesocosm.lab.progress import duration
from mesocosm.lab.study import Study


@dataclass(frozen=True)
class Run:
    """What a run folder holds, with the study it is a run of."""

    folder: Path
    request: Request
    study: Study
    environment: dict[str, Any]
    claims: list[dict[str, Any]]
    captions: dict[str, str]
    """Of the figures, by name."""

    @property
    def machine(self) -> str:
        """`NVIDIA H200`, or `Intel Xeon Platinum 8370C, 2 threads`."""
        if self.environment["device"] != "cpu":
            return self.environment["device"]
        processor = re.sub(r"\((R|TM)\)| CPU| @.*", "", self.environment["processor"]) or "a CPU"
        return f"{processor}, {counted(self.environment['threads'], 'thread')}"

    @property
    def date(self) -> datetime:
        """When its training ended."""
        return datetime.fromisoformat(self.environment["finished"])

    @property
    def summary(self) -> str:
        """`16 seeds; 3 min 20 s of training on NVIDIA H200; preset small except steps; 2026-09-11`."""
        trained = duration(self.environment["wall_seconds"])
        changed = ", ".join(s["name"] for s in self.settings if s["value"] != s["preset"])
        recipe = f"preset {self.request.preset}" + (f" except {changed}" if changed else "")
        recipe += f"; model {self.request.model}" if self.request.model else ""
        recipe += f"; {self.request.precision}" if self.request.precision != "float32" else ""
        seeds = counted(self.request.config.seeds, "seed")
        return f"{seeds}; {trained} of training on {self.machine}; {recipe}; {self.date:%Y-%m-%d}"

    @property
    def settings(self) -> list[dict[str, Any]]:
        """Each setting's name, meaning, value and the preset's value."""
        preset, config = self.study.presets[self.request.preset], self.request.config
        return [
            {
                "name": field.name,
                "help": field.metadata.get("help", ""),
                "value": getattr(config, field.name),
                "preset": getattr(preset, field.name),
            }
            for field in dataclasses.fields(config)
        ]

    @property
    def command(self) -> str:
        """The command line that runs it again."""
        words = ["mesocosm", "run", self.request.study, "--preset", self.request.preset]
        words += ["--model", self.request.model] if self.request.model else []
        words += ["--precision", self.request.precision] if self.request.precision != "float32" else []
        for s in self.settings:
            flag, value = s["name"].replace("_", "-"), s["value"]
            if value == s["preset"]:
                continue
            if isinstance(value, bool):
                words.append(f"--{flag}" if value else f"--no-{flag}")
            else:
                words += [f"--{flag}", *map(str, value if isinstance(value, tuple) else [value])]
        return shlex.join(words)


def read_run(folder: Path) -> Run:
    """Read a finished run.

    Raises:
        UserError: when `folder` holds no run.
        RunError: when a file of it is missing or damaged, naming the command that makes it again.
    """
    request = read_request(folder)

    def needs(name: str, command: str) -> Path:
        if not (folder / name).is_file():
            raise RunError(f"{folder} has no {name} yet; make it with `mesocosm {command} {folder}`")
        return folder / name

    environment = read_json(needs("environment.json", "resume"))
    needs("records.parquet", "resume")
    claims = read_json(needs("verdicts.json", "judge"))["claims"]
    captions = read_json(needs("figures/captions.json", "draw"))["captions"]
    for name in captions:
        needs(f"figures/{name}.svg", "draw")
        needs(f"figures/{name}.png", "draw")
    return Run(folder, request, load_study(request.study), environment, claims, captions)


def outcome(claims: list[dict[str, Any]]) -> str:
    """`4 of 5 claims supported, 1 inconclusive`."""
    count = Counter(claim["verdict"] for claim in claims)
    parts = [f"{count['supported']} of {counted(len(claims), 'claim')} supported"]
    parts += [f"{count[v]} {v}" for v in ("not supported", "inconclusive") if count[v]]
    return ", ".join(parts)


def counted(count: int, noun: str, plural: str = "") -> str:
    """`1 seed`, `16 seeds`."""
    return f"{count} {noun if count == 1 else plural or noun + 's'}"

"""The run folder: where a run's files lie, what identifies it, and who may write to it."""

import dataclasses
import hashlib
import json
import logging
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from mesocosm.lab.files import RunError, UserError, read_json, write_json
from mesocosm.lab.study import Config, Study
from mesocosm.pieces import pieces

FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Request:
    """What is to be run; its identity decides what a later command may resume."""

    study: str
    preset: str
    config: Config
    model: str | None = None
    """`package.module:Name` of the architecture that replaces the study's own."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Of matrix products in training."""

    def identity(self) -> str:
        """Hash of all that can change a record."""
        facts = [self.study, dataclasses.asdict(self.config), self.model, version("mesocosm")]
        facts += [self.precision] if self.precision != "float32" else []
        return hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=4).hexdigest()


def load_study(name: str) -> Study:
    """The study of this name.

    Raises:
        UserError: listing the studies there are.
    """
    known = pieces("study")
    if name not in known:
        raise UserError(f"there is no study {name!r}; choose from: {', '.join(known)}")
    study = known[name].load()
    assert isinstance(study, Study)
    return study


def create(request: Request, out: Path | None) -> Path:
    """Make a run's folder, or find the unfinished one that this request resumes.

    Raises:
        UserError: when `out` holds something else.
    """
    facts = {"format": FORMAT, "study": request.study, "preset": request.preset, "model": request.model}
    facts |= {"precision": request.precision, "config": dataclasses.asdict(request.config)}
    facts |= {"identity": request.identity()}
    return find_or_make(Path("runs") / request.study, out, "config", facts)


def find_or_make(room: Path, out: Path | None, name: str, facts: dict[str, Any]) -> Path:
    """A folder whose `<name>.json` holds `facts`: a new one, or the unfinished one of the same identity.

    Args:
        room: where a folder is made unless `out` names it.

    Raises:
        UserError: when `out` holds something else.
    """
    identity = facts["identity"]
    if out is None:
        for folder in sorted(room.glob(f"*-{identity}"), reverse=True):
            if (folder / f"{name}.json").exists() and not finished(folder):
                return folder
        stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
        folder = room / f"{stamp}-{identity}"
        while folder.exists():
            stamp += "b"
            folder = room / f"{stamp}-{identity}"
    else:
        folder, what = out, {"config": "run"}.get(name, name)
        if (folder / f"{name}.json").exists():
            earlier = read_json(folder / f"{name}.json")
            if earlier["identity"] != identity:
                other = f"a {what} of {earlier['study']} with another configuration"
                raise UserError(f"--out {folder} holds {other}; choose an empty folder")
            if finished(folder):
                raise UserError(f"--out {folder} holds this very {what}, finished; choose an empty folder")
            return folder
        # A process that was killed may have left a temporary file.
        if folder.exists() and (not folder.is_dir() or any(path.suffix != ".tmp" for path in folder.iterdir())):
            raise UserError(f"--out {folder} is not an empty folder; choose another")
    write_json(folder / f"{name}.json", facts)
    return folder


def finished(folder: Path) -> bool:
    """Whether a run is whole: its page is written last."""
    return (folder / "report.html").exists()


def read_request(folder: Path) -> Request:
    """The request that a run folder was made for.

    Raises:
        UserError: when `folder` holds no run.
        RunError: when its configuration is damaged, or no longer one of the study.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.json")
    return request_of(read_json(folder / "config.json"), folder)


def request_of(facts: dict[str, Any], folder: Path) -> Request:
    """The request that a folder's facts tell.

    Raises:
        RunError: when it is no longer one of the study.
    """
    if facts["format"] != FORMAT:
        raise RunError(f"{folder} has format {facts['format']}, this version of mesocosm reads format {FORMAT}")
    study = load_study(facts["study"])
    kind: Any = type(next(iter(study.presets.values())))
    values = {name: tuples(value) for name, value in facts["config"].items()}
    try:
        config = kind(**values)
    except (TypeError, ValueError) as error:
        raise RunError(f"{folder} was made by another version of {facts['study']}: {error}") from error
    return Request(facts["study"], facts["preset"], config, facts["model"], facts.get("precision", "float32"))


def tuples(value: Any) -> Any:
    """A value of a JSON file as settings hold it."""
    return tuple(map(tuples, value)) if isinstance(value, list) else value


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a run's folder against other processes.

    Raises:
        UserError: when another process holds it.
    """
    from filelock import FileLock, Timeout

    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout as error:
        raise UserError(f"{folder} is in use by another mesocosm process; wait for it, or stop it") from error


def log_to(folder: Path) -> logging.Logger:
    """The logger of a run, appending to its `run.log`."""
    logger = logging.getLogger("mesocosm.run")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    handler = logging.FileHandler(folder / "run.log")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    return logger


def environment(device: str, stack: int | None, compiled: bool) -> dict[str, Any]:
    """Versions, device, threads, commit and command line of this process."""
    import torch

    packages = ["mesocosm", "torch", "numpy", "scipy", "pandas", "pyarrow", "safetensors", "scikit-learn", "matplotlib"]
    commit = subprocess.run(
        ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"],
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "format": FORMAT,
        "versions": {"python": platform.python_version(), **{p: version(p) for p in packages}},
        "platform": platform.platform(),
        "processor": _processor(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "compiled": compiled,
        "stack": stack,
        "commit": commit.stdout.strip() or None,
        "command": ["mesocosm", *sys.argv[1:]],
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()

"""Jobs as tasks of a Ray cluster, started on this machine or one that is there already.

A task does one job, with one thread or one GPU. Ray does it again elsewhere when its worker or its node dies, and
where the run folder is seen from there, it goes on from the job's own checkpoint.
"""

import importlib.util
import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any

from mesocosm.lab.files import RunError, UserError
from mesocosm.lab.interruption import first_ctrl_c
from mesocosm.lab.jobs import Job, train_job
from mesocosm.lab.overview import Overview, Reporter

if TYPE_CHECKING:
    from mesocosm.training.history import Saved

RETRIES = 5
"""How often a job is done again because its worker died."""

PROCESS = 500 * 2**20
"""Bytes of a worker before it trains anything."""

POLL_SECONDS = 0.25
PATIENCE_SECONDS = 20
"""For interrupted jobs to keep their checkpoints."""


def check(on: str) -> None:
    """See that Ray is there, before anything is started.

    Raises:
        UserError: when it is not, or `on` names no cluster.
    """
    if on != "ray" and not re.fullmatch(r"ray://[^\s/:]+:\d+", on):
        raise UserError(f"--on {on} is not legal: it must be ray, or ray://HOST:PORT of a cluster's client server")
    if importlib.util.find_spec("ray") is None:
        raise UserError("--on ray needs Ray: pip install 'mesocosm[cluster]'")


@contextmanager
def connected(on: str, device: str) -> Iterator["OnRay"]:
    """Ray at `on`, left as it was found: one that is started here ends with this context.

    `ray` is the cluster at `RAY_ADDRESS` where that is set, and one on this machine otherwise.

    Raises:
        UserError: when there is no such cluster, or it has no such device.
    """
    check(on)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS", "local") if on == "ray" else on
    _reach(on, address)
    start = partial(ray.init, address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        try:
            try:
                start()
            except ConnectionAbortedError:
                # On a busy machine the server that Ray starts for a client may miss its half a minute.
                ray.shutdown()
                start()
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            raise UserError(
                f"--on {on}: the Ray cluster at {address} is not to be used: {_first_line(error)}"
            ) from error
        yield OnRay(device)
    finally:
        ray.shutdown()


def _reach(on: str, address: str) -> None:
    """See that something listens at a cluster's address, for which Ray itself would wait for minutes."""
    host, _, port = address.rpartition("//")[2].rpartition(":")
    if not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"--on {on}: there is no Ray cluster at {address}: {error.strerror or error}") from error


class OnRay:
    """Does jobs on the cluster that this process is connected to.

    Args:
        device: `cpu` gives each job a core, `cuda` a GPU.
    """

    def __init__(self, device: str) -> None:
        import ray

        self.device = device
        kind = "GPU" if device == "cuda" else "CPU"
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fit = [resources for resources in alive if resources.get(kind, 0) >= 1]
        if device == "cuda" and not fit:
            raise UserError(f"--device cuda is not legal here: none of the cluster's {len(alive)} nodes has a GPU")
        self.nodes = len(fit)
        # Nodes of a cluster that grows on demand may not be there yet.
        self.workers = max(1, sum(int(resources[kind]) for resources in fit))
        self.largest = max((resources.get("memory", 0.0) for resources in fit), default=0.0) or float("inf")
        self.memory = max(self.largest - PROCESS, PROCESS)

    def carry_out(self, jobs: Sequence[Job], done: "Callable[[Job, Saved], None]", overview: Overview) -> None:
        import ray

        board: Any = ray.remote(num_cpus=0, max_restarts=-1)(Board).remote()
        task = ray.remote(max_retries=RETRIES)(train_here)
        running = {
            task.options(**self._needs(job)).remote(job, versions(), board, i): job for i, job in enumerate(jobs)
        }
        # Code of Ray's may swallow the exception that Ctrl-C raises.
        failed, stopping = None, Event()
        with first_ctrl_c(stopping.set):
            try:
                while running:
                    if stopping.is_set():
                        raise KeyboardInterrupt
                    ready, _ = ray.wait(list(running), timeout=POLL_SECONDS, fetch_local=False)
                    for reference in ready:
                        failed = _deliver(reference, running.pop(reference), done, overview) or failed
                    unfinished = set(running.values())
                    for number, facts in _news(board).items():
                        if jobs[number] in unfinished:
                            overview.hear(jobs[number], facts)
            finally:
                if running:
                    for reference in running:
                        ray.cancel(reference)
                    ray.wait(list(running), num_returns=len(running), timeout=PATIENCE_SECONDS, fetch_local=False)
                ray.kill(board)
        if failed:
            raise failed

    def _needs(self, job: Job) -> dict[str, Any]:
        memory = int(min(job.memory + PROCESS, self.largest))
        return {"num_cpus": 1, "num_gpus": 1 if job.device == "cuda" else 0, "memory": memory}


class Board:
    """Where jobs say how they go."""

    def __init__(self) -> None:
        self.news: dict[int, dict[str, Any]] = {}

    def tell(self, number: int, facts: dict[str, Any]) -> None:
        self.news[number] = facts

    def read(self) -> dict[int, dict[str, Any]]:
        return self.news


def train_here(job: Job, driver: dict[str, str], board: Any, number: int) -> "Saved":
    """The task of a worker."""
    import torch

    if versions() != driver:
        found = ", ".join(f"{name} {version}" for name, version in versions().items())
        wanted = ", ".join(f"{name} {version}" for name, version in driver.items())
        raise UserError(f"a worker has {found}, and this process {wanted}: install the same everywhere")
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)  # Ctrl-C in a terminal is for the driver alone, which then interrupts its jobs.
    if job.device == "cpu":
        torch.set_num_threads(1)
    return train_job(job, Reporter(lambda facts: board.tell.remote(number, facts)))


def versions() -> dict[str, str]:
    """Of what decides over records."""
    from importlib.metadata import version

    return {name: version(name) for name in ("mesocosm", "torch")}


def _deliver(reference: Any, job: Job, done: "Callable[[Job, Saved], None]", overview: Overview) -> RunError | None:
    """Hand over what a job gave; the error that it failed with, if it did."""
    try:
        saved = _result(reference, job)
    except RunError as error:
        overview.fail(job, error)
        return error
    done(job, saved)
    return None


def _result(reference: Any, job: Job) -> "Saved":
    """What a job gave.

    Raises:
        UserError: when its worker is not set up for it.
        RunError: when it failed.
    """
    import ray

    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        cause = error.cause
        if isinstance(cause, UserError):
            raise UserError(f"{job.title}: {cause}") from error
        raise RunError(f"{job.title} failed on a worker: {type(cause).__name__}: {_first_line(cause)}") from error
    except ray.exceptions.RayError as error:
        raise RunError(
            f"{job.title} failed on {RETRIES + 1} workers ({type(error).__name__}: {_first_line(error)}); a job is too "
            "large for them, or they have no mesocosm that works"
        ) from error


def _news(board: Any) -> dict[int, dict[str, Any]]:
    """What the board says; nothing while it moves to another node."""
    import ray

    try:
        return ray.get(board.read.remote(), timeout=5)
    except ray.exceptions.RayError:
        return {}


def _first_line(error: object) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)

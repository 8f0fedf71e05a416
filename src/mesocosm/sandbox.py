"""Run Python that a model wrote, with no way out.

Programs run in `pydantic-monty`, an interpreter of a subset of Python that can reach no file, process, network or clock
of the host. It lives in worker processes of its own: what crashes or hangs there ends that worker alone. Where the
package is absent nothing runs; there is no weaker substitute. The interpreter is young: against an adversary with time
and skill, put the whole process into a virtual machine as well.

    >>> execute("cats = 3\\nresult = 2 * cats").value
    6
"""

import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from mesocosm.settings import Settings, setting

if TYPE_CHECKING:
    from pydantic_monty import Monty, MontyError

__all__ = ["Limits", "Outcome", "execute", "execute_all"]

Status = Literal["ok", "error", "timeout", "memory", "recursion", "syntax", "unsupported", "no result", "crashed"]
STATUS_OF: dict[str, Status] = {
    "TimeoutError": "timeout",
    "MemoryError": "memory",
    "RecursionError": "recursion",
    "SyntaxError": "syntax",
    "NotImplementedError": "unsupported",
    "ModuleNotFoundError": "unsupported",
    "ImportError": "unsupported",
}
GRACE = 1.0
"""Seconds past its limit after which a worker that still runs is killed."""
SUSPENSIONS = 10
"""Times that a program may ask its host, as it does for each unknown name; each restarts the host's wall clock."""
REASON_LENGTH = 300
PROGRAMS_PER_WORKER = 1000
_process: int | None = None
"""The process that has run programs."""


@dataclass(frozen=True, kw_only=True)
class Limits(Settings):
    """What one program may use.

    Raises:
        ValueError: naming the field, its value and what is legal.
    """

    seconds: float = setting(0.5, "seconds that the program may run, and its entry again", low=0.001, high=3600)
    memory: int = setting(64 * 2**20, "bytes of memory", low=2**20, high=2**34)
    recursion: int = setting(200, "depth of calls", low=10, high=1000)
    output: int = setting(2**16, "bytes of printed text, and characters of the value", low=1, high=2**24)
    source: int = setting(20_000, "characters of the program", low=1, high=10**7)


@dataclass(frozen=True)
class Outcome:
    """What became of a program."""

    status: Status
    """"ok", or why there is no value: it raised ("error"), met a limit ("timeout", "memory" also for too much text,
    "recursion"), cannot be parsed or is too long ("syntax"), needs a module or a feature that the interpreter lacks
    ("unsupported"), ended without the value asked for ("no result"), or broke its worker ("crashed"). A program that
    itself raises the exception of a limit counts as having met it."""
    value: Any = None
    """int, float (also NaN and infinite), bool, str, None, or lists of these; tuples come as lists."""
    stdout: str = ""
    """What it printed, on both streams."""
    seconds: float = 0.0
    """Wall time."""
    reason: str = ""
    """Exception and message, or what the matter is; empty if ok."""


def execute(source: str, limits: Limits | None = None, *, entry: str = "result") -> Outcome:
    """Run one program and give the value of `entry` after it.

    Starting a worker takes most of the time: `execute_all` runs many programs faster.

    Args:
        entry: Expression of the value, trusted: a variable such as `result`, or a call, `simple_math_problem()`.

    Raises:
        ModuleNotFoundError: without `pydantic-monty`.
        ValueError: when an argument is not legal; never for what the program does.
    """
    return execute_all([source], limits, entry=entry)[0]


def execute_all(
    sources: Sequence[str], limits: Limits | None = None, *, entry: str = "result", workers: int = 1
) -> list[Outcome]:
    """Outcomes of many programs in their order, run by so many `workers` at once.

    Every program starts afresh: it sees nothing of those before it. Random numbers and the date are the same in every
    run. All workers have ended when this returns. It may be called from any thread.

    Raises:
        ModuleNotFoundError, ValueError: as `execute`.
        RuntimeError: in a process forked from one that has run programs, and when no worker can be started.
    """
    limits = limits or Limits()
    _check(sources, entry, workers)
    _refuse_forked()
    worker = _worker()
    from pydantic_monty import Monty

    with (
        Monty(
            binary_path=worker,
            max_processes=workers,
            request_timeout=limits.seconds + GRACE,
            feed_duration_limit_grace=GRACE,
            max_checkouts_per_worker=PROGRAMS_PER_WORKER,
        ) as pool,
        ThreadPoolExecutor(workers) as threads,
    ):
        return list(threads.map(lambda source: _run(pool, source, limits, entry), sources))


def _worker() -> Path:
    """The package's own interpreter, never another `monty` that the environment or the PATH names."""
    try:
        import pydantic_monty  # noqa: F401

        files = metadata.files("pydantic-monty-runtime") or []
        return next(Path(file.locate()) for file in files if file.stem == "monty")
    except (ModuleNotFoundError, StopIteration) as error:
        message = "running programs needs the package pydantic-monty: pip install 'mesocosm[sandbox]'"
        raise ModuleNotFoundError(message, name="pydantic_monty") from error


def _refuse_forked() -> None:
    """A child shares the event queue of its parent's pool: both would hang."""
    global _process
    if _process not in (None, os.getpid()):
        raise RuntimeError("this process was forked from one that has run programs: start it with 'spawn' instead")
    _process = os.getpid()


def _check(sources: Sequence[str], entry: str, workers: int) -> None:
    if isinstance(sources, str):
        raise ValueError(f"sources={sources[:60]!r} is not legal: it must be a list of programs")
    for number, source in enumerate(sources):
        if not isinstance(source, str):
            raise ValueError(f"sources[{number}]={str(source)[:60]} is not legal: it must be the text of a program")
    try:
        compile(entry, "entry", "eval")
    except (SyntaxError, ValueError, TypeError) as error:
        raise ValueError(f"entry={entry!r} is not legal: it must be a Python expression") from error
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= 256:
        raise ValueError(f"workers={workers!r} is not legal: it must be an integer from 1 to 256")


def _run(pool: "Monty", source: str, limits: Limits, entry: str) -> Outcome:
    from pydantic_monty import CollectString, MontyError

    if len(source) > limits.source:
        return Outcome("syntax", reason=f"the program has {len(source)} characters, more than {limits.source}")
    printed = CollectString(limits.output)
    began = time.perf_counter()
    status: Status
    value, asked = None, False
    try:
        with pool.checkout(
            limits={
                "max_feed_duration_secs": limits.seconds,
                "max_memory": limits.memory,
                "max_recursion_depth": limits.recursion,
                "max_suspensions": SUSPENSIONS,
                "max_total_sleep_secs": 0.0,
            },
            os_policy={"random_start": {"seed": 0}, "datetime": datetime(2000, 1, 1)},
        ) as session:
            session.feed_run(source, print_callback=printed)
            asked = True
            text = session.feed_run(f"import json as _json\n_json.dumps({entry})", print_callback=printed)
        status, value, reason = _decode(text, limits)
    except MontyError as error:
        status, reason = _explain(error, asked)
    return Outcome(status, value, printed.output, time.perf_counter() - began, reason)


def _decode(text: object, limits: Limits) -> tuple[Status, Any, str]:
    if not isinstance(text, str):
        return "crashed", None, "the worker gave no text"
    if len(text) > limits.output:
        return "memory", None, f"the value takes {len(text)} characters, more than {limits.output}"
    try:
        return "ok", json.loads(text, object_pairs_hook=_refuse), ""
    except (ValueError, RecursionError) as error:
        return "error", None, f"{type(error).__name__}: {error}"[:REASON_LENGTH]


def _refuse(pairs: list[tuple[str, Any]]) -> NoReturn:
    raise ValueError("a dict is no value here")


def _explain(error: "MontyError", asked: bool) -> tuple[Status, str]:
    """Status and reason of what a program raised, before or when its value was `asked` for."""
    from pydantic_monty import MontyCrashedError, MontyRuntimeError

    if isinstance(error, MontyCrashedError):
        return "timeout" if error.timed_out else "crashed", str(error)[:REASON_LENGTH]
    name, reason = type(error.exception()).__name__, str(error)[:REASON_LENGTH]
    if asked and name == "NameError" and isinstance(error, MontyRuntimeError) and len(error.traceback()) == 1:
        return "no result", reason
    return STATUS_OF.get(name, "error"), reason

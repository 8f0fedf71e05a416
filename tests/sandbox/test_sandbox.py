"""Programs that mean no harm, legal arguments, workers that fail, and machines without the sandbox."""

import contextlib
import io
import math
import os
import random
import signal
import sys
import threading
import time
from contextlib import suppress
from importlib import metadata
from pathlib import Path

import pytest

pytest.importorskip("pydantic_monty", reason="pydantic-monty runs the programs")

from mesocosm.sandbox import Limits, execute, execute_all


def _workers() -> list[int]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread may end while it is asked
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


NAMES = [f"{thing}_{what}" for thing in ("cats", "eggs", "pens") for what in ("bought", "lost", "each")]


def _expression(rng: random.Random, names: list[str], depth: int) -> str:
    if depth == 0 or rng.random() < 0.2:
        return rng.choice([*names, str(rng.randint(0, 60)), f"{rng.randint(0, 900) / 100}"])
    left, right = (_expression(rng, names, depth - 1) for _ in range(2))
    return rng.choice(
        [
            *(f"({left} {operator} {right})" for operator in ("+", "-", "*", "/", "//", "%")),
            f"(-{left})",
            f"({left}) ** {rng.randint(0, 3)}",
            f"({left} if {left} {rng.choice(['<', '==', '>='])} {right} else {right})",
            f"round({left}, {rng.randint(0, 3)})",
            f"round({left})",
            f"abs({left})",
            f"int({left})",
            f"float({left})",
            f"min({left}, {right})",
            f"max({left}, {right})",
            f"sum([{left}, {right}, 1])",
            f"sum(i * {left} for i in range({rng.randint(0, 9)}))",
            f"len(str({left}))",
            f"math.ceil({left})",
            f"math.floor({left})",
            f"math.sqrt(abs({left}))",
            f"({left} and {right})",
            f"({left} in [1, 2, {right}])",
        ]
    )


def _program(rng: random.Random) -> str:
    """A program like TinyGSM's: assignments, a branch or a loop, and a result."""
    lines, names = ["import math", '"""What is asked."""'], []
    for name in rng.sample(NAMES, rng.randint(2, 6)):
        lines.append(f"{name} = {_expression(rng, names, rng.randint(0, 3))}  # a step")
        names.append(name)
    name = rng.choice(names)
    kind = rng.randrange(4)
    if kind == 1:
        lines += [f"if {_expression(rng, names, 1)} > {rng.randint(0, 40)}:", f"    {name} += 1", "else:", "    pass"]
    elif kind == 2:
        lines += [f"for day in range({rng.randint(0, 12)}):", f"    {name} -= day", f"    {name} *= 1.5"]
    elif kind == 3:
        lines += ["days = 0", "while days < 7:", "    days += 1", "    if days % 5 == 0: break", f"    {name} += days"]
    lines += [f"print('so', {name})", f"result = {_expression(rng, names, 2)}", "return result"]
    body = "".join(f"    {line}\n" for line in lines)
    return f"def simple_math_problem() -> int:\n{body}"


def _plain(source: str) -> tuple[str, object, str]:
    """What CPython makes of a program: its exception's name or "ok", its value, and what it printed."""
    names: dict = {"math": math}
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            exec(source, names)
            return "ok", names["simple_math_problem"](), printed.getvalue()
    except (ArithmeticError, ValueError, TypeError) as error:
        return type(error).__name__, None, printed.getvalue()


def test_benign_programs_give_what_cpython_gives():
    rng = random.Random(0)
    sources = [_program(rng) for _ in range(400)]
    outcomes = execute_all(sources, entry="simple_math_problem()", workers=2)
    finite = 0
    for source, outcome in zip(sources, outcomes):
        kind, value, printed = _plain(source)
        name = "ok" if outcome.status == "ok" else outcome.reason.split(":")[0]
        assert (name, outcome.stdout, type(outcome.value)) == (kind, printed, type(value)), source
        assert outcome.value == value, source
        finite += kind == "ok"
    assert finite >= 250  # Most of them give a value, so that the comparison means something.


@pytest.mark.parametrize(
    "value",
    ["0", "-7", "10 ** 40", "0.1 + 0.2", "-0.0", "5e-324", "1e400", "-1e400", "True", "None", "'é\\n\"'", "[1, [2.0]]"],
)
def test_values_come_back_exactly(value):
    outcome = execute(f"result = {value}")
    assert outcome.status == "ok" and outcome.reason == ""
    assert repr(outcome.value) == repr(eval(value))


def test_nan_and_tuples():
    nan, pair = execute_all(["result = float('nan')", "result = (1, (2, 3))"])
    assert nan.status == "ok" and math.isnan(nan.value)
    assert pair.value == [1, [2, 3]]


@pytest.mark.parametrize("value", ["{1: 2}", "[{}]", "{1, 2}", "b'a'", "1j", "range(3)", "len", "lambda: 1", "..."])
def test_other_values_are_errors(value):
    outcome = execute(f"result = {value}")
    assert outcome.status == "error" and outcome.value is None and outcome.reason


def test_the_entry_is_a_variable_or_a_call():
    source = "def simple_math_problem():\n    return 2 * eggs\neggs = 6\nanswer = 13"
    assert execute(source, entry="simple_math_problem()").value == 12
    assert execute(source, entry="answer").value == 13
    assert execute(source).status == "no result"
    inner = execute("def f():\n    return nothing", entry="f()")
    assert inner.status == "error" and "nothing" in inner.reason


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("1 / 0", "error", "ZeroDivisionError: division by zero"),
        ("raise ValueError('no')", "error", "ValueError: no"),
        ("x = ", "syntax", ""),
        ("", "no result", "NameError"),
        ("def f():\n    yield 1", "unsupported", "NotImplementedError"),
        ("import numpy", "unsupported", "ModuleNotFoundError"),
        ("from math import nothing", "unsupported", "ImportError"),
    ],
)
def test_failures_are_named(source, status, reason):
    outcome = execute(source)
    assert outcome.status == status and outcome.reason.startswith(reason) and outcome.value is None


def test_what_was_printed_is_kept_up_to_the_cap():
    small = Limits(output=100)
    kept, cut, failed = execute_all(["print('a', 1)\nresult = 2", "print('a' * 101)", "print('before')\n1 / 0"], small)
    assert (kept.stdout, kept.value) == ("a 1\n", 2)
    assert cut.status == "memory" and len(cut.stdout) <= 100
    assert (failed.status, failed.stdout) == ("error", "before\n")


@pytest.mark.parametrize(
    ("limits", "source", "status"),
    [
        (Limits(seconds=0.001), "for i in range(10**6): pass", "timeout"),
        (Limits(memory=2**21), "x = [1] * 10**6\nresult = 1", "memory"),
        (Limits(recursion=20), "def f(n): return 0 if n == 0 else 1 + f(n - 1)\nresult = f(30)", "recursion"),
        (Limits(source=10), "result = 12", "syntax"),
    ],
)
def test_each_limit_binds_and_is_not_met_without(limits, source, status):
    assert execute(source, limits).status == status
    assert execute(source, Limits(seconds=60, memory=2**26)).status in ("ok", "no result")


def test_outcomes_keep_their_order_in_any_number_of_workers():
    sources = [f"import time\nfor i in range({1000 * (n % 7)}): pass\nresult = {n}" for n in range(60)]
    for workers in (1, 3):
        assert [outcome.value for outcome in execute_all(sources, workers=workers)] == list(range(60))
    assert execute_all([]) == []


def test_chance_and_dates_repeat():
    source = "import random, datetime\nresult = [random.random(), str(datetime.date.today())]"
    assert execute(source).value == execute(source).value


def _strike(blow: signal.Signals) -> None:
    """Hit the one worker of this process as soon as it has started to work."""
    while not _workers():
        time.sleep(0.01)
    time.sleep(0.2)
    os.kill(_workers()[0], blow)


@pytest.mark.parametrize(("blow", "status"), [(signal.SIGSTOP, "timeout"), (signal.SIGKILL, "crashed")])
def test_a_worker_that_hangs_or_dies_is_replaced(blow, status):
    """A stopped worker heeds no limit: only the parent's wall clock ends it."""
    striker = threading.Thread(target=_strike, args=(blow,))
    striker.start()
    limits = Limits(seconds=1.0)
    outcomes = execute_all(["while True: pass", *(f"result = {n}" for n in range(20))], limits)
    striker.join()
    assert [outcomes[0].status, *(outcome.value for outcome in outcomes[1:])] == [status, *range(20)]
    assert _workers() == []


@pytest.mark.parametrize("daemon", [False, True])
def test_it_runs_in_other_threads(daemon):
    found = []
    thread = threading.Thread(target=lambda: found.append(execute("result = 5").value), daemon=daemon)
    thread.start()
    thread.join()
    assert found == [5] and _workers() == []


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_is_refused_and_its_parent_unharmed():
    assert execute("result = 1").value == 1
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # Ends it should it hang.
        try:
            execute("result = 1")
        except RuntimeError as error:
            os._exit(7 if "spawn" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert execute("result = 2").value == 2


def test_without_the_package_nothing_runs(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydantic_monty", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mesocosm\[sandbox\]'"):
        execute("result = 1")


@pytest.mark.parametrize("files", [None, []])
def test_without_its_worker_nothing_runs(monkeypatch, files):
    def find(name):
        if files is None:
            raise metadata.PackageNotFoundError(name)
        return files

    monkeypatch.setattr(metadata, "files", find)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'mesocosm\[sandbox\]'"):
        execute("result = 1")


def test_no_other_worker_is_taken(monkeypatch, tmp_path):
    other = tmp_path / "monty"
    other.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    other.chmod(0o755)
    monkeypatch.setenv("MONTY_BIN", str(other))
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert execute("result = 1").value == 1 and not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": "result = 1"}, "sources='result = 1' is not legal: it must be a list of programs"),
        ({"sources": ["x", b"y"]}, r"sources\[1\]=b'y' is not legal: it must be the text of a program"),
        ({"sources": ["x"], "entry": "result ="}, "entry='result =' is not legal"),
        ({"sources": ["x"], "entry": ""}, "entry='' is not legal"),
        ({"sources": ["x"], "workers": 0}, "workers=0 is not legal: it must be an integer from 1 to 256"),
        ({"sources": ["x"], "workers": True}, "workers=True is not legal"),
    ],
)
def test_illegal_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        execute_all(**arguments)


@pytest.mark.parametrize(
    "limit", [{"seconds": 0}, {"seconds": math.inf}, {"memory": 1}, {"recursion": 5000}, {"output": 0}]
)
def test_illegal_limits(limit):
    (name,) = limit
    with pytest.raises(ValueError, match=f"{name}=.* is not legal: it must be"):
        Limits(**limit)

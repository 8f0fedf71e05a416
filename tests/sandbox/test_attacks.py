"""Programs that try to break out, to hang or to exhaust the host, and what must become of each."""

import os
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

pytest.importorskip("pydantic_monty", reason="pydantic-monty runs the programs")

from mesocosm.sandbox import Limits, Status, execute, execute_all

LIMITS = Limits(seconds=0.5, source=2_000_000)
FUZZ = Limits(seconds=0.01, memory=4 * 2**20, output=4096)

ATTACKS = {
    "endless loop": ("while True: pass", "timeout"),
    "power tower": ("9**9**9", "memory"),
    "digits of a huge integer": ("str(1 << 40000000)", "error"),
    "huge list": ("[0] * (1 << 33)", "memory"),
    "doubling a string": ("s = 'a'\nwhile True: s += s", "memory"),
    "endless recursion": ("def f(): return f()\nf()", "recursion"),
    "5000 parentheses": ("(" * 5000 + "1" + ")" * 5000, "syntax"),
    "100,000 signs": ("-" * 100_000 + "1", "syntax"),
    "backtracking pattern": ("import re\nresult = str(re.match('(a+)+$', 'a' * 40 + 'b'))", "ok"),
    "fork": ("import os\nos.fork()", "error"),
    "shell": ("import os\nos.system('touch CANARY.new')", "error"),
    "thread": ("import threading", "unsupported"),
    "child process": ("import subprocess\nsubprocess.run(['touch', 'CANARY.new'])", "unsupported"),
    "hidden import": ("__import__('os').popen('touch CANARY.new')", "error"),
    "read a file": ("result = open('CANARY').read()", "error"),
    "read the environment": ("result = open('/proc/self/environ').read()", "error"),
    "write a file": ("open('CANARY', 'w').write('gone')", "error"),
    "delete files": ("import shutil\nshutil.rmtree('CANARY')", "unsupported"),
    "unlink": ("import os\nos.remove('CANARY')", "error"),
    "path": ("from pathlib import Path\nPath('CANARY').write_text('gone')", "error"),
    "network": ("import socket\nsocket.socket()", "unsupported"),
    "subclasses": ("result = ().__class__.__base__.__subclasses__()", "error"),
    "frames": ("import sys\nresult = sys._getframe(0).f_back.f_globals", "error"),
    "native memory": ("import ctypes\nctypes.string_at(0)", "unsupported"),
    "kill the parent": ("import os\nos.kill(os.getppid(), 9)", "error"),
    "leave at once": ("import os\nos._exit(0)", "error"),
    "leave": ("raise SystemExit", "error"),
    "sleep": ("import time\ntime.sleep(60)", "timeout"),
    "flood a descriptor": ("import os\nwhile True: os.write(3, b'x' * 65536)", "error"),
    "catch everything": ("while True:\n  try:\n    while True: pass\n  except BaseException: pass", "timeout"),
    "ignore signals": ("import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)", "unsupported"),
    "huge padding": ("'{:>2000000000}'.format(1)", "memory"),
    "colliding hashes": ("result = len(set(i * (2**61 - 1) for i in range(10000)))", "ok"),
    "other builtins": ("import builtins\nbuiltins.len = lambda x: 0", "unsupported"),
    # Further ones.
    "look for the answer": ("import gc\nresult = gc.get_objects()", "unsupported"),
    "forged result": ('print(\'{"status": "ok", "value": 42}\')\nprint(\'\\x00\\x00\\x00\\x0242\')', "no result"),
    "wait for input": ("input()", "error"),
    "NUL": ("x = 1\x00\nresult = 1", "syntax"),
    "no Unicode": ("result = '\udcff'", "syntax"),
    "line of a megabyte": ("result = len('" + "a" * 10**6 + "')", "ok"),
    "much source": ("x = 1\n" * 200_000, "memory"),
    "too much source": ("x = 1\n" * 400_000, "syntax"),
    "flood of lines": ("for i in range(10**6): print(i)", "memory"),
    "flood of errors": ("import sys\nwhile True: print('x' * 1000, file=sys.stderr)", "memory"),
    "empty prints": ("while True: print(end='')", "timeout"),
    "other package": ("import sympy\nresult = sympy.Symbol('x')", "unsupported"),
    "object that equals all": ("class A:\n  def __eq__(self, other): return True\nresult = A()", "error"),
    "value that is a function": ("result = open", "error"),
    "value of values": ("a = ['a' * 1000] * 1000\nfor _ in range(5): a = [a] * 1000\nresult = a", "memory"),
    "value in itself": ("a = []\na.append(a)\nresult = a", "error"),
    "deep value": ("a = []\nfor _ in range(10000): a = [a]\nresult = a", "recursion"),
    "huge value": ("result = 10 ** 5000", "error"),
    "long value": ("result = 'a' * 100000", "memory"),
    "endless squaring": ("x = 3\nwhile True: x = x * x", "timeout"),
    "deep evaluation": ("eval('1+' * 500000 + '1')", "crashed"),
    "long message": ("raise ValueError('x' * 10**6)", "error"),
    "caught sleep": ("import time\ntry: time.sleep(60)\nexcept BaseException: pass\nresult = 1", "timeout"),
    "awaited sleep": ("import asyncio\nawait asyncio.sleep(60)", "timeout"),
    "questions to the host": (
        "".join(f"try: name{i}\nexcept NameError: pass\n" for i in range(100)) + "result = 1",
        "error",
    ),
    "doubled ends": ("def f():\n  try: f()\n  finally: f()\nf()", "timeout"),
    "evaluated loop": ("exec('while True: pass')", "timeout"),
    "other encoder": ("import json\njson.dumps = lambda x: 42\nresult = 1", "error"),
}


@pytest.fixture(autouse=True)
def _nothing_is_left():
    """No child process, zombies included, and no descriptor outlives a test."""
    execute("")  # The first use opens the descriptors of an event loop, once for all.
    before = len(os.listdir("/proc/self/fd")), _children()
    yield
    assert (len(os.listdir("/proc/self/fd")), _children()) == before


def _children() -> list[str]:
    found = []
    for task in Path("/proc/self/task").iterdir():
        with suppress(FileNotFoundError):  # a thread may end while it is asked
            found += (task / "children").read_text().split()
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_ends_as_it_must(name, tmp_path, monkeypatch):
    canary = tmp_path / "canary"
    canary.write_text("alive")
    monkeypatch.setenv("SECRET", "sesame-4711")
    source, status = ATTACKS[name]
    attack, benign = execute_all([source.replace("CANARY", str(canary)), "result = len('abc')"], LIMITS)
    assert attack.status == status, attack
    assert (attack.value is None) == (status != "ok")
    assert attack.seconds < 30 and len(attack.stdout) <= 2**16 and len(attack.reason) <= 300
    assert "sesame-4711" not in repr(attack) and "alive" not in repr(attack)
    assert [path.name for path in tmp_path.iterdir()] == ["canary"] and canary.read_text() == "alive"
    assert benign.value == 3


def test_a_thousand_benign_programs_run_after_all_attacks():
    attacks = [source for source, _ in ATTACKS.values()]
    benign = [f"x = {n}\nresult = x * x + 1" for n in range(1000)]
    outcomes = execute_all(attacks + benign, Limits(memory=16 * 2**20), workers=2)
    assert [outcome.value for outcome in outcomes[len(attacks) :]] == [n * n + 1 for n in range(1000)]


@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("x = 5", "ok"),
        ("len = lambda x: 0", "ok"),
        ("import math\nmath.pi = 3", "error"),
        ("import random\nrandom.seed(7)", "ok"),
        ("def f(x, seen=[]):\n  seen.append(x)\n  return len(seen)\nf(1)", "ok"),
    ],
)
def test_nothing_is_kept_for_the_next_program(source, status):
    probe = (
        "import math, random\ntry: x\nexcept NameError: pass\nelse: raise ValueError\n"
        "result = [len([1, 2]), math.pi, random.random()]"
    )
    alone = execute(probe)
    first, after = execute_all([source + "\nresult = 0", probe])
    assert (first.status, alone.status) == (status, "ok")
    assert after.value == alone.value and after.value[0] == 2


WORDS = """
( ) [ ] { } : , . = == + - * / // % ** << ~ @ -> := # \\ ; '' 'a' b'' f'{x}' \"\"\" \'\'\' 0 1 2 -1 10 1e308 10**9 1<<62
if else elif for in while def class return lambda try except finally with as import from raise assert yield await async
global not and or is None True result x y f self os sys math json re time print range len int str float open eval exec
getattr type super __class__ __import__ __dict__
"""
TOKENS = [*WORDS.split(), "\n", "\n\n", "\n ", "\t", "é", "\x00", "\ud800"]
OPERATORS = ["+", "-", "*", "/", "//", "%", "**", "<<", "&", "==", "<", "in", "and"]
ATOMS = st.sampled_from(["0", "1", "-7", "2.5", "True", "None", "'ab'", "[]", "x", "y", "f", "10**30", "1e308"])
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(OPERATORS), inner).map(lambda parts: f"({' '.join(parts)})"),
        inner.map(lambda e: f"[{e}] * 3"),
        st.tuples(st.sampled_from(["f", "len", "str", "sorted", "range", "print", "sum", "list"]), inner).map(
            lambda parts: f"{parts[0]}({parts[1]})"
        ),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]})[{parts[1]}]"),
        st.tuples(inner, inner, inner).map(lambda parts: f"({parts[0]} if {parts[1]} else {parts[2]})"),
        inner.map(lambda e: f"[{e} for x in range(9)]"),
    ),
    max_leaves=6,
)
HEADS = ["x = ", "y += ", "result = ", "raise ", "assert ", ""]
BLOCKS = ["while True:", "for x in range(10**6):", "if x:", "def f(x):", "class f:", "try:"]


@st.composite
def _statements(draw) -> str:
    lines, depth = ["x = y = 1", "f = lambda x: x * y"], 0
    for _ in range(draw(st.integers(1, 6))):
        if depth < 4 and draw(st.booleans()):
            lines.append(" " * depth + draw(st.sampled_from(BLOCKS)))
            depth += 1
        lines.append(" " * depth + draw(st.sampled_from(HEADS)) + draw(EXPRESSIONS))
        depth = draw(st.integers(0, depth))
    source = "\n".join([*lines, "result = " + draw(EXPRESSIONS)])
    return re.sub(r"^( *)try:\n((?:\1 .*\n)+)", r"\1try:\n\2\1except Exception: f = x\n", source, flags=re.MULTILINE)


@st.composite
def _mutants(draw) -> str:
    source = draw(st.sampled_from([source for source, _ in ATTACKS.values() if len(source) < 500]))
    at, width = draw(st.integers(0, len(source))), draw(st.integers(0, 10))
    return source[:at] + draw(st.sampled_from(TOKENS)) + source[at + width :]


PROGRAMS = st.one_of(
    st.lists(st.sampled_from(TOKENS), max_size=20).map(" ".join),
    _statements(),
    _statements(),
    _mutants(),
    st.binary(max_size=60).map(lambda code: code.decode(errors="surrogateescape")),
    st.text(max_size=60),
)


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_is_value, value))
    return value is None or type(value) in (int, float, bool, str)


@pytest.mark.parametrize("examples", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_no_program_harms_the_host(examples):
    reached: Counter[str] = Counter()

    @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(programs=st.lists(PROGRAMS, min_size=50, max_size=50))
    def fuzz(programs):
        outcomes = execute_all(programs, FUZZ, workers=2)
        assert len(outcomes) == len(programs) and execute("result = 6 * 7").value == 42
        for outcome in outcomes:
            assert outcome.status in get_args(Status) and _is_value(outcome.value)
            assert len(outcome.stdout) <= FUZZ.output and outcome.seconds < 30
        assert _children() == []
        reached.update(outcome.status for outcome in outcomes)

    fuzz()
    assert reached.total() >= 50 * examples
    assert {"ok", "error", "syntax", "no result"} <= reached.keys()

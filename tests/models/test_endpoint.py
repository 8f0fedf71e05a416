"""An endpoint against real server processes that fail in every way, and one that serves a real model."""

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesocosm.models import Endpoint, LanguageModel

SECRET = "sk-very-secret-key"
SERVER = Path(__file__).with_name("chat_server.py")


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


class Server:
    def __init__(self, log: Path, folder: str, *behaviours: str):
        command = [sys.executable, str(SERVER), str(log), folder, *behaviours]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self.process.stdout.readline())
        self.log = log

    @property
    def asked(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []

    def close(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*behaviours: str, folder: str = "-") -> Server:
        servers.append(Server(tmp_path / f"server{len(servers)}.log", folder, *behaviours))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def connect(tmp_path: Path, monkeypatch) -> Iterator[Callable[..., Endpoint]]:
    monkeypatch.setenv("TEST_KEY", SECRET)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    endpoints: list[Endpoint] = []

    def make(server: Server | int, **options: Any) -> Endpoint:
        for endpoint in endpoints:
            endpoint.close()
        port = server if isinstance(server, int) else server.port
        options = {"transcript": tmp_path / "transcript.jsonl", "key_variable": "TEST_KEY"} | options
        endpoints.append(Endpoint(f"http://127.0.0.1:{port}/v1", "tiny", **options))
        return endpoints[-1]

    yield make
    for endpoint in endpoints:
        endpoint.close()


@pytest.fixture
def pauses(monkeypatch) -> list[float]:
    """The pauses that would have been made."""
    made: list[float] = []
    clock = SimpleNamespace(**{name: getattr(__import__("time"), name) for name in ("time", "monotonic")})
    clock.sleep = made.append
    monkeypatch.setattr("mesocosm.models.endpoint.time", clock)
    return made


def test_it_asks_as_the_protocol_says(serve, connect) -> None:
    server = serve()
    system = [{"role": "system", "content": "short"}, *ask("a")]
    answers = connect(server).complete([system, ask("b")], 5, stop=["\n"], temperature=0.5, seeds=[3, 4])
    assert answers == ["reply to a, seed 3", "reply to b, seed 4"]
    first = {"model": "tiny", "messages": system, "temperature": 0.5, "max_tokens": 5, "stop": ["\n"], "seed": 3}
    assert server.asked[0] == {"path": "/v1/chat/completions", "key": f"Bearer {SECRET}", "asked": first}
    other = connect(server, token_field="max_completion_tokens", key_variable=None)
    other.complete([ask("b")], 5, seeds=[9])
    expected = {"model": "tiny", "messages": ask("b"), "temperature": 0.0, "max_completion_tokens": 5}
    assert server.asked[2]["asked"] == expected and server.asked[2]["key"] is None


def test_both_backends_are_asked_alike() -> None:
    ours, theirs = inspect.signature(Endpoint.complete), inspect.signature(LanguageModel.complete)
    assert ours == theirs


def test_nothing_is_asked_twice(serve, connect, tmp_path: Path) -> None:
    server = serve()
    conversations = [ask("a"), ask("b"), ask("a")]
    first = connect(server)
    answers = first.complete(conversations, 5)
    assert answers[0] == answers[2] and len(server.asked) == 2
    first.complete(conversations, 5, seeds=[1, 2, 3])  # without sampling the seed makes no difference
    assert len(server.asked) == 2
    again = connect(server)
    assert again.complete(conversations, 5) == answers and len(server.asked) == 2
    assert again.spent == first.spent
    again.complete(conversations, 5, temperature=0)
    assert len(server.asked) == 2
    for change in ({"max_tokens": 6}, {"stop": ["x"]}, {"temperature": 1.0, "seeds": [1]}):
        before = len(server.asked)
        again.complete([ask("a")], **({"max_tokens": 5} | change))
        again.complete([ask("a")], **({"max_tokens": 5} | change))
        assert len(server.asked) == before + 1
    again.complete([ask("a")] * 2, 5, temperature=1.0, seeds=[1, 2])
    assert len(server.asked) == 6


@pytest.mark.parametrize("cut", [1, 40, "answered"])
def test_a_killed_study_goes_on(serve, connect, tmp_path: Path, cut: int | str) -> None:
    server, path = serve(), tmp_path / "transcript.jsonl"
    connect(server, input_price=1.0, output_price=1.0).complete([ask("a"), ask("b")], 5)
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b'{"event": "answered"') if cut == "answered" else -int(cut)])
    again = connect(server, input_price=1.0, output_price=1.0)
    size = len(json.dumps(server.asked[1]["asked"]).encode())
    assert again.spent == pytest.approx((7 + 3 + size + 5) / 1e6)  # the request that may have been billed
    assert again.complete([ask("a"), ask("b"), ask("c")], 5)[1] == "reply to b, seed None"
    assert [line["asked"]["messages"][0]["content"] for line in server.asked] == ["a", "b", "b", "c"]
    connect(server).complete([ask("a"), ask("b"), ask("c")], 5)
    assert len(server.asked) == 4


@pytest.mark.parametrize("behaviour", ["429", "408", "500", "503", "cut", "malformed", "hang", "drip"])
def test_passing_failures_are_tried_again(serve, connect, pauses: list[float], tmp_path: Path, behaviour: str) -> None:
    server = serve(behaviour, behaviour)
    endpoint = connect(server, timeout_s=0.5, input_price=1e6, output_price=0)
    assert endpoint.complete([ask("a")], 5) == ["reply to a, seed None"]
    assert pauses == [0.5, 1.0]
    assert len(server.asked) == 3
    late = [line for line in (tmp_path / "transcript.jsonl").read_text().splitlines() if "TimeoutError" in line]
    assert len(late) == (2 if behaviour in ("hang", "drip") else 0)
    billed = 0 if behaviour in ("429", "408") else 2  # what may have been billed counts in full
    assert endpoint.spent == 7 + billed * len(json.dumps(server.asked[0]["asked"]).encode())


def test_the_pause_that_the_server_asks_for_is_kept(serve, connect, pauses: list[float]) -> None:
    soon = formatdate(__import__("time").time() + 60, usegmt=True)
    endpoint = connect(serve("429=7", f"503={soon}", "429=0", "429=rubbish", "429=100000"))
    with pytest.raises(RuntimeError, match=r"asks for a pause of 100000 s, more than 300 s"):
        endpoint.complete([ask("a")], 5)
    assert pauses[0] == 7 and 50 < pauses[1] <= 60 and pauses[2:] == [2.0, 4.0]


@pytest.mark.parametrize(
    ("behaviour", "message"),
    [
        ("500", "failed 3 times, at last: status 500"),
        ("malformed", "failed 3 times, at last: ValueError: malformed reply"),
        ("strange={}", "malformed reply"),
        ('strange={"choices": []}', "malformed reply"),
        ('strange={"choices": [{"message": {"content": 5}}]}', "the content is int"),
        ("strange=[]", "malformed reply"),
        ("strange=null", "malformed reply"),
    ],
)
def test_lasting_failures_end_in_a_sentence(serve, connect, pauses: list[float], behaviour: str, message: str) -> None:
    server = serve(*[behaviour] * 3)
    endpoint = connect(server, retries=2)
    with pytest.raises(RuntimeError, match=message):
        endpoint.complete([ask("a")], 5)
    assert len(server.asked) == 3 and pauses == [0.5, 1.0]
    assert endpoint.complete([ask("a")], 5) == ["reply to a, seed None"]  # it goes on from there


@pytest.mark.parametrize("usage", ["null", "{}", '{"prompt_tokens": null}'])
def test_untold_usage_counts_in_full(serve, connect, usage: str) -> None:
    server = serve(f'strange={{"choices": [{{"message": {{"content": null}}}}], "usage": {usage}}}')
    endpoint = connect(server, input_price=1e6, output_price=1e6)
    assert endpoint.complete([ask("a")], 5) == [""]  # a reply without text is an empty one
    assert endpoint.spent == len(json.dumps(server.asked[0]["asked"]).encode()) + 5


@pytest.mark.parametrize("status", ["400", "401", "404"])
def test_refusals_are_not_tried_again(serve, connect, pauses: list[float], status: str) -> None:
    server = serve(status)
    with pytest.raises(RuntimeError, match=f'refuses the request: status {status}: {{"error": "no"}}'):
        connect(server).complete([ask("a")], 5)
    assert len(server.asked) == 1 and not pauses


def test_a_server_that_is_away_costs_nothing(serve, connect, pauses: list[float]) -> None:
    server = serve()
    server.close()
    endpoint = connect(server, retries=1, input_price=1.0, output_price=1.0)
    with pytest.raises(RuntimeError, match=r"failed 2 times, at last: .*refused"):
        endpoint.complete([ask("a")], 5)
    assert endpoint.spent == 0


def test_the_key_is_written_nowhere(serve, connect, pauses: list[float], tmp_path: Path, capfd) -> None:
    target = serve()
    server = serve("echo=401", "echo=200", "echo=500", f"redirect=http://127.0.0.1:{target.port}/v1/chat/completions")
    endpoint = connect(server, retries=0)
    said = []
    for text in ("a", "b", "c", "d"):
        try:
            said += endpoint.complete([ask(text)], 5)
        except RuntimeError as error:
            said.append(str(error))
    assert said[1] == "Bearer [key]" and "wrong Bearer [key]" in said[0] and "status 302" in said[3]
    assert not target.asked
    everything = [*said, repr(endpoint), str(vars(endpoint)), *capfd.readouterr()]
    everything += [path.read_text() for path in tmp_path.glob("transcript*")]
    assert all(SECRET not in text for text in everything)
    assert all(line["key"] == f"Bearer {SECRET}" for line in server.asked)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"request_limit": 2}, r"request_limit=2 would be passed: 2 so far, and the next request may take 1;"),
        ({"token_limit": 200}, r"token_limit=200 would be passed: 20 so far"),
        (
            {"spend_limit": 0.0002, "input_price": 1.0, "output_price": 1.0},
            r"spend_limit=0.0002 would be passed: 2e-05 so far",
        ),
    ],
)
def test_no_limit_is_passed(serve, connect, limits: dict[str, float], message: str) -> None:
    server = serve()
    long = ask("x" * 300) if "request_limit" not in limits else ask("c")
    endpoint = connect(server, **limits)
    with pytest.raises(RuntimeError, match=message):
        endpoint.complete([ask("a"), ask("b"), long], 5)
    assert len(server.asked) == 2
    with pytest.raises(RuntimeError, match=message):  # nor by starting again
        connect(server, **limits).complete([ask("a"), ask("b"), long], 5)
    assert len(server.asked) == 2
    more = {name: value * 100 if "limit" in name else value for name, value in limits.items()}
    assert len(connect(server, **more).complete([ask("a"), ask("b"), long], 5)) == 3
    assert len(server.asked) == 3


def test_output_counts_before_it_is_written(serve, connect) -> None:
    server = serve()
    endpoint = connect(server, spend_limit=0.99, input_price=0.0, output_price=1000.0)
    with pytest.raises(RuntimeError, match=r"spend_limit=0.99 would be passed: 0 so far, and the next .* take 1;"):
        endpoint.complete([ask("a")], 1000)
    assert not server.asked
    endpoint.complete([ask("a")], 990)
    assert endpoint.spent == pytest.approx(0.003)


def test_failed_attempts_count_against_the_limits(serve, connect, pauses: list[float]) -> None:
    server = serve("500", "500", "500")
    with pytest.raises(RuntimeError, match="request_limit=3 would be passed"):
        connect(server, request_limit=3).complete([ask("a")], 5)
    assert len(server.asked) == 3


def test_one_process_at_a_time_holds_a_transcript(serve, connect, tmp_path: Path) -> None:
    server, path = serve(), tmp_path / "transcript.jsonl"
    connect(server)
    with pytest.raises(OSError, match=r"transcript.jsonl is in use by another process"):
        Endpoint("http://127.0.0.1/v1", "tiny", transcript=path, key_variable="TEST_KEY")


def test_a_damaged_transcript_is_refused_by_line(serve, connect, tmp_path: Path) -> None:
    server, path = serve(), tmp_path / "transcript.jsonl"
    connect(server).complete([ask("a"), ask("b")], 5)
    lines = path.read_bytes().splitlines(keepends=True)
    for damage in (b"rubbish\n", b"{}\n", b"[]\n", lines[1][:30] + b"\n"):
        path.write_bytes(lines[0] + damage + b"".join(lines[2:]))
        with pytest.raises(ValueError, match=r"transcript.jsonl is damaged in line 2"):
            connect(server)


KILLED = """
import sys
from mesocosm.models import Endpoint
with Endpoint(sys.argv[1], "tiny", transcript=sys.argv[2], key_variable="TEST_KEY") as endpoint:
    for t in range(100):
        print(endpoint.complete([[{"role": "user", "content": f"question {t}"}]], 5)[0], flush=True)
"""


@pytest.mark.slow
def test_a_study_killed_at_any_instant_asks_nothing_answered_again(serve, connect, tmp_path: Path) -> None:
    server, path = serve(), tmp_path / "killed.jsonl"
    command = [sys.executable, "-c", KILLED, f"http://127.0.0.1:{server.port}/v1", str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        process.stdout.readline()
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert out == [f"reply to question {t}, seed None" for t in range(100)]
    assert len(server.asked) <= 101  # the one in flight


@pytest.mark.slow
def test_a_served_model_answers_as_the_model_does(serve, connect, make_module, tokenizer, tmp_path: Path) -> None:
    module = make_module()
    module.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    endpoint = connect(serve(folder=str(tmp_path / "model")))
    conversations = [ask("the capital of France"), ask("press"), [*ask("red"), {"role": "assistant", "content": "b"}]]
    for options in ({}, {"temperature": 1.5, "seeds": [1, 2, 3]}, {"stop": ["a", "e"]}):
        expected = LanguageModel(module, tokenizer).complete(conversations, 8, **options)
        assert endpoint.complete(conversations, 8, **options) == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base_url": "ftp://a/v1"}, "base_url is not legal"),
        ({"base_url": "api.openai.com/v1"}, "base_url is not legal"),
        ({"base_url": "https://user:word@a/v1"}, "base_url is not legal: it must be like https"),
        ({"base_url": "https://a/v1?key=b"}, "base_url is not legal"),
        ({"base_url": "http://example.org/v1"}, "a key goes by https, except to this machine"),
        ({"request_limit": -1}, "request_limit=-1 is not legal"),
        ({"token_limit": -1}, "token_limit=-1 is not legal"),
        ({"spend_limit": 1.0}, "spend_limit=1.0 needs input_price and output_price"),
        ({"spend_limit": float("nan")}, "spend_limit=nan is not legal"),
        ({"input_price": -1.0}, "input_price=-1.0 is not legal"),
        ({"timeout_s": 0}, "timeout_s=0 is not legal"),
        ({"retries": -1}, "retries=-1 is not legal"),
        ({"token_field": "tokens"}, "token_field='tokens' is not legal: it must be one of max_tokens"),
        ({"key_variable": "ABSENT_KEY"}, "the environment variable ABSENT_KEY must hold the key"),
        ({"key_variable": "BROKEN_KEY"}, "the environment variable BROKEN_KEY must hold the key"),
    ],
)
def test_bad_arguments_are_refused(tmp_path: Path, monkeypatch, changes: dict[str, Any], message: str) -> None:
    monkeypatch.setenv("TEST_KEY", SECRET)
    monkeypatch.setenv("BROKEN_KEY", SECRET[:5] + "\n" + SECRET[5:])
    monkeypatch.delenv("ABSENT_KEY", raising=False)
    options = {"base_url": "https://a/v1", "key_variable": "TEST_KEY", "transcript": tmp_path / "t.jsonl"} | changes
    with pytest.raises(ValueError, match=message) as caught:
        Endpoint(model="tiny", **options)
    assert SECRET not in str(caught.value) and "word" not in str(caught.value)
    assert not (tmp_path / "t.jsonl").exists()


def test_bad_questions_are_refused_before_anything_is_asked(serve, connect) -> None:
    server = serve()
    endpoint = connect(server)
    for bad in ([], [{"role": "user"}], [{"role": "robot", "content": "a"}], [{"role": "user", "content": 5}]):
        with pytest.raises(ValueError, match=r"messages=.* is not legal"):
            endpoint.complete([ask("a"), bad], 5)
    with pytest.raises(ValueError, match="max_tokens=0 is not legal"):
        endpoint.complete([ask("a")], 0)
    with pytest.raises(ValueError, match=r"None seeds are not legal: temperature=1.0 needs one for each of 1"):
        endpoint.complete([ask("a")], 5, temperature=1.0)
    assert not server.asked

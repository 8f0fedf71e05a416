"""On a real Ray of two nodes: the records of a plain run, whatever dies meanwhile."""

import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from mesocosm.cli import main
from mesocosm.lab import folder as folders
from mesocosm.lab import jobs, ray_cluster
from mesocosm.lab.files import RunError, UserError, read_json, read_table, read_tensors
from mesocosm.lab.lab import Lab
from mesocosm.lab.overview import Overview

ray = pytest.importorskip("ray")

SLOW = [
    "run",
    "tiny",
    "--n",
    "60",
    "--steps",
    "2500",
    "--seeds",
    "2",
    "--learning-rates",
    "0.1",
    "0.05",
    "0.01",
    "0.02",
]
"""Four cells that take some seconds each: they never learn."""
PORT = 17001 + int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
"""Each process of the tests has a cluster of its own."""
# Ray leaves its log files open.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed file .*/ray/session_:ResourceWarning",
    "ignore:Exception ignored in. <_io.FileIO name=./tmp/ray/:pytest.PytestUnraisableExceptionWarning",
)


@pytest.fixture(scope="module", autouse=True)
def training(tmp_path_factory):
    """A folder where each process that trains leaves a file with its number."""
    folder = tmp_path_factory.mktemp("trains")
    os.environ["TINY_TRAINS"] = str(folder)
    yield folder
    del os.environ["TINY_TRAINS"]


@pytest.fixture(scope="module")
def nodes(training):
    """A cluster of two nodes with a core each, one of them to be lost."""
    from ray.cluster_utils import Cluster

    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    node = {"num_cpus": 1, "memory": 4 * 2**30, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "ray_client_server_port": PORT})
    cluster.args = node
    cluster.add_node(**node)
    os.environ["RAY_ADDRESS"] = cluster.address
    yield cluster
    del os.environ["RAY_ADDRESS"]
    cluster.shutdown()
    gc.collect()


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("plain") / "run"
    assert main([*SLOW, "--out", str(folder)]) == 0
    return read_table(folder / "records.parquet")


def marked(mark: str) -> list[str]:
    """Processes whose environment holds these words."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found += [place.name] * (mark in (place / "environ").read_text(errors="replace"))
    return found


def wait_for(there: Callable[[], object]) -> None:
    end = time.monotonic() + 180
    while not there():
        assert time.monotonic() < end
        time.sleep(0.1)


def while_training(training: Path, strike: Callable[[int], object], arguments: list[str]) -> None:
    """Run, and strike when both workers train."""
    for earlier in training.iterdir():
        earlier.unlink()

    def watch() -> None:
        wait_for(lambda: len(list(training.iterdir())) == 2)
        strike(int(next(training.iterdir()).name))

    thread = threading.Thread(target=watch)
    thread.start()
    assert main(arguments) == 0
    thread.join()


def test_records_are_those_of_a_plain_run_though_a_worker_dies(nodes, training, tmp_path, capsys, reference) -> None:
    folder = tmp_path / "run"
    while_training(
        training, lambda worker: os.kill(worker, signal.SIGKILL), [*SLOW, "--on", "ray", "--out", str(folder)]
    )
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)
    assert read_json(folder / "environment.json")["cluster"] == {"nodes": 2, "workers": 2}
    assert capsys.readouterr().out.count(f" on {socket.gethostname()}") == 4


@pytest.mark.slow
def test_a_node_is_lost_in_a_sweep(nodes, training, tmp_path, reference) -> None:
    folder = tmp_path / "sweep"
    steps = SLOW.index("--steps")
    settings = [*SLOW[1:steps], *SLOW[steps + 2 :], "--vary", f"steps={SLOW[steps + 1]},2000"]
    lose = lambda worker: nodes.remove_node(next(iter(nodes.worker_nodes)), allow_graceful=False)
    while_training(training, lose, ["sweep", *settings, "--on", "ray", "--out", str(folder)])
    nodes.add_node(**nodes.args)
    records = read_table(folder / "points" / f"steps={SLOW[steps + 1]}" / "records.parquet")
    pd.testing.assert_frame_equal(records, reference)


def test_a_killed_driver_goes_on_from_finished_cells(nodes, tmp_path, capsys, reference) -> None:
    folder = tmp_path / "run"
    arguments = [*SLOW, "--on", "ray", "--out", str(folder)]
    driver = subprocess.Popen([sys.executable, "-m", "mesocosm.cli", *arguments], stdout=subprocess.DEVNULL)
    ended = lambda: [p for p in folder.glob("checkpoints/*.safetensors") if read_tensors(p)[1]["first"] == 2]
    wait_for(ended)
    driver.kill()
    driver.wait()
    finished = len(ended())
    assert not (folder / "records.parquet").exists()
    capsys.readouterr()
    assert main(["resume", str(folder), "--on", "ray"]) == 0
    assert capsys.readouterr().out.count(f" on {socket.gethostname()}") == 4 - finished
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)


def test_the_client_server_of_a_cluster_will_do(nodes, tmp_path, monkeypatch, reference) -> None:
    """At the second attempt, if it is slow."""
    init, attempts = ray.init, []

    def slow_at_first(*address, **options):
        attempts.append(address)
        if len(attempts) == 1:
            raise ConnectionAbortedError("Initialization failure from server:")
        return init(*address, **options)

    monkeypatch.setattr(ray, "init", slow_at_first)
    monkeypatch.delenv("RAY_ADDRESS")
    folder = tmp_path / "run"
    assert main([*SLOW, "--on", f"ray://127.0.0.1:{PORT}", "--out", str(folder)]) == 0
    assert len(attempts) == 2
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)


def test_ctrl_c_keeps_checkpoints_and_leaves_no_process(training, tmp_path) -> None:
    folder, mark, others = tmp_path / "run", f"MARK={tmp_path}", set(training.iterdir())
    arguments = ["run", "tiny", "--n", "60", "--steps", "100000", "--on", "ray", "--out", str(folder)]
    environment = {**os.environ, "MARK": str(tmp_path)}
    environment.pop("RAY_ADDRESS", None)
    command = [sys.executable, "-m", "mesocosm.cli", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    driver = subprocess.Popen(command, env=environment, start_new_session=True, **pipes)
    wait_for(lambda: len(set(training.iterdir()) - others) == 2)
    os.killpg(driver.pid, signal.SIGINT)
    output, errors = driver.communicate(timeout=120)
    assert driver.returncode == 130
    assert errors == "mesocosm: error: interrupted\n"
    assert f"mesocosm resume {folder} --on ray" in " ".join(output.split())
    assert len(list((folder / "checkpoints").iterdir())) == 2
    wait_for(lambda: not marked(mark))


def test_what_cannot_be_is_refused_in_one_sentence(nodes, tmp_path, monkeypatch) -> None:
    request = folders.Request("tiny", "smoke", folders.load_study("tiny").presets["smoke"])
    parts = jobs.unfinished(request, tmp_path)
    with (
        pytest.raises(UserError, match=r"none of the cluster's \d nodes has a GPU"),
        ray_cluster.connected("ray", "cuda"),
    ):
        pass
    with ray_cluster.connected("ray", "cpu") as executor:
        (job, _) = jobs.plan_jobs([[part] for part in parts], Lab(None), executor)
        do = lambda job: jobs.train_ahead([job], executor, Overview("tiny", [job], Console(quiet=True)))
        with pytest.raises(RunError, match=r"rate=0.1 failed on a worker: IndexError"):
            do(replace(job, rows=range(2, 9)))
        monkeypatch.setattr(ray_cluster, "versions", lambda: {"mesocosm": "0", "torch": "0"})
        with pytest.raises(UserError, match=r"a worker has mesocosm .*, and this process mesocosm 0, torch 0"):
            do(job)


@pytest.mark.parametrize(
    ("on", "words"),
    [("nonsense", "--on nonsense is not legal"), ("ray://nowhere", "HOST:PORT"), ("ray", "mesocosm[cluster]")],
)
def test_on_is_checked_before_anything_starts(on, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(ray_cluster.importlib.util, "find_spec", lambda name: None)
    assert main(["run", "tiny", "--on", on, "--out", str(tmp_path / "run")]) == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_cluster_that_is_not_there_is_told_at_once(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    assert main(["run", "tiny", "--on", "ray", "--out", str(tmp_path / "run")]) == 2
    assert "--on ray: there is no Ray cluster at 127.0.0.1:1: Connection refused" in capsys.readouterr().err


def test_on_is_not_for_torchrun(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["run", "tiny", "--on", "ray", "--out", str(tmp_path / "run")]) == 2
    assert "--on ray is not legal under torchrun" in capsys.readouterr().err

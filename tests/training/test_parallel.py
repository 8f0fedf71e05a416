"""Two processes that share every batch train as one does."""

import subprocess
import sys
from pathlib import Path

import pandas
import pytest
import torch
from torch import multiprocessing
from two_processes import SEEDS, TASK, free_port, of_rank, of_rank_with_dropout, taught

from mesocosm.lab.files import read_table
from mesocosm.training.streams import Online


@pytest.fixture
def port() -> int:
    return free_port()


def test_two_processes_train_as_one(tmp_path: Path, port: int) -> None:
    multiprocessing.spawn(of_rank, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    alone = taught()
    for name, value in {"theta": alone.population.theta, **alone.metrics}.items():
        torch.testing.assert_close(first[name], second[name], atol=0, rtol=0, equal_nan=True)
        torch.testing.assert_close(first[name], value.to(first[name].dtype), atol=1e-5, rtol=1e-4, equal_nan=True)


def test_processes_drop_other_activations(tmp_path: Path, port: int) -> None:
    multiprocessing.spawn(of_rank_with_dropout, (port, tmp_path), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True)["dropped"] for rank in range(2))
    assert set(first.unique().tolist()) == {0, 2}
    assert (first != second).any()


def test_torchrun_runs_a_study_into_one_folder(tmp_path: Path, port: int) -> None:
    def run(out: str, *launcher: str) -> pandas.DataFrame:
        command = [*launcher, "-m", "mesocosm.cli", "run", "tiny", "--preset", "smoke", "--out", str(tmp_path / out)]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("run folder:") == 1
        return read_table(tmp_path / out / "records.parquet")

    two = run("two", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(port))
    one = run("one")
    # Its networks drop activations, and each process others, so that one may stop earlier; what is counted is the same.
    both = one.merge(two, on=[column for column in one.columns if column != "value"], suffixes=("", "_of_two"))
    counted = both[both.metric.isin(["flops", "tokens"]) | ((both.step == 0) & (both.metric == "error"))]
    assert len(counted) > 10
    assert counted.value.tolist() == counted.value_of_two.tolist()


def test_fewer_samples_than_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesocosm.training.parallel.processes", lambda: 7)
    with pytest.raises(ValueError, match=r"batch_size=5 is not legal: 7 processes need a sample each"):
        Online(TASK, 5, SEEDS)(0, [0, 1], torch.device("cpu"))

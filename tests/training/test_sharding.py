"""Replicas that are split over processes train as whole ones do."""

import os
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from sharded_processes import CASES, SEEDS, Keeper, found, model, of_rank, trained
from torch import multiprocessing
from torch.multiprocessing import ProcessExitedException
from two_processes import free_port

from mesocosm.lab.lab import Lab
from mesocosm.training import SGD, Growth, Population, copy_last, cross_entropy, loop, train

Found = dict[str, Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results, which the first process of the tests that needs them makes for all."""
    base = tmp_path_factory.getbasetemp()
    out = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "sharded"
    with FileLock(f"{out}.lock"):
        if not out.exists():
            out.mkdir()
            make_results(out)
    return out


def make_results(out: Path) -> None:
    """Of two processes, killed over a checkpoint, then of three that go on, and of one that was stacked."""
    # Processes are forked from one that has imported what they need.
    multiprocessing.set_forkserver_preload(["sharded_processes", "torch.distributed.fsdp", "torch._dynamo"])
    with pytest.raises(ProcessExitedException) as death:
        started(2, out, "die")
    assert death.value.signal_name == signal.SIGKILL.name
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "TICK", 0.0)
        with pytest.raises(KeyboardInterrupt):
            trained("clipped", Population, Keeper(out / "stacked.safetensors", dies=True))
    started(3, out, "resume")


def started(count: int, out: Path, then: str) -> None:
    arguments = (count, free_port(), out, then)
    multiprocessing.start_processes(of_rank, arguments, nprocs=count, start_method="forkserver")


@pytest.fixture
def of(folder: Path) -> Callable[[int], list[Found]]:
    return lambda count: [torch.load(folder / f"{rank} of {count}.pt", weights_only=True) for rank in range(count)]


@pytest.fixture(scope="module")
def whole() -> Callable[[str], Found]:
    known: dict[str, Found] = {}
    return lambda case: known.setdefault(case, found(trained(case, Population)))


def close(one: Found, other: Found) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], atol=1e-5, rtol=1e-4, equal_nan=True, msg=name)


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", [case for case in CASES if case != "dropout"])
def test_sharded_replicas_train_as_whole_ones(case: str, count: int, of: Any, whole: Any) -> None:
    first, *others = [results[case] for results in of(count)]
    close(first, whole(case))
    for other in others:
        for name, value in first.items():
            assert torch.equal(value, other[name]) or value.isnan().any(), name


@pytest.mark.parametrize("count", [2, 3])
def test_activations_are_dropped_as_on_processes_that_hold_everything(count: int, of: Any) -> None:
    for results in of(count):
        close(results["dropout"], results["dropout, shared"])


@pytest.mark.parametrize("count", [2, 3])
def test_sharded_replicas_start_with_the_very_weights_of_whole_ones(count: int, of: Any) -> None:
    start = Population(partial(model, tied=True), SEEDS).weights()
    for results in of(count):
        assert results["start"].keys() == start.keys()
        assert all(torch.equal(results["start"][name], value) for name, value in start.items())


@pytest.mark.parametrize("name", ["sharded", "stacked"])
def test_a_killed_training_goes_on_with_another_number_of_processes(
    name: str, folder: Path, of: Any, whole: Any
) -> None:
    for results in of(3):
        close(results[name], whole("clipped"))
    close(found(trained("clipped", Population, Keeper(folder / f"{name}.safetensors"))), whole("clipped"))


@pytest.mark.parametrize("count", [2, 3])
def test_a_process_holds_its_part(count: int, of: Any) -> None:
    for results in of(count):
        assert results["held"]["theta"] < 1.05 / count
        # Weights thrice (the population's, the training's and the layers'), two moments: no gradient between steps.
        assert results["held"]["tensors"] < 5.2 / count


def test_one_process_alone_has_nothing_to_shard(of: Any) -> None:
    assert all(results["shards"] for results in of(2))
    assert not Lab(None, shard=True).shard


def test_growth_is_refused() -> None:
    population = Population(model, SEEDS)
    population.sharded = True
    grow = [Growth(1, model, copy_last)]
    with pytest.raises(ValueError, match="grow is not legal for sharded replicas"):
        train(population, None, cross_entropy, SGD(0.1), steps=2, grow=grow)


def test_scalars_are_refused(of: Any) -> None:
    for results in of(2):
        assert results["refused"] == "scale is a scalar and can't be sharded: make it a vector of one number"

"""Some replicas here and some there are the same as all of them together, to the last bit."""

import io
import signal
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
import torch
from rich.console import Console

from mesocosm import training
from mesocosm.lab import folder as folders
from mesocosm.lab import jobs
from mesocosm.lab.lab import Lab
from mesocosm.lab.overview import Overview, Reporter
from mesocosm.lab.runner import train_all
from mesocosm.training import loop
from mesocosm.training.history import merged, taken

STUDY = folders.load_study("tiny")


def request(**changes) -> folders.Request:
    return folders.Request("tiny", "smoke", replace(STUDY.presets["smoke"], n=10, **changes))


def hard_cell():
    """Replicas with rates of their own, of which one diverges; dropout, averages, and two that stop early.

    One stops before it has trained at all, so that alone it has no loss.
    """
    (cell, *_) = STUDY.plan(request(seeds=7, steps=60).config)
    rates = [0.1, 0.05, 1e30, 0.2, 0.0, 0.1, 0.02]

    def measure(population, step):
        places = torch.tensor(population.index).double()
        return {**cell.measure(population, step), "place": places, "when": torch.full_like(places, step)}

    def stop(values):
        return (values["place"] == 1) | (values["place"] == 6) & (values["when"] >= 20)

    return replace(
        cell,
        optimiser=training.SGD(rates, momentum=0.5),
        average=training.EMA(),
        measure=measure,
        stop=stop,
        start=lambda population: population.theta.mul_(torch.arange(1.0, 8.0)[:, None]),
    )


def train_ahead(some, executor) -> None:
    jobs.train_ahead(some, executor, Overview("tiny", some, Console(file=io.StringIO())))


def same(one, other) -> None:
    (tensors, facts), (others, other_facts) = one, other
    assert tensors.keys() == others.keys()
    for name in tensors:
        torch.testing.assert_close(tensors[name], others[name], rtol=0, atol=0, equal_nan=True)
    assert timeless(facts) == timeless(other_facts)


def timeless(facts) -> dict:
    return {name: fact for name, fact in facts.items() if name not in ("clock", "seconds")}


@pytest.mark.parametrize("cuts", [[0, 3, 4, 7], [0, 1, 2, 7]])
def test_replicas_trained_apart_are_those_trained_together(cuts) -> None:
    cell, lab = hard_cell(), Lab(None)
    saved = lambda rows: lab.fit(cell, rows, "x").saved()
    whole = saved(range(7))
    assert list(whole[1]["diverged"]) == ["2"]
    assert "final.average" in whole[0]
    parts = [saved(range(*cut)) for cut in pairwise(cuts)]
    same(merged(parts), whole)
    clocks = [facts["clock"]["step"] for _, facts in parts]
    assert max(clocks) > 0
    assert merged(parts)[1]["clock"]["step"] == pytest.approx(sum(clocks))
    same(merged([taken(whole, range(*cut)) for cut in pairwise(cuts)]), whole)


def test_what_grows_is_the_same_apart() -> None:
    (cell, *_) = STUDY.plan(request(seeds=3, steps=6).config)
    grow = [training.Growth(3, lambda: cell.model(cell.task), lambda name: name)]
    cell = replace(cell, grow=grow, optimiser=training.SGD([0.1, 0.2, 0.3], momentum=0.5))
    whole, part = (Lab(None).fit(cell, rows, "x").population.theta for rows in (range(3), [2]))
    assert torch.equal(whole[2:], part)


def test_records_do_not_depend_on_what_was_trained_ahead(tmp_path: Path) -> None:
    """Cells cut in two; one job is done and another begun by an earlier attempt that had cut otherwise."""
    asked = request(seeds=5)
    folder = folders.create(asked, tmp_path / "ahead")
    cut = lambda job, *edges: [replace(job, rows=range(*rows)) for rows in pairwise(edges)]
    first, second = jobs.plan_jobs([[part] for part in jobs.unfinished(asked, folder)], Lab(folder), jobs.InProcess())

    class Stops(jobs.InProcess):
        def carry_out(self, waiting, done, overview):
            super().carry_out(waiting[:1], done, overview)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_ahead(cut(first, 0, 2, 5)[1:], Stops())
    assert [path.stem for path in (folder / "checkpoints").iterdir()] == ["rate=0.1__replicas_2_to_5_of_5"]
    planned = jobs.plan_jobs([[part] for part in jobs.unfinished(asked, folder)], Lab(folder), jobs.InProcess())
    assert [job.rows for job in planned] == [range(2), range(2, 5), range(5)]
    done = []

    class Counts(jobs.InProcess):
        def carry_out(self, waiting, settle, overview):
            done.extend(job.name for job in waiting)
            super().carry_out(waiting, settle, overview)

    train_ahead([*planned[:2], *cut(second, 0, 4, 5)], Counts())
    assert len(done) == 3
    assert {path.stem for path in (folder / "checkpoints").iterdir()} == {"rate=0.1", "rate=0.05"}
    assert not jobs.unfinished(asked, folder)
    plain = folders.create(asked, tmp_path / "plain")
    records = []
    for where in (folder, plain):
        lab = Lab(where)
        train_all(asked, lab)
        records.append(lab.records())
    pd.testing.assert_frame_equal(*records)


def test_jobs_of_equal_names_in_several_runs_are_counted_apart() -> None:
    parts = [jobs.Part(request(), Path(name), "rate=0.1", 3) for name in ("one", "two")]
    some = jobs.plan_jobs([[part] for part in parts], Lab(None), jobs.InProcess())
    overview = Overview("tiny", some, Console(file=io.StringIO()))
    overview.finish(some[0], 1.0)
    assert "1/2 trainings done" in overview._line()
    assert overview.reached() == pytest.approx(overview.total / 2)


def test_jobs_are_cut_where_that_makes_them_faster() -> None:
    part = jobs.Part(request(), Path("run"), "rate=0.1", 64)
    job = jobs.Job((part,), range(64), steps=100, flops=1e6, fills=300, weights=4, lockstep=10)
    sizes = lambda job, share, memory=1e9: [len(piece.rows) for piece in jobs._split(job, job.work / share, memory)]
    assert sizes(job, 8) == [16] * 4
    assert sizes(replace(job, fills=1), 8) == [8] * 8
    assert sizes(job, 1.2) == [64]
    assert sizes(job, 1.2, memory=320) == [21, 21, 22]
    assert job.memory == 64 * 14
    assert replace(job, fills=8).memory == 64 * 4 + 8 * 10


def test_a_worker_that_does_not_see_the_folder_trains_in_memory(tmp_path: Path) -> None:
    asked = request(steps=20)
    (part, _) = jobs.unfinished(asked, tmp_path / "elsewhere")
    (job,) = jobs.plan_jobs([[part]], Lab(None), jobs.InProcess())
    _, facts = jobs.train_job(job)
    assert facts["first"] == 3
    assert not list(tmp_path.iterdir())
    assert jobs.laboratory(job).folder is None
    folder = folders.create(asked, tmp_path / "run")
    assert jobs.laboratory(replace(job, parts=(replace(part, folder=folder),))).folder == folder
    other = replace(part, folder=folder, request=request(steps=21))
    assert jobs.laboratory(replace(job, parts=(other,))).folder is None


def test_an_interrupted_job_goes_on_from_its_own_checkpoint(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(loop, "TICK", 0.0)
    asked = request(seeds=4, steps=40)
    (part, _) = jobs.unfinished(asked, folders.create(asked, tmp_path / "run"))
    (job,) = jobs.plan_jobs([[part]], Lab(None), jobs.InProcess())
    job, steps = replace(job, rows=range(1, 3)), []

    class Watcher(Reporter):
        def update(self, fraction, step, alive, loss) -> None:
            steps.append(step)
            if len(steps) == 7:
                signal.raise_signal(signal.SIGINT)

    watcher = Watcher(lambda facts: None)
    with pytest.raises(KeyboardInterrupt):
        jobs.train_job(job, watcher)
    (path,) = (tmp_path / "run" / "checkpoints").iterdir()
    assert path.stem == "rate=0.1__replicas_1_to_3_of_4"
    tensors, facts = jobs.train_job(job, watcher)
    assert steps == [*range(1, 41)]
    same((tensors, facts), Lab(None).fit(jobs.cell_of(job.parts), range(1, 3), "x").saved())

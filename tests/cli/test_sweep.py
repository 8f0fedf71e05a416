"""A sweep: each point is the run that `mesocosm run` makes, cells train together, and nothing is done twice."""

import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from pages import Page

from mesocosm.cli import main
from mesocosm.cli.flags import read_values
from mesocosm.cli.sweep import packed
from mesocosm.lab import folder as folders
from mesocosm.lab import jobs
from mesocosm.lab import sweep as sweeps
from mesocosm.lab.files import UserError, read_json, read_table, write_json
from mesocosm.lab.sweep import Sweep
from mesocosm.report.sweep import draw

KILLING = Path(__file__).parents[1] / "lab" / "killing.py"
TINY = ["tiny", "--preset", "smoke", "--seeds", "2", "--steps", "60"]
GRID = ["sweep", *TINY, "--vary", "n=6,8", "--vary=learning-rates=0.1,0.05+0.2"]
POINTS = [f"n={n},learning_rates={rates}" for n in (6, 8) for rates in ("0.1", "0.05+0.2")]


@pytest.fixture(scope="module")
def swept(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    assert main([*GRID, "--out", str(folder)]) == 0
    return folder


def test_each_point_is_an_ordinary_run(swept: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in (swept / "points").iterdir()) == sorted(POINTS)
    for i, (n, rates) in enumerate((("6", ["0.1"]), ("8", ["0.05", "0.2"]))):
        name, plain = POINTS[3 * i], tmp_path / n
        assert main(["run", *TINY, "--n", n, "--learning-rates", *rates, "--out", str(plain)]) == 0
        point = swept / "points" / name
        pd.testing.assert_frame_equal(*(read_table(run / "records.parquet") for run in (point, plain)))
        assert read_json(point / "config.json") == read_json(plain / "config.json")
        judged, plainly = (read_json(run / "verdicts.json")["claims"][0] for run in (point, plain))
        assert judged | {"seconds": 0} == plainly | {"seconds": 0}
        checkpoints = {path.name for path in (plain / "checkpoints").iterdir()}
        assert {path.name for path in (point / "checkpoints").iterdir()} == checkpoints
        assert main(["judge", str(point)]) == 0


def test_tables_and_page_hold_all_points(swept: Path) -> None:
    records, verdicts = read_table(swept / "records.parquet"), pd.read_csv(swept / "verdicts.csv")
    assert list(records.columns) == ["point", "n", "learning_rates", "cell", "rate", "seed", "step", "metric", "value"]
    varied = ["n", "learning_rates"]
    for (point, n, rates), rows in records.groupby(["point", *varied]):
        assert point == f"n={n},learning_rates={rates}"
        own = rows.drop(columns=["point", *varied]).reset_index(drop=True)
        pd.testing.assert_frame_equal(own, read_table(swept / "points" / point / "records.parquet"))
    assert list(verdicts.point) == POINTS
    known = read_json(swept / "points" / POINTS[1] / "verdicts.json")["claims"][0]
    row = verdicts.iloc[1]
    assert (row.n, row.learning_rates, row.claim, row.verdict) == (6, "0.05+0.2", "C1", known["verdict"])
    assert [row.effect, row.low, row.high] == [known["effect"], *known["interval"]]
    page = Page(swept / "report.html")
    assert [link for link in page.broken() if not link.startswith("data:")] == []
    assert sum(link.endswith("report.html") for link in page.links) == 4
    assert "Precision float32 Compiled no" in page.text
    facts = read_json(swept / "sweep.json")
    assert (facts["format"], facts["points"], facts["varied"]) == (
        1,
        POINTS,
        {"n": [6, 8], "learning_rates": [[0.1], [0.05, 0.2]]},
    )
    assert {path.name for path in (swept / "figures").iterdir()} == {"effects.svg", "effects.png"}


def test_a_sweep_that_is_killed_goes_on(swept: Path, tmp_path: Path) -> None:
    folder = tmp_path / "sweep"
    command = [sys.executable, KILLING, "random", "4", *GRID, "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "killed 4"
    pd.testing.assert_frame_equal(*(read_table(f / "records.parquet") for f in (folder, swept)))
    assert not list(folder.rglob("*replicas*"))


def test_the_same_command_trains_only_what_is_not_finished(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    trained = []
    train_job = jobs.train_job

    def until(count: int):
        def train(job, watcher):
            if len(trained) == count:
                raise KeyboardInterrupt
            trained.append([part.folder.name for part in job.parts])
            return train_job(job, watcher)

        return train

    monkeypatch.setattr(jobs, "train_job", until(1))
    assert main(GRID) == 130
    (folder,) = Path("sweeps/tiny").iterdir()
    assert f"Go on with: mesocosm resume {folder}" in capsys.readouterr().out
    monkeypatch.setattr(jobs, "train_job", until(-1))
    assert main(GRID) == 0
    assert sorted(point for points in trained for point in points) == sorted([*POINTS, POINTS[1], POINTS[3]])
    assert main(GRID) == 0
    assert len(list(Path("sweeps/tiny").iterdir())) == 2
    assert main([*GRID, "--out", str(folder)]) == 2


def test_resume_goes_on_with_a_sweep(swept: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    folder, trained = tmp_path / "sweep", []
    train_job = jobs.train_job

    def interrupted(job, watcher):
        if trained:
            raise KeyboardInterrupt
        trained.append(job)
        return train_job(job, watcher)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "train_job", interrupted)
        assert main([*GRID, "--out", str(folder)]) == 130
    monkeypatch.setattr(jobs, "train_job", lambda job, watcher: trained.append(job) or train_job(job, watcher))
    assert main(["resume", str(folder)]) == 0
    assert sum(len(job.parts) for job in trained) == 6
    pd.testing.assert_frame_equal(*(read_table(f / "records.parquet") for f in (folder, swept)))
    assert read_json(folder / "sweep.json")["identity"] == read_json(swept / "sweep.json")["identity"]
    (folder / "report.html").unlink()
    (folder / "verdicts.csv").unlink()
    assert main(["resume", str(folder)]) == 0
    assert sum(len(job.parts) for job in trained) == 6
    assert (folder / "verdicts.csv").read_bytes() == (swept / "verdicts.csv").read_bytes()
    assert (folder / "report.html").exists()
    write_json(folder / "sweep.json", read_json(folder / "sweep.json") | {"config": {"wings": 2}})
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 1
    assert "was made by another version of tiny" in capsys.readouterr().err


def test_what_several_points_have_in_common_is_trained_once(tmp_path: Path, monkeypatch) -> None:
    trained = []
    train_job = jobs.train_job
    monkeypatch.setattr(jobs, "train_job", lambda job, watcher: trained.extend(job.parts) or train_job(job, watcher))
    folder, both = tmp_path / "sweep", ["0.1", "0.1+0.2"]
    words = ["sweep", *TINY, "--vary", "n=6,8", "--vary", f"learning-rates={','.join(both)}", "--out", str(folder)]

    def killed(twins):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "share", killed)
        assert main(words) == 130
    assert not trained
    share = sweeps.share
    with monkeypatch.context() as patch:
        patch.setattr(sweeps, "share", lambda twins: killed(twins) if trained else share(twins))
        assert main(words) == 130
    assert main(words) == 0
    names = sorted((part.folder.name.split(",")[0], part.cell) for part in trained)
    assert names == [(n, rate) for n in ("n=6", "n=8") for rate in ("rate=0.1", "rate=0.2")]
    for n in (6, 8):
        plain = tmp_path / str(n)
        assert main(["run", *TINY, "--n", str(n), "--learning-rates", "0.1", "0.2", "--out", str(plain)]) == 0
        runs = plain, *(folder / "points" / f"n={n},learning_rates={rates}" for rates in both)
        whole, one, two = (read_table(run / "records.parquet") for run in runs)
        pd.testing.assert_frame_equal(two, whole)
        pd.testing.assert_frame_equal(one, whole[whole.rate == 0.1])


def test_a_point_that_fails_is_named_and_the_others_go_on(tmp_path: Path, monkeypatch, capsys) -> None:
    study = folders.load_study("tiny")
    run = study.run

    def fails(config, lab):
        if config.n == 8:
            raise RuntimeError("the sky fell")
        run(config, lab)

    with monkeypatch.context() as patch:
        patch.setitem(study.__dict__, "run", fails)
        assert main(["sweep", *TINY, "--vary", "n=6,8", "--out", str(tmp_path / "sweep")]) == 1
    said = capsys.readouterr()
    assert "n=8: RuntimeError: the sky fell" in said.out
    assert said.err == "mesocosm: error: 1 of 2 points failed; the same command tries them again\n"
    assert list(pd.read_csv(tmp_path / "sweep" / "verdicts.csv").point) == ["n=6"]
    assert not (tmp_path / "sweep" / "report.html").exists()
    assert main(["sweep", *TINY, "--vary", "n=6,8", "--out", str(tmp_path / "sweep")]) == 0
    assert list(pd.read_csv(tmp_path / "sweep" / "verdicts.csv").point) == ["n=6", "n=8"]


def test_what_fails_together_is_trained_by_each_point(swept: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    def fails(job, watcher):
        raise MemoryError("too much")

    folder = tmp_path / "sweep"
    monkeypatch.setattr(jobs, "train_job", fails)
    words = ["sweep", *TINY, "--n", "6", "--vary", "learning-rates=0.1,0.05+0.2", "--out", str(folder)]
    assert main(words) == 0
    assert "rate=0.1 and 2 more failed: MemoryError: too much" in capsys.readouterr().out
    for rates in ("0.1", "0.05+0.2"):
        runs = folder / "points" / f"learning_rates={rates}", swept / "points" / f"n=6,learning_rates={rates}"
        pd.testing.assert_frame_equal(*(read_table(run / "records.parquet") for run in runs))


def test_dry_run_prices_the_grid_and_writes_nothing(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*GRID, "--dry-run"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for words in ("4 points", "rate=0.1", "With --on ray", "on 32"):
        assert words in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["nothing is varied", "field=a,b,c"]),
        (["--vary", "n"], ["--vary n is not legal", "field=a,b,c"]),
        (["--vary", "n="], ["field=a,b,c"]),
        (["--vary"], ["field=a,b,c"]),
        (["--vary", "wings=1,2"], ["no setting wings", "learning_rates"]),
        (["--vary", "n=6,2"], ["n=2", "from 3 to 64"]),
        (["--vary", "n=6,foo"], ["n='foo'", "from 3 to 64"]),
        (["--vary", "n=6,6"], ["must differ"]),
        (["--vary", "learning-rates=0.1+x,0.2"], ["learning_rates=(0.1, 'x')", "finite"]),
        (["--vary", "n=6,8", "--vary", "n=7"], ["n is given twice"]),
        (["--vary", "n=6,8", "--n", "7"], ["n is given twice, as a flag and by --vary"]),
        (["--vary", "learning_rates=1,2", "--learning-rates=3"], ["learning_rates is given twice"]),
        (["--vary", "n=6,8", "--model", "nowhere"], ["--model nowhere"]),
        (["--vary", "n=6,8", "--wings"], ["--wings"]),
    ],
)
def test_what_is_asked_wrongly_is_said_in_one_sentence(arguments, words, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["sweep", "tiny", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in ["mesocosm: error: ", *words])
    assert not list(tmp_path.iterdir())


def test_values_have_the_types_of_their_settings() -> None:
    config = folders.load_study("hidden-progress").presets["smoke"]
    assert read_values("n=10,20", config) == ("n", (10, 20))
    assert read_values("learning-rate=1e-1,1", config) == ("learning_rate", (0.1, 1.0))
    assert read_values("samples=200+400,300", config) == ("samples", ((200, 400), (300,)))
    assert read_values("architectures=relu-10+polynet", config)[1] == (("relu-10", "polynet"),)
    depths = folders.load_study("automata-shortcuts").presets["smoke"]
    assert read_values("every_depth=true,false", depths)[1] == (True, False)
    with pytest.raises(UserError, match="one of relu-10"):
        read_values("architectures=relu-11", config)


def test_a_combination_that_the_study_forbids_is_named() -> None:
    config = folders.load_study("flip-flop").presets["smoke"]
    grid = Sweep(folders.Request("flip-flop", "smoke", config), {"d_model": (16, 18), "n_heads": (2, 4)})
    with pytest.raises(UserError, match="the point d_model=18,n_heads=4 is not legal: n_heads=4"):
        grid.points()


def test_the_longest_jobs_are_begun_first() -> None:
    assert packed([1, 1, 1, 1, 4], 2) == 4
    assert packed([3, 3, 2, 2, 2], 2) == 7
    assert packed([5], 8) == 5
    assert packed([], 2) == 0


@pytest.mark.parametrize(
    ("varied", "names", "squares"),
    [
        ({"n": (6, 8, 60)}, ["effects"], 0),
        ({"learning_rates": ((0.1,), (0.2, 0.3)), "n": (6, 8)}, ["effects"], 4),
        ({"n": (6, 8), "seeds": (1, 2), "steps": (3, 4)}, ["effects-steps=3", "effects-steps=4"], 4),
    ],
)
def test_each_square_of_a_map_holds_verdict_and_effect(varied, names, squares) -> None:
    grid = Sweep(folders.Request("tiny", "smoke", folders.load_study("tiny").presets["smoke"]), varied)
    rows = [
        {"point": name, **{f: json.loads(json.dumps(getattr(r.config, f))) for f in varied}, "claim": "C1"}
        | {"verdict": "not supported", "effect": 10.0 + i if i else None, "low": 0.0, "high": 99.0, "bound": "> 1"}
        for i, (name, r) in enumerate(grid.points().items())
    ]
    for row in rows:
        if isinstance(row.get("learning_rates"), list):
            row["learning_rates"] = "+".join(map(str, row["learning_rates"]))
    drawings = list(draw(grid, pd.DataFrame(rows)))
    assert [drawing.name for drawing in drawings] == names
    texts = [[text.get_text() for text in drawing.figure.axes[0].texts] for drawing in drawings]
    assert [len(words) for words in texts] == [squares] * len(names)
    told = sorted(word for words in texts for word in words)
    shown = [f"✗ not supported\n{10 + i}" for i in range(1, len(rows))]
    assert told == (sorted(["✗ not supported", *shown]) if squares else [])


def test_a_claim_that_was_measured_nowhere_says_so() -> None:
    request = folders.Request("tiny", "smoke", folders.load_study("tiny").presets["smoke"])
    nothing = {"claim": "C1", "verdict": "inconclusive", "effect": None, "low": None, "high": None, "bound": None}
    (drawing,) = draw(Sweep(request, {"n": (6, 8)}), pd.DataFrame([{"n": n, **nothing} for n in (6, 8)]))
    axes = drawing.figure.axes[0]
    assert [text.get_text() for text in axes.texts] == ["not measured"]
    assert list(axes.get_yticks()) == []

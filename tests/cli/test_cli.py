"""The commands as a user meets them: what they print, what they write, and how they fail."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from mesocosm.cli import main
from mesocosm.cli.look import console
from mesocosm.lab.files import read_json, read_table
from mesocosm.pieces import KINDS, kebab, pieces

TINY = ["run", "tiny", "--preset", "smoke"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TINY, "--out", str(folder)]) == 0
    return folder


def test_a_run_leaves_all_that_its_folder_promises(finished: Path) -> None:
    names = {str(p.relative_to(finished)) for p in finished.rglob("*") if p.is_file()} - {".lock"}
    checkpoints = {f"checkpoints/rate={r}{part}.safetensors" for r in ("0.05", "0.1") for part in ("", "_norm")}
    made = {"config.json", "environment.json", "records.parquet", "verdicts.json", "run.log", "report.html"}
    assert names == made | checkpoints | {"figures/error.svg", "figures/error.png", "figures/captions.json"}
    records = read_table(finished / "records.parquet")
    assert list(records.columns) == ["cell", "rate", "seed", "step", "metric", "value"]
    assert set(records.metric) == {"error", "loss", "norm", "flops", "tokens"}
    assert not records.value.isna().any()
    verdicts = read_json(finished / "verdicts.json")
    assert {"format", "study", "preset", "seeds", "claims"} <= verdicts.keys()
    needed = ["id", "statement", "verdict", "effect", "interval", "unit", "rule", "control", "paper", "seconds"]
    assert set(needed) <= verdicts["claims"][0].keys()
    environment = read_json(finished / "environment.json")
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["peak_memory_bytes"] > 1e8


def test_the_first_seeds_of_a_larger_run_are_a_smaller_run(finished: Path, tmp_path: Path) -> None:
    assert main([*TINY, "--seeds", "7", "--out", str(tmp_path / "seven")]) == 0
    seven = read_table(tmp_path / "seven" / "records.parquet")
    first = seven[seven.seed < 3].reset_index(drop=True)
    pd.testing.assert_frame_equal(first, read_table(finished / "records.parquet"))


def test_judging_and_drawing_again_change_nothing(finished: Path, capsys) -> None:
    files = [finished / "verdicts.json", finished / "figures" / "error.svg", finished / "figures" / "error.png"]
    before = [path.read_bytes() for path in files]
    assert main(["judge", str(finished)]) == 0
    assert main(["draw", str(finished)]) == 0
    assert [path.read_bytes() for path in files] == before
    assert "supported" in capsys.readouterr().out


def test_require_supported_has_a_status_of_its_own(tmp_path: Path) -> None:
    hopeless = ["--steps", "1", "--n", "30", "--learning-rates", "0.0", "--require-supported"]
    assert main([*TINY, *hopeless, "--out", str(tmp_path / "run")]) == 3
    assert main([*TINY, "--require-supported", "--out", str(tmp_path / "other")]) == 0


def test_list_names_every_piece_and_each_can_be_loaded(capsys) -> None:
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert {piece["kind"] for piece in listed} == set(KINDS)
    assert all(set(piece) == {"kind", "name", "summary", "source"} for piece in listed)
    for piece in listed:
        assert piece["summary"], piece
        assert pieces(piece["kind"])[piece["name"]].load() is not None
    assert main(["list"]) == 0
    assert "sparse-parity" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["task", "model", "method", "measure"])
def test_show_explains_every_piece(kind: str, capsys) -> None:
    for name in pieces(kind):
        assert main(["show", name]) == 0
        assert len(capsys.readouterr().out.splitlines()) > 1


def test_show_of_a_study_gives_claims_and_costs(capsys) -> None:
    assert main(["show", "tiny"]) == 0
    shown = capsys.readouterr().out
    for text in ("Do two small nets learn", "median last error < 0.45", "FLOP", "parameters"):
        assert text in shown


def test_dry_run_prices_every_training_and_writes_nothing(capsys, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["run", "tiny", "--preset", "paper", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "rate=0.05" in shown
    # 50 x 32 + 32 weights and biases, 32 + 1 at the head; 2 replicas' products forward and backward.
    assert "1,665" in shown
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["COMMAND"]),
        (["fly"], ["fly", "list"]),
        (["run"], ["study"]),
        (["run", "nothing"], ["'nothing'", "tiny"]),
        (["run", "tiny", "--n", "2"], ["n=2", "from 3 to 64"]),
        (["run", "tiny", "--n", "foo"], ["--n", "'foo'"]),
        (["run", "tiny", "--seeds", "0"], ["seeds=0", "from 1 to 64"]),
        (["run", "tiny", "--learning-rates", "nan"], ["learning_rates=(nan,)", "finite"]),
        (["run", "tiny", "--learning-rates", "-1"], ["-1", "0"]),
        (["run", "tiny", "--preset", "huge"], ["huge", "smoke"]),
        (["run", "tiny", "--wings", "2"], ["--wings"]),
        (["run", "tiny", "--device", "tpu"], ["tpu", "cpu"]),
        (["run", "tiny", "--stack", "0"], ["stack=0", "at least 1"]),
        (["run", "stacking-midas", "--preset", "smoke", "--shard"], ["--shard", "midas grows"]),
        (["run", "tiny", "--model", "nowhere"], ["nowhere", "package.module:Name"]),
        (["run", "tiny", "--model", "nowhere:Model"], ["nowhere:Model", "nowhere"]),
        (["run", "tiny", "--model", "math:pi2"], ["math:pi2"]),
        (["run", "tiny", "--model", "mesocosm.models:Transformer"], ["Transformer"]),
        (["run", "tiny", "--model", "strangers:Wide"], ["strangers:Wide", "[2, 3]", "[2]"]),
        (["run", "tiny", "--model", "strangers:Deaf"], ["strangers:Deaf", "float32 [2, 8]"]),
        (["run", "tiny", "--out", __file__], ["--out", "empty folder"]),
        (["resume", "nowhere"], ["nowhere", "config.json"]),
        (["judge", "."], ["config.json"]),
        (["show", "sparse-parit"], ["sparse-parity"]),
        (["report", "nowhere"], ["nowhere"]),
        (["sample", "nothing", "--to", "x.jsonl"], ["nothing", "flip-flop"]),
        (["sample", "sparse-parity", "--to", "x.csv"], ["x.csv", ".parquet"]),
        (["sample", "sparse-parity", "--to", "x.jsonl", "--count", "0"], ["count=0"]),
        (["sample", "sparse-parity", "--to", "x.jsonl", "--k", "99"], ["k=99"]),
        (["sample", "sparse-parity", "--to", "x.jsonl", "--text"], ["--text"]),
    ],
)
def test_what_is_asked_wrongly_is_answered_in_one_sentence(
    arguments, words, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments) == 2
    captured = capsys.readouterr()
    (line,) = captured.err.splitlines()
    assert line.startswith("mesocosm: error: ")
    for word in words:
        assert word in line
    assert not list(tmp_path.iterdir())


def test_cuda_is_refused_where_there_is_none(capsys) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    assert main(["run", "tiny", "--device", "cuda"]) == 2
    assert "CUDA" in capsys.readouterr().err


def test_a_foreign_model_replaces_the_studys(finished: Path, tmp_path: Path) -> None:
    assert main([*TINY, "--model", "strangers:Own", "--out", str(tmp_path / "run")]) == 0
    config = read_json(tmp_path / "run" / "config.json")
    assert config["model"] == "strangers:Own"
    assert config["identity"] != read_json(finished / "config.json")["identity"]
    ours, theirs = (read_table(f / "records.parquet") for f in (finished, tmp_path / "run"))
    assert ours.value.tolist() != theirs.value.tolist()
    assert "strangers:Own" in (tmp_path / "run" / "report.html").read_text()
    assert main(["resume", str(tmp_path / "run")]) == 0


@pytest.mark.parametrize("to", ["x.jsonl", "x.parquet"])
def test_samples_are_the_tasks_own(to: str, tmp_path: Path) -> None:
    from mesocosm.seeding import generator
    from mesocosm.tasks import FlipFlop

    path = tmp_path / to
    assert (
        main(["sample", "flip-flop", "--length", "8", "--count", "5", "--seed", "3", "--to", str(path), "--text"]) == 0
    )
    rows = pd.read_parquet(path) if to.endswith("parquet") else pd.read_json(path, lines=True)
    task = FlipFlop(length=8)
    batch = task.sample(5, generator(3, "sample"))
    assert list(rows.columns) == [*batch._fields, "tokens"]
    for name, field in zip(batch._fields, batch):
        assert torch.equal(torch.tensor(np.array(rows[name].tolist())).to(field.dtype), field), name
    assert list(rows.tokens[0]) == [task.tokens[t] for t in batch.inputs[0]]


def test_samples_go_to_standard_output_until_its_reader_has_seen_enough() -> None:
    command = [sys.executable, "-m", "mesocosm.cli", "sample", "sparse-parity", "--count", "20000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stderr
        assert set(json.loads(process.stdout.readline())["inputs"]) == {-1.0, 1.0}
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


def test_help_of_a_piece_flows_to_the_width_of_the_terminal(capsys, monkeypatch) -> None:
    monkeypatch.setattr(console, "_width", 60)
    assert main(["show", "flip-flop"]) == 0
    prose = capsys.readouterr().out.split("The first instruction", 1)[1].split("Source")[0].splitlines()
    assert all(40 < len(line) <= 60 for line in prose[1:-3])


@pytest.mark.parametrize(
    "command", [["--help"], ["run", "--help"], ["run", "tiny", "--help"], ["sample", "flip-flop", "--help"]]
)
def test_help_teaches(command: list[str], capsys) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: mesocosm" in shown
    if command == ["run", "tiny", "--help"]:
        for text in ("--learning-rates", "from 3 to 64", "--require-supported", "--compile"):
            assert text in shown


def test_list_and_help_do_not_import_torch() -> None:
    for command in ("list", "--help"):
        code = "import sys, mesocosm.cli as c\ntry: c.main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
        subprocess.run([sys.executable, "-c", code, command], check=True, capture_output=True)


def test_a_bug_in_a_study_is_one_sentence_and_a_log(tmp_path: Path, capsys, monkeypatch) -> None:
    import tiny_plugin

    monkeypatch.setattr(tiny_plugin.training, "hinge", lambda model, batch: 1 / 0)
    assert main([*TINY, "--out", str(tmp_path / "run")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "ZeroDivisionError" in line
    assert "resume" in line
    assert "Traceback" in (tmp_path / "run" / "run.log").read_text()


def test_output_into_a_closed_pipe_is_quiet() -> None:
    command = f"{sys.executable} -m mesocosm.cli list | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [("SparseParity", "sparse-parity"), ("AdamW", "adamw"), ("LSTM", "lstm"), ("cross_entropy", "cross-entropy")],
)
def test_names(name: str, expected: str) -> None:
    assert kebab(name) == expected

"""A run that is killed, interrupted or out of disk goes on where it was, with the records it would have had."""

import hashlib
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from mesocosm.cli import main
from mesocosm.lab.files import read_table

ARGUMENTS = ["run", "tiny", "--preset", "smoke", "--n", "10", "--steps", "300", "--stack", "2"]
KILLING = Path(__file__).parent / "killing.py"


@pytest.fixture(scope="module")
def reference(tmp_path_factory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assert main([*ARGUMENTS, "--out", str(folder)]) == 0
    return read_table(folder / "records.parquet")


@pytest.mark.parametrize("how", ["random", "fsync", "replace"])
def test_records_survive_kills(how: str, tmp_path: Path, reference: pd.DataFrame) -> None:
    folder = tmp_path / "run"
    command = [sys.executable, KILLING, how, "8", *ARGUMENTS, "--out", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == "killed 8"
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)


def start(arguments: list[str], **options) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "mesocosm.cli", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = ["run", "tiny", "--n", "60", "--steps", "100000", "--out", str(folder)]
    process = start(arguments)
    while not (folder / "run.log").exists():
        time.sleep(0.1)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "mesocosm: error: interrupted\n"
    assert f"mesocosm resume {folder}" in " ".join(output.split())
    assert list((folder / "checkpoints").iterdir())
    assert main(["judge", str(folder)]) == 2


def test_the_same_command_resumes_an_unfinished_run(tmp_path: Path, monkeypatch, reference: pd.DataFrame) -> None:
    from mesocosm.lab.lab import Lab

    monkeypatch.chdir(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Lab, "records", lambda self: (_ for _ in ()).throw(KeyboardInterrupt))
        assert main(ARGUMENTS) == 130
    (folder,) = Path("runs/tiny").iterdir()
    checkpoints = {p: p.stat().st_mtime_ns for p in (folder / "checkpoints").iterdir()}
    assert main(ARGUMENTS) == 0
    assert list(Path("runs/tiny").iterdir()) == [folder]
    assert {p for p in checkpoints if p.stat().st_mtime_ns == checkpoints[p] and "norm" in p.name}
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)
    assert main(ARGUMENTS) == 0
    assert len(list(Path("runs/tiny").iterdir())) == 2


def quota() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))


def test_a_full_disk_loses_nothing_already_written(tmp_path: Path, reference: pd.DataFrame) -> None:
    folder = tmp_path / "run"
    process = start([*ARGUMENTS, "--out", str(folder)], preexec_fn=quota)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert errors.startswith("mesocosm: error: cannot write ")
    assert len(errors.splitlines()) == 1
    assert not list(folder.rglob("*.tmp"))
    assert main(["resume", str(folder)]) == 0
    pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)


def contents(folder: Path) -> dict[str, str]:
    files = [p for p in folder.rglob("*") if p.is_file() and p.name not in ("run.log", ".lock")]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


@pytest.mark.parametrize("harm", [lambda d: d[: len(d) // 2], flip, lambda d: b""], ids=["cut", "flipped", "emptied"])
@pytest.mark.parametrize("name", ["config.json", "records.parquet", "checkpoints/rate=0.1.safetensors"])
def test_damage_is_refused_by_name_and_nothing_is_overwritten(name, harm, tmp_path, capsys, reference) -> None:
    folder = tmp_path / "run"
    assert main([*ARGUMENTS, "--out", str(folder)]) == 0
    if name.startswith("checkpoints"):
        (folder / "report.html").unlink()
    victim = folder / name
    whole = victim.read_bytes()
    victim.write_bytes(harm(whole))
    before = contents(folder)
    capsys.readouterr()
    assert main(["resume", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"mesocosm: error: {victim} is damaged")
    assert "resume" in line or "restore" in line
    assert contents(folder) == before
    if name != "config.json":
        victim.unlink()
        assert main(["resume", str(folder)]) == 0
        pd.testing.assert_frame_equal(read_table(folder / "records.parquet"), reference)


def test_two_processes_do_not_share_a_folder(tmp_path: Path, capsys) -> None:
    from mesocosm.lab.folder import locked

    folder = tmp_path / "run"
    assert main([*ARGUMENTS, "--out", str(folder)]) == 0
    with locked(folder):
        assert main(["judge", str(folder)]) == 2
    assert "in use by another mesocosm process" in capsys.readouterr().err
    assert main(["judge", str(folder)]) == 0

"""`mesocosm bench studies`: a row a study, from runs in processes of their own."""

import pytest

from mesocosm.cli import main
from mesocosm.lab.files import read_json


def test_each_study_is_run_once_and_its_time_is_told_apart(tmp_path, capfd) -> None:
    words = ["bench", "studies", "--preset", "smoke", "--to", str(tmp_path / "bench"), "--only", "tiny"]
    assert main(words) == 0
    facts = read_json(tmp_path / "bench" / "tiny" / "bench.json")
    phases = read_json(tmp_path / "bench" / "tiny" / "environment.json")["seconds_by_phase"]
    assert min(phases.values()) > 0
    assert sum(phases.values()) < facts["seconds"]
    assert facts["peak_memory_bytes"] > 1e8
    table = (tmp_path / "bench" / "studies.md").read_text()
    (row,) = [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("| tiny")]
    assert row[:3] == ["tiny", "smoke", f"{facts['seconds']:.0f}"]
    assert sum(map(float, row[5:])) == pytest.approx(100, abs=3)
    assert float(row[6]) == pytest.approx(100 * phases["step"] / facts["seconds"], abs=1)
    assert main(words) == 0
    assert read_json(tmp_path / "bench" / "tiny" / "bench.json") == facts
    assert "table:" in capfd.readouterr().out


def test_a_study_that_fails_is_told_and_the_table_is_written(tmp_path, capfd, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MESOCOSM_CACHE", str(tmp_path / "nothing"))
    words = ["bench", "studies", "--preset", "paper", "--only", "disagreement"]
    assert main(words) == 1
    said = capfd.readouterr().out
    assert "not in the table: disagreement" in said
    assert "disagreement: cifar10 was not found" in said
    assert (tmp_path / "bench" / "studies.md").exists()
    assert not (tmp_path / "bench" / "disagreement").exists()


def test_an_unknown_study_is_refused_before_any_work(tmp_path, capfd) -> None:
    assert main(["bench", "studies", "--to", str(tmp_path / "bench"), "--only", "nonsense"]) == 2
    assert "there is no study 'nonsense'; choose from: automata-shortcuts" in capfd.readouterr().err
    assert not (tmp_path / "bench").exists()

"""A finished run of the tiny plugin, made once and copied for each test."""

import shutil
from pathlib import Path

import pytest
from pages import date

from mesocosm.cli import main
from mesocosm.lab.files import read_json, write_json


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "20260102-030405-abcdef12"
    assert main(["run", "tiny", "--preset", "smoke", "--steps", "40", "--out", str(folder)]) == 0
    date(folder, "2026-01-02T03:04:05+00:00")
    return folder


@pytest.fixture
def run(finished, tmp_path):
    return Path(shutil.copytree(finished, tmp_path / "tiny" / finished.name))


@pytest.fixture
def many(run):
    """The same run with a claim of each verdict, and two figures that share all ids."""
    (run / "report.html").unlink()
    verdicts = read_json(run / "verdicts.json")
    claim = verdicts["claims"][0]
    others = [
        {"id": "C2", "verdict": "not supported", "statement": "Wider nets are faster.", "control": None},
        {"id": "C3", "verdict": "inconclusive", "note": "too few seeds", "effect": None, "checks": []},
    ]
    write_json(run / "verdicts.json", {**verdicts, "claims": [claim, *({**claim, **other} for other in others)]})
    for kind in ("svg", "png"):
        shutil.copy(run / "figures" / f"error.{kind}", run / "figures" / f"again.{kind}")
    write_json(run / "figures" / "captions.json", {"captions": {"error": "The error.", "again": "The error, again."}})
    return run

"""A user's own architecture, with nothing but a `forward`, runs on every study of token sequences."""

import json
from pathlib import Path

import pytest

from mesocosm.cli import main
from mesocosm.lab.files import read_table
from mesocosm.pieces import pieces


def reads_tokens(study: str) -> bool:
    """Whether all that a study trains, and it trains something, reads tokens."""
    whole = pieces("study")[study].load()
    if whole.estimate:
        return False
    cells = list(whole.plan(whole.presets["smoke"]))
    return all(cell.task.tokens for cell in cells)


STUDIES = sorted(filter(reads_tokens, pieces("study")))


def test_the_studies_of_sequences_are_found() -> None:
    five = {"automata-shortcuts", "dyck-uninterpretability", "induction-heads", "path-star", "repeat-after-me"}
    assert five | {"flip-flop"} <= set(STUDIES)


@pytest.mark.slow
@pytest.mark.parametrize("study", STUDIES)
def test_a_foreign_gru_is_trained_measured_and_judged(study: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert main(["run", study, "--preset", "smoke", "--model", "strangers:OwnGRU", "--out", str(run)]) == 0
    whole = pieces("study")[study].load()
    swapped = [cell.name for cell in whole.plan(whole.presets["smoke"]) if cell.swappable]
    assert swapped
    assert set(swapped) <= set(read_table(run / "records.parquet").cell)
    verdicts = json.loads((run / "verdicts.json").read_text())["claims"]
    assert {claim["id"] for claim in verdicts} == {claim.id for claim in whole.claims}
    assert all(claim["verdict"] in ("supported", "not supported", "inconclusive") for claim in verdicts)

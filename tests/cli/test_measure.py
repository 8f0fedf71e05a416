"""`mesocosm measure`: scores of a user's own examples, and what is written of them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

from mesocosm.cli import main
from mesocosm.tasks import OwnExamples

ROOT = Path(__file__).parents[2]
COUNT = 400
FLIPPED = np.arange(COUNT) % 10 == 3
QUICK = ["--trainings", "24", "--share", "0.5", "--steps", "400", "--batch-size", "32"]


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Path:
    """The same 400 digits as `table.csv` and in the folder `pictures`; every tenth label is another digit's."""
    folder, loaded = tmp_path_factory.mktemp("digits"), load_digits()
    images, labels = loaded.images[:COUNT], loaded.target[:COUNT].copy()
    labels[FLIPPED] = (labels[FLIPPED] + np.random.default_rng(0).integers(1, 10, FLIPPED.sum())) % 10
    table = pd.DataFrame(images.reshape(COUNT, -1)).add_prefix("pixel")
    table.assign(label=labels).to_csv(folder / "table.csv", index=False)
    for i, (image, label) in enumerate(zip(images, labels)):
        (folder / "pictures" / str(label)).mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15).astype(np.uint8)).save(folder / "pictures" / str(label) / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def measured(digits: Path) -> Path:
    to = digits / "of-table"
    assert main(["measure", "memorization", "--data", str(digits / "table.csv"), "--to", str(to), *QUICK]) == 0
    return to


def test_flipped_labels_of_a_table_are_the_memorised_ones(measured: Path) -> None:
    scores = pd.read_csv(measured / "scores.csv")
    assert scores.example.tolist() == list(range(COUNT))
    assert roc_auc_score(FLIPPED, scores.score) > 0.97
    assert scores.score[FLIPPED].mean() > scores.score[~FLIPPED].mean() + 0.6
    assert scores.accuracy_in.mean() > 0.99
    assert (scores.score - (scores.accuracy_in - scores.accuracy_out)).abs().max() < 2e-4
    assert roc_auc_score(FLIPPED, scores.el2n) > 0.9
    assert roc_auc_score(FLIPPED, -scores.confidence) > 0.9
    true = load_digits().target[:COUNT]
    assert (scores.predicted_out == true)[FLIPPED].mean() > 0.7
    assert (scores.label != true).tolist() == FLIPPED.tolist()


@pytest.mark.slow
def test_flipped_labels_of_pictures_are_the_memorised_ones(digits: Path, tmp_path: Path, capsys) -> None:
    to = tmp_path / "out"
    settings = [
        "--trainings",
        "20",
        "--share",
        "0.5",
        "--steps",
        "250",
        "--batch-size",
        "32",
        "--learning-rate",
        "0.01",
    ]
    assert main(["measure", "memorization", "--data", str(digits / "pictures"), "--to", str(to), *settings]) == 0
    scores = pd.read_csv(to / "scores.csv").dropna()
    assert len(scores) > 0.97 * COUNT
    place = scores.example.map(lambda name: int(Path(name).stem))
    flipped = FLIPPED[place]
    assert roc_auc_score(flipped, scores.score) > 0.9
    assert scores.score[flipped].mean() > scores.score[~flipped].mean() + 0.4
    assert (scores.example.map(lambda name: int(Path(name).parent.name)) == scores.label).all()
    assert {path.name for path in to.iterdir()} == {"scores.csv", "scores.png", "most-memorised.png", "report.html"}
    shown = capsys.readouterr().out
    first = scores.sort_values(["score", "el2n"], ascending=False).example.iloc[0]
    assert first in shown and "Mean score" in shown and str(to / "report.html") in shown.replace("\n", "")


def test_the_page_needs_no_other_file(measured: Path) -> None:
    page = (measured / "report.html").read_text()
    assert page.count('src="data:image/png;base64,') == 2
    assert "table.csv" in page and "--trainings 24" in page and "Mean score" in page
    scores = pd.read_csv(measured / "scores.csv").sort_values(["score", "el2n"], ascending=False)
    rows = re.findall(r"<td>(\d+)</td><td>(\d)</td>", page)
    assert rows[:5] == [(str(e), str(label)) for e, label in zip(scores.example[:5], scores.label[:5])]
    for name in ("most-memorised.png", "scores.png"):
        with Image.open(measured / name) as picture:
            assert min(picture.size) > 300


def test_the_same_request_gives_the_same_scores_and_another_seed_others(
    digits: Path, measured: Path, tmp_path: Path
) -> None:
    ask = ["measure", "memorization", "--data", str(digits / "table.csv"), *QUICK]
    assert main([*ask, "--to", str(tmp_path / "same")]) == 0
    assert (tmp_path / "same" / "scores.csv").read_bytes() == (measured / "scores.csv").read_bytes()
    assert main([*ask, "--seed", "1", "--steps", "20", "--to", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "scores.csv").read_bytes() != (measured / "scores.csv").read_bytes()


def test_models_that_learn_nothing_memorise_nothing_and_say_so(digits: Path, tmp_path: Path, capsys) -> None:
    ask = ["measure", "memorization", "--data", str(digits / "table.csv"), *QUICK, "--learning-rate", "0"]
    assert main([*ask, "--steps", "1", "--to", str(tmp_path / "out")]) == 0
    scores = pd.read_csv(tmp_path / "out" / "scores.csv")
    assert scores.score.abs().mean() < 0.15
    assert abs(roc_auc_score(FLIPPED, scores.score) - 0.5) < 0.15
    words = "so the scores say little"
    assert words in capsys.readouterr().out
    assert words in (tmp_path / "out" / "report.html").read_text()


NEAREST = """
import torch
from torch import nn

class Strange(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(task.input_shape[0], 32), nn.Tanh(), nn.Linear(32, *task.output_shape))

    def forward(self, x):
        return self.layers(x)

class Loud(Strange):
    def forward(self, x):
        return self.layers(x) / 0

class Narrow(Strange):
    def forward(self, x):
        return self.layers(x)[:, :3]
"""


def test_a_users_own_model_takes_the_place(digits: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_models.py").write_text(NEAREST)
    ask = ["measure", "memorization", "--data", str(digits / "table.csv"), *QUICK, "--steps", "20"]
    assert main([*ask, "--model", "my_models:Strange"]) == 0
    assert (tmp_path / "memorization-table" / "report.html").exists()


def test_trainings_that_diverge_are_an_error_and_leave_nothing(
    digits: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_loud_models.py").write_text(NEAREST)
    ask = ["measure", "memorization", "--data", str(digits / "table.csv"), *QUICK, "--steps", "1"]
    assert main([*ask, "--model", "my_loud_models:Loud"]) == 1
    assert "24 of 24 trainings diverged" in capsys.readouterr().err
    assert not (tmp_path / "memorization-table").exists()


def test_examples_that_too_few_models_left_out_have_no_score(digits: Path, tmp_path: Path, capsys) -> None:
    ask = ["measure", "memorization", "--data", str(digits / "table.csv"), "--trainings", "12", "--share", "0.5"]
    assert main([*ask, "--steps", "1", "--to", str(tmp_path / "out")]) == 0
    missing = pd.read_csv(tmp_path / "out" / "scores.csv").score.isna().sum()
    assert 0 < missing < COUNT / 2
    assert f"{missing} of {COUNT} examples have no score" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ([], ["data=None", "folder"]),
        (["--data", "nowhere.csv"], ["nowhere.csv", "no such file"]),
        (["--data", "TABLE", "--label", "kind"], ["label=kind", "pixel0"]),
        (["--data", "TABLE", "--model", "nothing"], ["--model nothing", "mesocosm list"]),
        (["--data", "TABLE", "--model", "cnn"], ["--model cnn", "images"]),
        (["--data", "TABLE", "--model", "nowhere:Model"], ["nowhere:Model"]),
        (["--data", "TABLE", "--model", "my_narrow_models:Narrow"], ["[2, 3]", "[2, 10]"]),
        (["--data", "TABLE", "--trainings", "12"], ["--trainings 12", "more trainings"]),
        (["--data", "TABLE", "--trainings", "9"], ["trainings=9", "10"]),
        (["--data", "TABLE", "--share", "1"], ["share=1", "0.99"]),
        (["--data", "TABLE", "--to", "."], ["--to .", "empty folder"]),
        (["--data", "TABLE", "--wings", "2"], ["--wings"]),
    ],
)
def test_what_is_asked_wrongly_is_answered_before_any_training(
    settings, words, digits: Path, tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_narrow_models.py").write_text(NEAREST)
    asked = [str(digits / "table.csv") if word == "TABLE" else word for word in settings]
    assert main(["measure", "memorization", *asked]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    for word in words:
        assert word in line
    assert [path.name for path in tmp_path.glob("[!_]*")] == ["my_narrow_models.py"]


def test_what_cannot_be_measured_is_answered_with_what_can(capsys) -> None:
    assert main(["measure", "happiness"]) == 2
    assert "memorization" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["measure", "--help"], ["measure", "memorization", "--help"]])
def test_help_teaches_without_torch(command: list[str]) -> None:
    code = "import sys, mesocosm.cli as c\ntry: c.main(sys.argv[1:])\nfinally: assert 'torch' not in sys.modules"
    shown = subprocess.run([sys.executable, "-c", code, *command], check=True, capture_output=True, text=True).stdout
    assert "memorization" in shown
    if len(command) == 3:
        for text in ("--data", "--label", "--side", "--trainings", "from 10 to", "package.module:Name", "--to"):
            assert text in shown


def python_of(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / "docs" / document).read_text(), re.DOTALL)


def test_the_pages_example_is_a_folder_of_examples(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = python_of("measure-memorization.md")
    exec(block, {})
    examples = OwnExamples(data="digits")
    assert examples.origin == "1797 examples of 10 classes in digits, 1 x 8 x 8 pixels each"
    assert examples.all().targets.bincount().tolist() == np.bincount(load_digits().target).tolist()


@pytest.mark.slow
def test_the_guides_example_finds_flipped_labels() -> None:
    (block,) = (block for block in python_of("guide.md") if "train_on_subsets" in block)
    names: dict = {}
    exec(block.replace("steps=1500", "steps=500"), names)
    noisy, score = names["data"].targets != names["data"].clean, names["memorised"].score
    assert 0.05 < noisy.double().mean() < 0.15
    assert roc_auc_score(noisy[~score.isnan()], score[~score.isnan()]) > 0.95
    right, seen = names["correct"][:, 0].double(), names["included"][:, 0]
    torch.testing.assert_close(score[0], right[seen].mean() - right[~seen].mean())

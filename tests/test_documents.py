"""The code in the documents runs as it stands, and their links lead somewhere."""

import re
from pathlib import Path

import matplotlib.pyplot
import pytest
import torch

from mesocosm.seeding import generator
from mesocosm.training import SGD, Population, train

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]


def blocks(document: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (ROOT / document).read_text(), re.DOTALL)


def test_the_examples_of_the_readme_run(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    for block in blocks("README.md"):
        exec(block.replace("steps=1500", "steps=100"), {})
    assert (tmp_path / "loss.png").stat().st_size > 5000
    matplotlib.pyplot.close("all")


def test_the_pieces_of_the_contributors_guide_fit_each_other() -> None:
    names: dict = {"__name__": "guide"}
    for block in blocks("CONTRIBUTING.md"):
        exec(block, names)
    task = names["Coin"](throws=20)
    batch = task.sample(4000, generator(0))
    assert set(task.fields) == set(batch._fields)
    population = Population(lambda: names["Line"].for_task(task), range(3))
    train(population, task, names["logistic"], SGD(0.5), steps=300, batch_size=64)
    margin = population.map(lambda model: names["mean_margin"](model(batch.inputs), batch.targets))
    assert (margin > 0.3).all()
    torch.testing.assert_close(batch.inputs.squeeze(1).mean(), torch.tensor(0.5), atol=0.03, rtol=0)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(document: Path) -> None:
    for link in re.findall(r"\]\(([^)#:]+?)(?:#[^)]*)?\)", document.read_text()):
        assert (document.parent / link).exists(), link

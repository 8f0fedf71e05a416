"""bfloat16 rounds the products of training, and nothing else."""

import pytest
import torch

from mesocosm.cli import main
from mesocosm.lab.folder import Request, load_study
from mesocosm.models import MLP
from mesocosm.tasks import SparseParity
from mesocosm.training import AdamW, Population, hinge, train

TASK = SparseParity(n=10, k=2)


@pytest.fixture(autouse=True)
def _without_onednn():
    # Its kernels for bfloat16 end the process on some processors that claim to have them.
    with torch.backends.mkldnn.flags(enabled=False, allow_tf32=None):
        yield


def test_products_are_rounded_and_all_else_is_float32() -> None:
    seen, ends = [], {}

    def objective(model, batch):
        seen.append(model(batch.inputs).dtype)
        return hinge(model, batch)

    def outputs(population, step):
        answers = population.map(lambda model: model(torch.eye(10)))
        assert answers.dtype == torch.float32
        return {"sum": answers.sum(1)}

    for precision in ("float32", "bfloat16"):
        seen.clear()
        population = Population(lambda: MLP.for_task(TASK, hidden=(16,)), range(3))
        history = train(
            population, TASK, objective, AdamW(1e-2), steps=10, batch_size=8, measure=outputs, precision=precision
        )
        assert (torch.bfloat16 in seen) == (precision == "bfloat16")
        assert history.population.theta.dtype == torch.float32
        ends[precision] = history
    before = Population(lambda: MLP.for_task(TASK, hidden=(16,)), range(3)).theta
    plain, rounded = (ends[precision].population.theta - before for precision in ("float32", "bfloat16"))
    apart = (plain - rounded).norm() / plain.norm()
    assert 1e-4 < apart < 0.1
    assert torch.equal(ends["float32"].metrics["sum"][0], ends["bfloat16"].metrics["sum"][0])


def test_a_run_in_bfloat16_is_another_run_and_needs_a_gpu(tmp_path, capsys) -> None:
    config = load_study("tiny").presets["smoke"]
    plain, rounded = (Request("tiny", "smoke", config, None, precision) for precision in ("float32", "bfloat16"))
    assert plain.identity() != rounded.identity()
    folder = tmp_path / "run"
    assert main(["run", "tiny", "--precision", "bfloat16", "--out", str(folder)]) == 2
    assert "--precision bfloat16 is not legal on the CPU" in capsys.readouterr().err
    assert not folder.exists()

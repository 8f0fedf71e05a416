import dataclasses
import itertools
import subprocess
import sys

import numpy
import pandas
import pytest
import torch
from strangers import OwnImages
from torch import nn

from mesocosm import models, tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies import sam_features
from mesocosm.studies.sam_features import (
    EASIEST,
    HARDEST,
    PRESETS,
    STUDY,
    Config,
    evaluation,
    figures,
    plan,
    rules,
    run,
)
from mesocosm.training import Population

TINY = Config(
    seeds=2, d=5, samples=20, steps=5, rhos=(0, 0.1, 0.5), sam_rhos=(0, 0.1), directions=2, image_seeds=2,
    train_images=20, batch_size=10, image_rhos=(0, 0.05), channels=2, hidden=(4,), image_steps=3, probe_images=40,
)  # fmt: skip
DRAWN = ["branches", "mechanisms", "lorenz", "probes"]
RHOS = (0.0, 0.1, 0.5)
STEPS = (0, 400, 800, 1200, 1600, 2000)


def made_up(
    hard=-0.01, sam_hard=-0.01, easy=0.0, equal=0.0, gini=-0.1, random=0.0, still=0.0, share=1.2, encoders=1.0,
    probe=-0.02, test=0.0, alone=0.0,
):  # fmt: skip
    """Records of 8 seeds: changes from rho = 0 to the largest rho, or from the parameters to the phantom ones."""
    rows = []
    noise = numpy.random.default_rng(0)

    def add(cell, metric, step, judged, change, base=0.3, scatter=1e-3):
        for seed in range(8):
            start = base + 0.01 * noise.standard_normal()
            for rho in (0.0, judged) if cell.startswith(("images", "alone")) else RHOS:
                value = start + change * rho / RHOS[-1] + bool(rho) * scatter * noise.standard_normal()
                columns = {"cell": cell, "seed": seed, "step": step, "rho": rho, "judged": float(rho == judged)}
                rows.append({**columns, "metric": metric, "value": value})

    for step in STEPS:
        for cell, change in (("toy LSAM", hard), ("toy SAM", sam_hard), ("equal LSAM", equal)):
            add(cell, "hard error", step, 0.1, change)
            add(cell, "easy error", step, 0.1, easy)
            add(cell, "train loss", step, 0.1, 0.0, base=1 - step / 4000)
        for seed, rho in itertools.product(range(8), RHOS):
            columns = {"cell": "toy LSAM", "seed": seed, "step": step, "rho": rho, "judged": float(rho == 0.1)}
            more = 1 + 0.01 * noise.standard_normal()
            values = {
                "gini, real": 0.8,
                "gini, phantom": 0.8 + (gini * rho * more if rho else still),
                "gini, random": 0.8 + random * rho,
                "share, real": 0.1,
                "share, phantom layers": 0.1 * (share * more if rho else 1),
                "share, phantom importance": 0.1,
                "share, phantom": 0.1,
                "share, phantom encoders": 0.1 * (encoders if rho else 1),
            }
            rows += [{**columns, "metric": metric, "value": value} for metric, value in values.items()]
    for rank, rho, seed in itertools.product((0.0, 0.5, 1.0), RHOS, range(8)):
        columns = {
            "cell": "toy LSAM",
            "seed": seed,
            "step": 2000,
            "rho": rho,
            "judged": float(rho == 0.1),
            "rank": rank,
        }
        rows += [{**columns, "metric": f"lorenz, {kind}", "value": rank**2} for kind in ("real", "phantom")]
    for cell, change in (("images SAM", probe), ("images LSAM", 0.0), ("images MLP", 0.0), ("alone SAM", alone)):
        add(cell, "hard probe error", 1500, 0.5, change, scatter=2e-3)
        add(cell, "easy probe error", 1500, 0.5, 0.0)
        add(cell, "test error", 1500, 0.5, test)
    return pandas.DataFrame(rows)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"hard": 0.01}),
        ("C1", {"sam_hard": 0.01}),
        ("C1", {"easy": 0.01}),
        ("C2", {"gini": 0.1}),
        ("C3", {"share": 0.9}),
        ("C4", {"probe": 0.02}),
        ("C4", {"test": 0.02}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"equal": -0.05}),
        ("C2", {"random": -0.05}),
        ("C2", {"still": 1e-6}),
        ("C3", {"encoders": 1.1}),
        ("C4", {"alone": -0.02}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


def test_the_rules_look_at_their_own_rho_and_steps():
    records = made_up()
    assert rules.judged(records, "toy LSAM") == 0.1
    assert rules.largest(records, "toy LSAM") == 0.5
    assert rules.judged_steps(records, "toy LSAM") == [400, 800, 1200, 1600, 2000]
    coarse = records[records["step"].isin([0, 800, 2000])]
    assert rules.judged_steps(coarse, "toy LSAM") == [800, 2000]


def test_networks_that_diverged_leave_their_seed_or_their_rho_out():
    records = made_up()
    hard = (records["cell"] == "toy LSAM") & (records["metric"] == "hard error") & (records["step"] > 0)
    one = records[~(hard & (records["seed"] == 3) & (records["rho"] == 0.5))]
    assert rules.change(rules.table(one, "toy LSAM", "hard error")).index.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert verdict("C1", one)[0] == "supported"
    assert verdict("C1", records[~(hard & (records["rho"] == 0.5))])[0] == "inconclusive"


def test_errors_are_compared_at_the_larger_of_the_last_losses():
    rows = []
    for rho, losses, errors in ((0.0, (4.0, 2.0, 1.0), (0.5, 0.3, 0.1)), (0.5, (4.0, 3.0, 2.0), (0.5, 0.4, 0.2))):
        for step, (loss, error) in enumerate(zip(losses, errors)):
            columns = {"cell": "toy LSAM", "seed": 0, "step": step, "rho": rho}
            rows += [
                {**columns, "metric": "train loss", "value": loss},
                {**columns, "metric": "hard error", "value": error},
            ]
    assert rules.at_equal_loss(pandas.DataFrame(rows), "toy LSAM", "hard error")[0] == pytest.approx(0.2 - 0.3)


def branches(seeds, rho, only=evaluation.in_head):
    """A population in the middle of training, its training sets and its optimiser."""
    task = tasks.RedundantFeatures(d=5)
    sets = evaluation.TrainingSets(task, 20, 20, seeds)
    population = Population(lambda: models.TwoBranches.for_task(task, reader_std=1.0), seeds)
    population.weights()["head"].copy_(torch.linspace(0.5, 2.5, 2 * len(seeds)).view(-1, 2))
    return population, sets, training.SAM(training.SGD(0.1), rho=rho, only=only)


@pytest.mark.parametrize("only", [evaluation.in_head, evaluation.in_encoders])
def test_phantom_parameters_are_those_of_a_loop_of_ones_own(only):
    population, sets, sam = branches([0, 1], [0.3, 0.7], only)
    batch = sets.whole([0, 1], torch.device("cpu"))
    phantom = evaluation.uphill(population, sam, sets, evaluation.gradient_rows(population, batch))
    for r, rho in enumerate([0.3, 0.7]):
        model = population.replica(r)
        evaluation.logistic(model, batch._make(field[r] for field in batch)).backward()
        with training.uphill(model, rho, only=only):
            for name, parameter in model.named_parameters():
                torch.testing.assert_close(phantom.weights()[name][r], parameter.detach())


def test_what_is_tracked_has_its_closed_form():
    population, sets, sam = branches([0, 1], [0.0, 0.4])
    found = evaluation.track(TINY, sets, sam, population, 0)
    batch = sets.whole([0, 1], torch.device("cpu"))
    for r in range(2):
        model, own = population.replica(r), batch._make(field[r] for field in batch)
        weights = torch.sigmoid(-own.targets * model(own.inputs)).detach()
        differences = (weights[:, None] - weights[None]).abs().mean()
        assert found["gini, real"][r].item() == pytest.approx((differences / 2 / weights.mean()).item(), rel=1e-5)
        assert found["train loss"][r].item() == pytest.approx(-(1 - weights).log().mean().item(), rel=1e-5)
        assert found["norm ratio"][r].item() == pytest.approx((model.hard.norm() / model.easy.norm()).item())
        x = sets.task.sample(200_000, torch.Generator().manual_seed(r))
        wrong = (x.targets[:, None] * (x.inputs * model.readers).sum(-1) < 0).double().mean(0)
        both = (x.targets * model(x.inputs) < 0).double().mean()
        tracked = torch.stack([found[name][r] for name in ("easy error", "hard error", "error")])
        torch.testing.assert_close(tracked.double(), torch.cat([wrong, both[None]]), atol=5e-3, rtol=0)
    assert found["gini, real"][0] == found["gini, phantom"][0] == found["gini, random"][0]
    assert len({found[name][0].item() for name in found if name.startswith("share")}) == 1
    phantom = evaluation.uphill(population, sam, sets, evaluation.gradient_rows(population, batch))
    before, after = (some.weights()["head"][1] for some in (population, phantom))
    expected = (after[1] / after[0]) / (before[1] / before[0])
    assert (found["share, phantom layers"] / found["share, real"])[1].item() == pytest.approx(expected.item(), rel=1e-5)
    assert found["share, phantom encoders"][1].item() == pytest.approx(found["share, real"][1].item(), rel=1e-5)


def test_random_directions_do_not_depend_on_company_and_reach_as_far():
    population, sets, sam = branches([0, 1, 2], [0.4] * 3, only=lambda name: True)
    rows = evaluation.random_rows(population, sets, 0)
    assert torch.equal(rows[2:], evaluation.random_rows(population.select([2]), sets, 0))
    assert not torch.equal(rows, evaluation.random_rows(population, sets, 1))
    moved = evaluation.uphill(population, sam, sets, rows).weights()
    distance = torch.cat([(moved[n] - w).flatten(1) for n, w in population.weights().items()], dim=1).norm(dim=1)
    assert distance.tolist() == pytest.approx([0.4] * 3, rel=1e-4)


def test_training_sets_belong_to_seeds():
    sets = evaluation.TrainingSets(tasks.ImagePairs(), 12, 5, [7, 3, 7])
    cpu = torch.device("cpu")
    whole = sets.whole([0, 1, 2], cpu).inputs
    assert torch.equal(whole[0], whole[2])
    assert not torch.equal(whole[0], whole[1])
    alone = evaluation.TrainingSets(tasks.ImagePairs(), 12, 5, [3])
    for step in range(4):
        batch = sets(step, [0, 1, 2], cpu).inputs
        assert batch.shape == (3, 5, 1, 16, 8)
        assert torch.equal(batch[0], batch[2])
        assert torch.equal(batch[1], alone(step, [0], cpu).inputs[0])
        assert all(any(torch.equal(image, own) for own in whole[1]) for image in batch[1])
    everything = evaluation.TrainingSets(tasks.RedundantFeatures(), 12, 12, [7, 3])
    assert torch.equal(everything(0, [1], cpu).inputs, everything.whole([1], cpu).inputs)
    assert torch.equal(everything(5, [0, 1], cpu).inputs, everything.whole([0, 1], cpu).inputs)


def test_a_network_that_knows_one_half_is_found_out():
    class Half(nn.Module):
        """Shows the pixels of one half of the image to its last layer."""

        def __init__(self, rows):
            super().__init__()
            self.rows, self.last = rows, nn.Linear(64, 2)

        def forward(self, x):
            return self.last(x[:, :, self.rows].flatten(1))

    config = dataclasses.replace(TINY, probe_images=600)
    found = [evaluation.evaluate(config, Population(lambda r=r: Half(r), [0])) for r in (slice(0, 8), slice(8, 16))]
    assert found[0]["easy probe error"] < 0.02 < 0.35 < found[0]["hard probe error"]
    assert found[1]["hard probe error"] < 0.1 < 0.35 < found[1]["easy probe error"]


def test_the_pairs_of_digits_are_the_easiest_and_the_hardest():
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import log_loss

    images = tasks.Images()
    losses = {}
    for pair in itertools.combinations(range(10), 2):
        (x, y), (x_test, y_test) = (
            (split.inputs[keep].flatten(1).numpy(), split.targets[keep].numpy() == pair[1])
            for split in (images.train(), images.test())
            for keep in [torch.isin(split.targets, torch.tensor(pair))]
        )
        losses[pair] = log_loss(y_test, LogisticRegression(C=0.1, max_iter=1000).fit(x, y).predict_proba(x_test))
    assert min(losses, key=losses.get) == EASIEST["digits"]
    assert max(losses, key=losses.get) == HARDEST["digits"]


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=3, image_seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-4, atol=1e-5)


def test_another_architecture_runs_and_one_seed_is_judged_and_drawn():
    records = records_of(dataclasses.replace(TINY, seeds=1, image_seeds=1), architecture=OwnImages)
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {"inconclusive", "not supported"}
    with style():
        assert [drawing.name for drawing in figures(records)] == DRAWN


def test_made_up_records_are_drawn():
    records = made_up()
    with style():
        drawings = list(figures(records))
    assert [drawing.name for drawing in drawings] == DRAWN
    change = 100 * rules.change(rules.table(records, "toy LSAM", "hard error")).mean()
    assert change == pytest.approx(-1, abs=0.1)
    assert f"changes by {change:.2f} points" in drawings[0].caption


def test_missing_images_are_an_error_of_the_user(tmp_path, capsys):
    words = ["--preset", "smoke", "--source", "cifar10", "--folder", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["run", "sam-features", *words]) == 2
    assert "cifar10 was not found" in capsys.readouterr().err


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(TINY)}
    images = ["images SAM", "images LSAM", "alone SAM", "images MLP"]
    assert list(cells) == ["toy LSAM", "toy SAM", "equal LSAM", *images]
    assert [name for name, cell in cells.items() if cell.swappable] == ["images SAM", "alone SAM"]
    assert cells["toy LSAM"].seeds == [0, 1, 0, 1, 0, 1]
    assert cells["toy LSAM"].settings["rho"] == [0, 0, 0.1, 0.1, 0.5, 0.5]
    for group in (["toy LSAM", "toy SAM", "equal LSAM"], ["images SAM", "images LSAM", "alone SAM"]):
        weights = [Lab(None).population(cells[name]).theta[:2] for name in group]
        assert all(torch.equal(theta, weights[0]) for theta in weights)
    moved = {
        name: {n for n in Lab(None).population(cell).weights() if cell.optimiser.only(n)}
        for name, cell in cells.items()
    }
    assert moved["toy LSAM"] == {"head"}
    assert moved["images LSAM"] == {"head.weight", "head.bias"}
    assert moved["toy SAM"] == {"head", "easy", "hard"}
    assert cells["alone SAM"].task.decorrelated
    assert not cells["images SAM"].task.decorrelated


def test_paper_preset_is_of_the_papers_size():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    task = cells["images SAM"].task
    assert task.input_shape == (3, 64, 32)
    assert (task.source, task.easy_source, task.easy, task.hard) == ("cifar10", "digits", (0, 1), (1, 9))
    with torch.device("meta"):
        model = cells["images SAM"].model(task)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.2e6, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rhos": (0.1, 0.2)}, "rhos=.* is not legal: it must rise from 0 to at least one more value"),
        ({"sam_rhos": (0,)}, "sam_rhos=.* is not legal"),
        ({"image_rhos": (0, 0.2, 0.05)}, "image_rhos=.* is not legal"),
        ({"short_rho": 0.3}, "short_rho=0.3 is not legal: it must be one of"),
        ({"tested_rho": 0}, "tested_rho=0 is not legal: it must be one of"),
        ({"batch_size": 3000}, "batch_size=3000 is not legal: it must be at most train_images=2000"),
        ({"network": "resnet", "channels": 12}, "channels=12 is not legal: for network=resnet"),
        ({"easy_pair": (1, 1)}, "easy=.* is not legal"),
        ({"side": 5}, "size=5 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.sam_features; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "sam-features", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()
    assert sam_features.STUDY is STUDY

import dataclasses
import math
import subprocess
import sys

import numpy
import pandas
import pytest
import torch
from strangers import OwnImages
from torch import nn

from mesocosm import measures, tasks
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.resmem import PRESETS, STUDY, Config, Sizes, evaluation, figures, plan, rules, run, theory
from mesocosm.studies.resmem.evaluation import Seen, TrainingSets

TINY = Config(
    seeds=2, train_images=60, validation_images=20, test_images=30, widths=(3, 4, 6), steps=4, wide_steps=5,
    early_steps=2, batch_size=20, neighbours=(2, 5), sigmas=(1,), temperatures=(1, 2), dimensions=(3, 4),
    samples=(20, 40), points=20,
)  # fmt: skip
DRAWN = ["picture", "accuracy", "risk"]
CLAIMS = ["C1", "C2", "C3", "C4"]


def made_up(
    memorised=1.0, wrong=-5.0, gain=2.0, over_neighbours=1.0, shuffled=0.0, oracle=0.0, wide_gain=0.1, early_gain=4.0,
    narrow_fit=0.85, wide_fit=1.0, slope=-0.65, floor=1.0, free=1e-20, seeds=8,
):  # fmt: skip
    """Records of networks, gains in points, and of the linear problem in 3 and 10 dimensions."""
    noise = numpy.random.default_rng(0)
    rows = []
    networks = {
        "network/8": (8, narrow_fit, gain),
        "network/32": (32, narrow_fit, gain),
        "network/128": (128, 0.97, gain / 2),
        "interpolating": (128, wide_fit, wide_gain),
        "stopped early": (128, 0.8, early_gain),
    }
    for cell, (width, fit, better) in networks.items():
        for seed in range(seeds):
            base, scatter = 0.8 + 0.01 * noise.standard_normal(), 2e-3 * noise.standard_normal(4)
            values = {
                "train accuracy": fit,
                "test accuracy": base,
                "ResMem accuracy": base + better / 100 + scatter[0],
                "k-NN accuracy": base + (better - over_neighbours) / 100 + scatter[1],
                "shuffled accuracy": base + shuffled / 100 + scatter[2],
                "oracle accuracy": base + oracle / 100,
                "corrected": 0.03,
                "spoilt": 0.03 - better / 100,
                "memorised": memorised,
                "distinct": 0.95,
                "wrongly memorised": fit + wrong / 100 + scatter[3],
            }
            rows += [{"cell": cell, "seed": seed, "width": width, "metric": m, "value": v} for m, v in values.items()]
    for d in (3, 10):
        for n in (30, 100, 300, 1000, 3000):
            for seed in range(seeds):
                more = 1 + 0.01 * noise.standard_normal()
                for radius, base, resmem in (
                    (0.5, 0.25 / d * (floor if n >= 1000 else 1.2), 0.02 * more * n**slope),
                    (1.0, free, free),
                ):
                    columns = {"cell": "linear", "seed": seed, "radius": radius, "d": d, "n": n}
                    rows.append({**columns, "metric": "base risk", "value": base})
                    rows.append({**columns, "metric": "ResMem risk", "value": resmem})
    pictures = {"points": theory.training_points(), "curves": theory.curves()}
    for part, found in pictures.items():
        for i, x in enumerate(found["x"].tolist()):
            values = {m: v[i].item() for m, v in found.items() if m != "x"}
            rows += [{"cell": f"picture/{part}", "seed": 0, "x": x, "metric": m, "value": v} for m, v in values.items()]
    return pandas.DataFrame(rows).assign(step=0)


def judgement(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


def verdict(claim, records):
    found = judgement(claim, records)
    return found.verdict, found.control["verdict"]


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"memorised": 0.999}),
        ("C2", {"gain": -2.0}),
        ("C2", {"over_neighbours": -1.0}),
        ("C3", {"wide_gain": 4.0}),
        ("C4", {"slope": -0.2}),
        ("C4", {"slope": -1.0}),
        ("C4", {"slope": 0.1}),
        ("C4", {"floor": 0.8}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"wrong": 5.0}),
        ("C2", {"shuffled": 2.0}),
        ("C2", {"oracle": 0.1}),
        ("C3", {"early_gain": -1.0}),
        ("C4", {"free": 1e-6}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


@pytest.mark.parametrize(
    ("claim", "records", "why"),
    [
        ("C3", made_up(narrow_fit=0.96), "the narrowest network does not underfit: its train accuracy is 0.9600"),
        ("C3", made_up(wide_fit=0.99), "the widest does not interpolate: its train accuracy is 0.9900"),
        ("C2", made_up().query("metric != 'ResMem accuracy'"), "there is no ResMem accuracy of network/8"),
        ("C4", made_up().query("d != 3"), "there is no ResMem risk in 3 dimensions"),
        ("C4", made_up().query("not n >= 1000"), "there is no problem of 1000 samples or more"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, records, why):
    found = judgement(claim, records)
    assert found.verdict == "inconclusive"
    assert found.note == why


def test_a_gain_that_the_neighbours_alone_may_have_is_inconclusive():
    assert verdict("C2", made_up(over_neighbours=0.1))[0] == "inconclusive"
    assert verdict("C2", made_up(seeds=1))[0] == "inconclusive"


def test_a_seed_that_diverged_leaves_its_pair_out():
    records = made_up()
    gone = records["cell"].eq("network/8") & records["seed"].eq(3) & records["metric"].str.contains("accuracy")
    assert verdict("C3", records[~gone]) == ("supported", "absent")


def classes(count, *key):
    """Images as a poor network of four classes sees them."""
    draw = generator("classes", *key)
    features = torch.randn(count, 3, generator=draw)
    labels = (features[:, 0] > 0).long() + 2 * (features[:, 1] > 0).long()
    return Seen(features, torch.randn(count, 4, generator=draw), labels)


def by_hand(train, query, values, k, sigma):
    """Weighted mean of the values of the k nearest rows, one query at a time."""
    rows = []
    for z in query.features:
        distance = (z - train.features).norm(dim=1)
        nearest = distance.argsort()[:k]
        weight = (-distance[nearest] / sigma).exp()
        rows.append((weight[:, None] * values[nearest]).sum(0) / weight.sum())
    return torch.stack(rows)


def test_a_network_is_compared_as_by_hand():
    config = dataclasses.replace(TINY, neighbours=(5,), sigmas=(0.5,), temperatures=(1.4,))
    train, validation, test = classes(60, 0), classes(40, 1), classes(80, 2)
    found = evaluation.compare(config, 0, train, validation, test)
    near = torch.cdist(validation.features, train.features).sort(dim=1).values[:, :5]
    assert found["sigma"] == pytest.approx(0.5 * near.median().item(), rel=1e-4)

    labels = torch.eye(4)[train.targets]
    residuals = labels - torch.softmax(train.logits / 1.4, dim=1)
    base = torch.softmax(test.logits / 1.4, dim=1)
    answer = (base + by_hand(train, test, residuals, 5, found["sigma"])).argmax(1)
    alone = by_hand(train, test, labels, 5, found["sigma"]).argmax(1)
    own = test.logits.argmax(1)
    expected = {
        "ResMem accuracy": answer == test.targets,
        "k-NN accuracy": alone == test.targets,
        "test accuracy": own == test.targets,
        "corrected": (answer == test.targets) & (own != test.targets),
        "spoilt": (answer != test.targets) & (own == test.targets),
    }
    for name, right in expected.items():
        assert found[name] == pytest.approx(right.double().mean().item()), name
    assert found["ResMem accuracy"] - found["test accuracy"] == pytest.approx(found["corrected"] - found["spoilt"])
    assert found["oracle accuracy"] == found["test accuracy"] < 0.5 < found["ResMem accuracy"]
    assert found["memorised"] == found["distinct"] == 1
    assert found["wrongly memorised"] < 0.6


def test_the_way_of_looking_up_is_chosen_on_validation_images_alone():
    config = dataclasses.replace(TINY, neighbours=(1, 3, 20, 60), sigmas=(0.3, 1, 3), temperatures=(0.5, 1, 4))
    train, validation, test = classes(60, 0), classes(40, 1), classes(80, 2)
    names = ("neighbours", "sigma", "temperature")
    chosen = [evaluation.compare(config, 0, train, validation, test)[name] for name in names]
    elsewhere = evaluation.compare(config, 0, train, validation, test._replace(targets=test.targets.flip(0)))
    assert [elsewhere[name] for name in names] == chosen

    near = measures.nearest_neighbours(train.features, validation.features, 60)
    right = {}
    for way in evaluation.ways(config, near):
        for temperature in config.temperatures:
            scores = measures.residual_memory_scores(
                train.logits, train.targets, validation.logits, near, **way, temperature=temperature
            )
            right[way["neighbours"], way["sigma"], temperature] = (scores.argmax(1) == validation.targets).sum().item()
    assert len(right) == 36
    assert right[tuple(chosen)] == max(right.values()) > min(right.values())


def test_images_that_share_their_features_are_not_asked_to_be_memorised():
    train = classes(60, 0)
    train.features[:10] = 0  # a dead layer
    found = evaluation.compare(TINY, 0, train, classes(20, 1), classes(20, 2))
    assert found["distinct"] == pytest.approx(50 / 60)
    assert found["memorised"] == 1
    near = measures.nearest_neighbours(torch.zeros(9, 2), torch.zeros(4, 2), 5)
    assert all(way["sigma"] > 0 for way in evaluation.ways(TINY, near))


def test_training_and_validation_images_belong_to_their_seed():
    task, cpu = tasks.Images(), torch.device("cpu")
    sets = TrainingSets(task, Sizes(8, (), 90, 30, 0, 0), 40, [3, 5])
    (first, held), (other, _) = sets.rows(3), sets.rows(5)
    assert (len(first), len(held)) == (90, 30)
    assert len({*first.tolist(), *held.tolist()}) == 120
    assert set(first.tolist()) != set(other.tolist())
    alone = TrainingSets(task, sets.sizes, 40, [5])
    seen = [sets(step, [0, 1], cpu) for step in range(4)]
    for r, rows in enumerate((first, other)):
        assert {row for batch in seen for row in batch.row[r].tolist()} <= set(rows.tolist())
    assert torch.equal(seen[3].inputs[1], alone(3, [0], cpu).inputs[0])


def test_risks_are_those_of_the_linear_problem():
    config = dataclasses.replace(TINY, seeds=4, samples=(50, 1000), points=4000)
    found = theory.risks(config, 3, 0.5)
    assert found["base risk"].shape == found["ResMem risk"].shape == (4, 2)
    torch.testing.assert_close(found["base risk"][:, 1], torch.full((4,), 0.25 / 3).double(), rtol=0.02, atol=0)
    assert (found["ResMem risk"] < found["base risk"]).all()
    assert (found["ResMem risk"][:, 1] < found["ResMem risk"][:, 0]).all()
    # The base learner's theta is nearly 0.5 theta*: half of the target is left to the nearest neighbour.
    nearest = theory.risks(config, 3, 1e-9)["ResMem risk"][:, 1]
    torch.testing.assert_close(found["ResMem risk"][:, 1], nearest / 4, rtol=0.05, atol=0)
    free = theory.risks(config, 3, 1.0)
    assert max(risk.max().item() for risk in free.values()) < 1e-12


def test_without_a_base_resmem_is_the_nearest_neighbour():
    from sklearn.neighbors import KNeighborsRegressor

    config = dataclasses.replace(TINY, seeds=1, points=500)
    risk = theory.risks(config, 4, 1e-12)["ResMem risk"][0, 1].item()
    draw = generator(0, "linear", "4 40")
    truth, train, fresh = (torch.randn(n, 4, generator=draw, dtype=torch.float64).numpy() for n in (1, 40, 500))
    truth, train, fresh = truth[0] / numpy.linalg.norm(truth), train / 2, fresh / 2
    guess = KNeighborsRegressor(n_neighbors=1).fit(train, train @ truth).predict(fresh)
    assert risk == pytest.approx(numpy.square(guess - fresh @ truth).mean())


def test_the_base_risk_is_its_mean_over_inputs():
    draw = generator(1)
    theta, truth = torch.randn(2, 5, generator=draw, dtype=torch.float64)
    x = torch.randn(200_000, 5, generator=draw, dtype=torch.float64) / math.sqrt(5)
    measured = (x @ (theta - truth)).square().mean()
    torch.testing.assert_close(measured, (theta - truth).square().sum() / 5, rtol=0.02, atol=0)


def test_the_picture_shows_a_line_that_is_repaired():
    points, curves = theory.training_points(), theory.curves()
    assert points["residual"].sum().item() == pytest.approx(0, abs=1e-12)
    slope, start = numpy.polyfit(points["x"], points["truth"], 1)
    torch.testing.assert_close(curves["base"], slope * curves["x"] + start)
    torch.testing.assert_close(curves["ResMem"], curves["base"] + curves["residual"])
    errors = [(curves[by] - curves["truth"]).square().mean() for by in ("ResMem", "base")]
    assert errors[0] < 0.02 * errors[1]


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-4, atol=1e-5)


def test_another_architecture_takes_the_place_of_the_narrowest():
    config = dataclasses.replace(TINY, seeds=1)
    own, foreign = records_of(config), records_of(config, architecture=OwnImages)
    mine, rest = ([r[(r["cell"] == "network/3") == on] for r in (own, foreign)] for on in (True, False))
    sigmas = [r.loc[r["metric"] == "sigma", "value"].item() for r in mine]
    assert sigmas[0] != pytest.approx(sigmas[1])
    pandas.testing.assert_frame_equal(*(r.reset_index(drop=True) for r in rest))
    assert {judgement(claim, foreign).verdict for claim in CLAIMS} <= {"supported", "inconclusive", "not supported"}
    with style():
        assert [drawing.name for drawing in figures(foreign)] == DRAWN


def test_networks_that_diverged_are_left_out(tmp_path):
    class Bursting(nn.Module):
        def __init__(self, task):
            super().__init__()
            self.answer = nn.Linear(math.prod(task.input_shape), *task.output_shape)

        def forward(self, x):
            return self.answer(x.flatten(1)).exp() * 1e38 * 10

    for folder in (None, tmp_path, tmp_path):
        if folder:
            (folder / "checkpoints").mkdir(exist_ok=True)
        lab = Lab(folder, architecture=Bursting)
        run(TINY, lab)
        records = lab.records()
        assert set(records.loc[records["metric"] == "diverged", "cell"]) == {"network/3"}
        assert not records["value"].isna().any()
        assert judgement("C1", records).verdict == "inconclusive"
        assert judgement("C2", records).note == "there is no ResMem accuracy of network/3"
    with style():
        assert [drawing.name for drawing in figures(records)] == DRAWN


def test_made_up_records_are_drawn():
    records = made_up()
    with style():
        drawings = list(figures(records))
    assert [drawing.name for drawing in drawings] == DRAWN
    mean = rules.gain(records, "network/8").mean()
    assert mean == pytest.approx(2, abs=0.2)
    assert f"{mean:+.2f} (8)" in drawings[1].caption
    assert "-0.65 for d = 3" in drawings[2].caption


def test_cells_differ_in_width_or_in_steps():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert list(cells) == [*(f"network/{w}" for w in (3, 4, 8, 128)), "interpolating", "stopped early"]
    assert [name for name, cell in cells.items() if cell.swappable] == ["network/3"]
    assert [cells[n].steps for n in ("network/128", "interpolating", "stopped early")] == [1500, 6000, 20]
    weights = [Lab(None).population(cells[n]).theta for n in ("network/128", "interpolating", "stopped early")]
    assert all(torch.equal(theta, weights[0]) for theta in weights)
    for cell in cells.values():
        assert cell.settings["width"] == Lab(None).model(cell).layers[-1].in_features


def test_sizes_suit_the_source_where_none_are_given():
    assert Config().sizes == (8, (3, 4, 8, 128), 700, 300, 6000, 20)
    fashion = Config(source="fashion-mnist", train_images=5000)
    assert fashion.sizes == (14, (8, 32, 128, 512), 5000, 2000, 15_000, 100)
    assert Config(source="cifar10", network="cnn").sizes.widths == (2, 4, 8, 32)
    assert Config(network="cnn", widths=(1, 2, 3)).sizes.widths == (1, 2, 3)


def test_paper_preset_has_residual_networks_on_whole_images():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    task = cells["network/64"].task
    assert (task.source, task.input_shape) == ("cifar10", (3, 32, 32))
    with torch.device("meta"):
        model = cells["network/64"].model(task)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.2e6, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (4, 8)}, "widths=.* is not legal: it must be at least 3 rising values"),
        ({"widths": (8, 4, 16)}, "widths=.* is not legal"),
        ({"samples": (100,)}, "samples=.* is not legal: it must be at least 2 rising values"),
        ({"dimensions": (3, 3)}, "dimensions=.* is not legal: its values must differ"),
        ({"train_images": 800}, "train_images=800 is not legal with validation_images=300: .* the 1000 images of dig"),
        ({"neighbours": (10, 800)}, "neighbours=800 is not legal: it must be at most train_images=700"),
        ({"batch_size": 701}, "batch_size=701 is not legal: it must be at most train_images=700"),
        ({"network": "resnet", "widths": (8, 12, 16)}, "widths=.* is not legal: for network=resnet each must be a m"),
        ({"radius": 1.0}, "radius=1.0 is not legal"),
        ({"side": 5}, "size=5 is not legal: it must divide 8, the side of digits"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_missing_images_are_an_error_of_the_user(tmp_path, capsys):
    words = ["--source", "cifar10", "--folder", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["run", "resmem", *words]) == 2
    assert "cifar10 was not found" in capsys.readouterr().err


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn'}"
    code = f"import sys, mesocosm.studies.resmem; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "resmem", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()

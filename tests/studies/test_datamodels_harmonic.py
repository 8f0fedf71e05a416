import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from subset_laws import subsets
from torch import nn

from mesocosm import training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.datamodels_harmonic import PRESETS, STUDY, Config, cells, evaluation, figures, plan, rules, run

TINY = dataclasses.replace(PRESETS["smoke"], steps=4, tests=4, many=12, few_pairs=5)
DRAWN = ["degrees", "estimates", "stability", "groups"]


def made_up(
    error=1e-14, skewed=0.05, estimate=0.05, fall=0.05, gap=0.3, vote=1.0, linear=0.98, parity=0.0, copies=1.0,
    label=0.2, pair=1e-14, vote_deviation=1e-15, leverage=1e-14, first_order=0.05, flipped_gap=None, noise=0.01,
    seeds=8,
):  # fmt: skip
    """Records as the study leaves them."""
    rows = []

    def add(cell, metric, value, seed, **columns):
        rows.append({"cell": cell, "seed": seed, "step": 0, "metric": metric, "value": value, **columns})

    for seed in range(seeds):
        jitter = noise * np.sin(seed)
        for cell in rules.VARIANTS:
            # Trainings' own records share the prefix and must not count.
            add(f"{cell}/seed={seed}", "loss", 0.1, seed, subset=0)
            width = flipped_gap if cell == "flipped" and flipped_gap is not None else gap
            for place, output in enumerate(rules.OUTPUTS):
                names = ("datamodel error", "residual error", "Parseval error")
                for name in names:
                    add(cell, name, error / 100 if name == "Parseval error" else error, seed, output=output)
                add(cell, "datamodel error of large subsets", skewed, seed, output=output)
                for point in range(5):
                    if output == "correctness" and point == 0:
                        continue  # It never varies.
                    true = 0.95 - place * width + jitter + 0.01 * point
                    own = {"seed": seed, "output": output, "point": point}
                    add(cell, "R2", true, **own)
                    for pairs, off in ((200, estimate + fall + jitter), (1000, estimate)):
                        sign = (-1) ** point
                        add(cell, "R2 estimate", true + sign * off, pairs=pairs, **own)
                        for p in (0.5, 0.2):
                            add("many", "R2 estimate", true + sign * off, pairs=pairs, p=p, **own)
                    for p in (0.5, 0.2):
                        if cell == "clean":
                            add("many", "R2", true, p=p, **own)
            for point in range(5):
                add(cell, "R2", vote, seed, output="votes", point=point)
        for name, value in (("linear", linear), ("parity", parity)):
            for point in range(5):
                add("control", "R2 estimate", value + abs(jitter) / 10 * (-1) ** point, seed, output=name, point=point)
        for kind, value in (("copies", copies), ("random", 0.1), ("one label", label)):
            add("copies", "group deviation", value + jitter * len(kind), seed, output="margin", kind=kind, group=0)
            add("copies", "group deviation", vote_deviation, seed, output="votes", kind=kind, group=0)
        for output in ("margin", "votes"):
            for name in ("pair deviation", "formula error", "pair deviation, rare"):
                add("copies", name, pair if output == "margin" else 1e-15, seed, output=output)
        add("influence", "error over 1 - leverage", leverage, seed)
        add("influence", "error to first order", first_order, seed)
        add("influence", "largest change", 1.0, seed)
        for p in (0.5, 0.2):
            add("influence", "correlation with averages", 0.9 + jitter, seed, p=p)
    table = pandas.DataFrame(rows)
    keys = ["cell", "seed", "metric", "output", "point", "pairs", "p", "kind", "group", "subset"]
    return table.drop_duplicates(keys)


def judgement(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


def verdict(claim, records):
    found = judgement(claim, records)
    return found.verdict, found.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"error": 1e-7}),
        ("C2", {"estimate": 0.13}),
        ("C2", {"fall": -0.02}),
        ("C3", {"gap": 0.05}),
        ("C3", {"flipped_gap": 0.05}),
        ("C4", {"copies": 0.05}),
        ("C4", {"label": 1.5}),
        ("C4", {"pair": 1e-6}),
        ("C5", {"leverage": 1e-4}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"skewed": 1e-6}),
        ("C2", {"linear": 0.9}),
        ("C2", {"parity": 0.2}),
        ("C3", {"vote": 0.99}),
        ("C4", {"vote_deviation": 1e-3}),
        ("C5", {"first_order": 1e-9}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


@pytest.mark.parametrize(
    ("claim", "choose", "why"),
    [
        ("C1", lambda r: r[r["metric"] != "residual error"], "there is no residual error"),
        ("C2", lambda r: r[r["cell"] != "flipped"], "there is no R2 estimate of flipped"),
        ("C2", lambda r: r[r["output"] != "parity"], "with output=parity"),
        ("C3", lambda r: r[r["output"] != "correctness"], "correctness never varies"),
        ("C4", lambda r: r[r["kind"] != "one label"], "with kind=one label"),
        ("C5", lambda r: r[r["cell"] != "influence"], "there is no error over 1 - leverage"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, choose, why):
    found = judgement(claim, choose(made_up()))
    assert found.verdict == "inconclusive"
    assert why in found.note


def test_points_that_never_vary_are_left_out():
    assert rules.linearity_gap(made_up(noise=0), "clean", "probability", "correctness").estimate == pytest.approx(0.3)
    assert len(rules.points(made_up(seeds=1), "clean")) == 14


def test_training_sets_are_flipped_and_copied_as_told():
    config = PRESETS["small"]
    clean, flipped, copies = (cells.training_set(config, variant, 101) for variant in cells.VARIANTS)
    assert clean.targets.tolist().count(0) == 6
    assert (clean.targets != flipped.targets).sum() == 3
    assert torch.equal(clean.inputs, flipped.inputs)
    alike = cells.group_of_copies(config, 101)
    assert clean.targets[alike].tolist() == [0] * 4
    spread = (copies.inputs[alike] - clean.inputs[alike[0]]).std()
    assert 0.04 < spread < 0.06
    others = [i for i in range(12) if i not in alike]
    assert torch.equal(copies.inputs[others], clean.inputs[others])
    again = cells.training_set(config, "clean", 101)
    assert all(torch.equal(a, b) for a, b in zip(clean, again))


def test_a_network_learns_its_subset_alone_by_the_sum_over_all_points():
    cell = cells.few(TINY, "clean", 101)
    population = Lab(None).train(cell).population
    data, chosen = cells.training_set(TINY, "clean", 101), 0b10010110
    inside = subsets(8)[chosen]
    start = Lab(None).population(cell)
    assert torch.equal(population.theta[0], start.theta[0])  # The empty subset.
    model = start.replica(chosen)
    optimiser = torch.optim.SGD(model.parameters(), TINY.learning_rate)
    for _ in range(TINY.steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs[inside]), data.targets[inside], reduction="sum").div(8).backward()
        optimiser.step()
    inputs, labels = evaluation.tests(TINY, 101)
    logits = model(inputs).detach().double()
    expected = (logits[:, 1] - logits[:, 0]) * labels
    torch.testing.assert_close(evaluation.margins_of(TINY, 101, population)[chosen], expected, rtol=1e-4, atol=1e-5)


def test_ridge_on_subsets_is_that_of_the_chosen_rows():
    x, y, z, _ = evaluation.ridge_data(TINY, 101)
    masks = cells.sampled_subsets(TINY, 101, 0.5)[:7]
    scores = evaluation.ridge_scores(x, y, masks, z, 2.0)
    for mask, found in zip(masks, scores):
        theta = torch.linalg.solve(x[mask].T @ x[mask] + 2 * torch.eye(64).double(), x[mask].T @ y[mask])
        torch.testing.assert_close(found, z @ theta)


def test_tables_are_looked_up_by_the_order_of_subsets():
    masks = subsets(6)
    assert evaluation.rows_of(masks).tolist() == list(range(64))
    assert torch.equal(masks, cells.all_subsets(dataclasses.replace(TINY, points=8))[:64, :6])
    left, right = cells.pairs(TINY, 8, 0.5, 4000, 101)
    for rho, a, b in zip(TINY.rhos, left, right):
        assert (a == b).double().mean() == pytest.approx((1 + rho) / 2, abs=0.01)


def test_a_table_of_few_harmonics_is_measured_for_what_it_is():
    signs = 2 * cells.all_subsets(TINY).double() - 1
    table = torch.stack(
        [3 * signs[:, 0] + signs[:, 1] * signs[:, 2] * signs[:, 3], signs[:, 4] * signs[:, 5], 0 * signs[:, 0]], dim=1
    )
    assert evaluation.linear_share(table)[:2].tolist() == pytest.approx([0.9, 0])
    assert evaluation.linear_share(table)[2].isnan()
    assert evaluation.degree_shares(table)[:4].tolist() == pytest.approx([0.45, 0.5, 0.05, 0])
    errors = evaluation.identity_errors(table, signs > 0)
    assert max(errors[n] for n in errors if "large" not in n) < 1e-12
    assert errors["datamodel error of large subsets"] > 0.01
    inside = evaluation.contrast(table, signs > 0, (0, 1, 2, 3))
    assert inside.tolist() == pytest.approx([6 + 2 * 0 + (1 - (-1) ** 3), 0, 0])
    assert evaluation.contrast(table, signs > 0, (1, 2, 3))[0] == pytest.approx(2)
    added = evaluation.additivity(table, signs > 0)
    assert max(added["pair deviation"], added["formula error"]) < 1e-12
    # f_{4,5} / (p (1 - p)) ((1 - p)^2 - p^2) = 4 (1 - 2 p).
    singles = torch.tensor([2 * (2 * 0.2 - 1)] * 2)
    assert added["pair deviation, rare"] == pytest.approx(abs(0 - singles.sum().item()), rel=1e-6)


def test_groups_of_other_points_hold_no_copies():
    config = PRESETS["small"]
    found, alike = evaluation.groups(config, 101), set(cells.group_of_copies(config, 101))
    assert [len(found[kind]) for kind in ("copies", "random", "one label")] == [1, 70, 15]
    assert not any(alike & set(group) for group in itertools.chain(found["random"], found["one label"]))


def records_of(config, folder=None, **lab):
    lab = Lab(folder, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-5, atol=1e-6)


def test_a_resumed_run_does_nothing_twice(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, seeds=1)
    (tmp_path / "checkpoints").mkdir()
    first = records_of(config, tmp_path)
    monkeypatch.setattr(training.SGD, "update", None)
    monkeypatch.setattr(evaluation, "ridge_margins", None)
    pandas.testing.assert_frame_equal(records_of(config, tmp_path), first)


class Stranger(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.layer = nn.Linear(64, *task.output_shape)

    def forward(self, x):
        return self.layer(x.flatten(1).tanh())


@pytest.mark.slow
def test_another_architecture_is_trained_on_the_subsets():
    config = dataclasses.replace(TINY, seeds=1)
    own, foreign = records_of(config), records_of(config, architecture=Stranger)
    r2 = [
        r[(r["cell"] == "clean") & (r["metric"] == "R2") & (r["output"] == "margin")]["value"] for r in (own, foreign)
    ]
    assert not np.allclose(*r2)
    with style():
        assert [d.name for d in figures(foreign)] == DRAWN


@pytest.mark.slow
def test_networks_can_take_the_place_of_ridge_regression():
    config = dataclasses.replace(TINY, seeds=1, learner="resnet", steps=1, subsets=20, pairs=3, few_pairs=2, tests=2)
    cell = next(cells.many(config, 0.5, 0))
    assert len(cell.seeds) == 20 + 2 * 3 * 5
    records = records_of(config)
    assert {"many"} <= set(records["cell"])
    many = records[(records["cell"] == "many") & (records["output"] == "margin")]
    assert set(many["metric"]) == {"R2", "R2 estimate"}


def test_cells_give_every_subset_one_network_of_the_same_start():
    planned = {cell.name: cell for cell in plan(TINY)}
    assert list(planned) == [f"{variant}/seed={seed}" for seed in range(2) for variant in cells.VARIANTS]
    cell = planned["flipped/seed=1"]
    assert cell.swappable
    assert cell.settings["subset"] == list(range(256))
    theta = Lab(None).population(cell).theta
    assert torch.equal(theta, theta[:1].expand_as(theta))
    batch = cell.stream(0, [0b101], torch.device("cpu"))
    assert batch.weights[0].tolist() == [1, 0, 1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"classes": (3,)}, r"classes=\(3,\) is not legal: it must name two different classes"),
        ({"copies": 7}, "copies=7 is not legal: of points=12, at most 6"),
        ({"rhos": (0.1, 0.5)}, r"rhos=\(0.1, 0.5\) is not legal: it must hold three or more different values"),
        ({"few_pairs": 2000}, "few_pairs=2000 is not legal: it must be below pairs=1000"),
        ({"channels": 12}, "channels=12 is not legal: it must be a multiple of 8"),
        ({"seeds": 0}, "seeds=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_too_many_test_images_are_refused_in_one_sentence(capsys, tmp_path):
    assert (
        main(["run", "datamodels-harmonic", "--preset", "smoke", "--tests", "900", "--out", str(tmp_path / "r")]) == 2
    )
    assert "tests=900 is not legal" in capsys.readouterr().err


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn'}"
    code = f"import sys, mesocosm.studies.datamodels_harmonic; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "datamodels-harmonic", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()

import dataclasses
import math
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm import tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.nce_landscape import PRESETS, STUDY, Config, figures, plan, population, rules, run
from mesocosm.studies.nce_landscape.cells import log_linear, parameter_distance

TINY = Config(
    seeds=3, image_seeds=2, identities=(1,), landscapes=(2, 4), shifts=(0, 6), descents=(0.5, 1, 1.5), cap=30,
    points=101, d=3, distance=3, samples=16, steps=6, image_samples=8, image_steps=3, hidden=(4,),
)  # fmt: skip


def made_up(
    error=1e-15, route=1e-12, off=0.02, flat=-0.13, with_shift=0.0, gd=0.25, ngd=0.03, path=1.0, ngd_nce=2.0,
    at_two=1.0, arrived=1.0, gain=5.0, noise=0.1, near_gain=0.0, seeds=10,
):  # fmt: skip
    """Records as the study leaves them: slopes of logs against squares, ratios of steps, and paired distances."""
    rows = []

    def add(cell, values, **columns):
        rows.extend({"cell": cell, "seed": 0, "step": 0, "metric": m, "value": v, **columns} for m, v in values.items())

    identities = ("eNCE value", "eNCE value, closed form", "Bhattacharyya coefficient", "NCE value", "eNCE Hessian")
    for distance in (1.0, 8.0):
        add("identities", dict.fromkeys((*identities, "eNCE condition"), error), distance=distance)
        for loss in rules.LOSSES:
            add("identities", {f"{loss} gradient": error, f"{loss} gradient routes": route}, distance=distance)
            add("identities", {f"{loss} gradient off the optimum": off}, distance=distance)
    for loss in rules.LOSSES:
        for share in (0.0, 0.5, 0.75, 0.95, 0.99):
            for distance in (2.0, 4.0, 6.0, 8.0):
                # What lies outside [0.5, 0.95], and nearer than 4, must not count.
                wild = distance == 2 or share in (0.0, 0.99)
                norm = 1e-30 if wild else math.exp(flat * distance**2 + share)
                columns = {"loss": loss, "share": share, "distance": distance, "shift": 0.0}
                add("landscape", {"gradient norm": norm, "population loss": 1.0}, **columns)
            for shift in (0.0, 6.0, 12.0):
                norm = math.exp(with_shift * shift**2 + share)
                add("moved together", {"gradient norm": norm}, loss=loss, share=share, distance=1.0, shift=shift)
    for distance in (2.0, 3.0, 4.0, 5.0, 6.0):
        length = math.hypot(distance, distance**2 / 2)
        straight = path * length / 0.1 * math.exp(ngd * (distance**2 - 4)) / math.exp(0.03 * (distance**2 - 4))
        steps = {
            "GD NCE": 10 * math.exp(gd * (distance**2 - 4)),
            "GD eNCE": 10 * math.exp(gd * (distance**2 - 4)),
            "NGD eNCE": straight,
            "NGD NCE": straight * (at_two if distance == 2 else ngd_nce),
        }
        for method, best in steps.items():
            there = arrived if method == "NGD eNCE" else 1.0
            add("descent", {"steps": best, "arrived": there}, method=method, distance=distance, rate=0.1)
            add("descent", {"steps": 2 * best, "arrived": 1.0}, method=method, distance=distance, rate=0.01)
            add("descent", {"steps": np.nan, "arrived": 0.0}, method=method, distance=distance, rate=4.0)
    for distance, less in ((6.0, gain), (1.0, near_gain)):
        for seed in range(seeds):
            for method in rules.METHODS:
                left = 8 + noise * (-1) ** seed - (0 if method == "GD NCE" else less + noise * math.sin(seed))
                for rate, value in ((0.1, left), (1.0, left + 1)):
                    columns = {"cell": f"sampled/distance={distance:g}/{method}", "seed": seed, "rate": rate}
                    columns |= {"metric": "distance to optimum", "distance": distance}
                    rows.extend({**columns, "step": step, "value": value + 50 - step} for step in (0, 50))
    return pandas.DataFrame(rows).dropna(subset="value")


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"error": 1e-9}),
        ("C1", {"route": 1e-7}),
        ("C2", {"flat": -0.05}),
        ("C2", {"flat": -0.2}),
        ("C3", {"gd": 0.05}),
        ("C3", {"path": 3.5}),
        ("C3", {"arrived": 0.0}),
        ("C4", {"ngd_nce": 1.2}),
        ("C5", {"gain": -1.0}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"off": 1e-4}),
        ("C2", {"with_shift": -0.02}),
        ("C3", {"ngd": 0.2}),
        ("C4", {"at_two": 2.0}),
        ("C5", {"near_gain": 0.5}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize(
    ("claim", "choose", "why"),
    [
        ("C1", lambda r: r[r["metric"] != "NCE value"], "there is no NCE value of identities"),
        ("C2", lambda r: r[~(r["distance"] > 4)], "a slope needs two distances, and there are 1"),
        ("C3", lambda r: r[~(r["distance"] > 3)], "three distances, and there are 2"),
        ("C4", lambda r: r[~(r["distance"] == 5)], "there is no descent at distance 5"),
        ("C5", lambda r: r[~(r["distance"] == 1)], "need a distance and a nearer control"),
        ("C5", lambda r: r[r["cell"] != "sampled/distance=6/GD NCE"], "there is no distance to optimum"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, choose, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), choose(made_up()), {})
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_a_spent_budget_is_a_lower_bound_only_for_the_slower_loss():
    records = made_up(arrived=0.0)
    judgement = judge(next(c for c in STUDY.claims if c.id == "C4"), records, {})
    assert (judgement.verdict, judgement.note) == ("inconclusive", "NGD on eNCE did not arrive at distance 6")


def test_a_rate_at_which_one_seed_diverged_is_out():
    records = made_up(seeds=3)
    here = (records["cell"] == "sampled/distance=6/NGD eNCE") & (records["rate"] == 0.1)
    assert rules.ended(records, "sampled/distance=6/NGD eNCE").name == 0.1
    left = records[~(here & (records["seed"] == 1) & (records["step"] == 50))]
    assert rules.ended(left, "sampled/distance=6/NGD eNCE").name == 1.0


def test_one_seed_is_inconclusive():
    assert verdict("C5", made_up(seeds=1)) == ("inconclusive", "inconclusive")


OBJECTIVES = {"NCE": training.nce, "eNCE": training.ence}


@pytest.mark.parametrize("distance", [0.5, 3.0, 7.0])
def test_identities_hold_also_at_distances_that_are_not_judged(distance):
    found = population.identities(OBJECTIVES, distance)
    exact = [n for n in found if not any(w in n for w in ("routes", "off", "number", "Newton"))]
    assert max(found[name].item() for name in exact) < 1e-11
    assert max(found[f"{loss} gradient routes"].item() for loss in OBJECTIVES) < 1e-10
    assert min(found[f"{loss} gradient off the optimum"].item() for loss in OBJECTIVES) > 0.01


def test_descents_are_those_of_a_plain_loop():
    distances, rates = (1.0, 2.0), (0.7, 0.05)
    for normalised in (False, True):
        found = population.descents(training.nce, normalised, distances, rates, 60, 201)["steps"].tolist()
        for (distance, rate), steps in zip([(d, r) for d in distances for r in rates], found):
            task = tasks.GaussianPair(distance=distance)
            tau, x = torch.zeros(2, dtype=torch.float64), torch.linspace(-10, 14, 4001).double()
            p, q = ((-((x - mean) ** 2) / 2).exp() / math.sqrt(2 * math.pi) for mean in (distance, 0))
            count = 0
            while (tau - task.optimum).norm() > 0.5 and count < 60:
                s = torch.sigmoid(tau[0] * x - tau[1])
                force = (-p * (1 - s) + q * s) / 2 * (x[1] - x[0])
                gradient = torch.stack([(force * x).sum(), -force.sum()])
                tau = tau - rate * gradient / (gradient.norm() if normalised else 1)
                count += 1
            assert steps == count


def test_a_descent_that_overflows_has_no_steps():
    found = population.descents(training.ence, False, (6.0, 1.0), (100.0, 1.0), 200, 201)
    assert torch.isnan(found["steps"]).tolist() == [True, False, True, False]
    assert found["arrived"].tolist() == [0, 0, 0, 1]


def test_a_seed_has_the_same_samples_at_every_rate_and_in_any_company():
    task, seeds = tasks.GaussianPair(d=2), [4, 5, 6]
    shared = training.Shared(training.Online(task, 8, seeds, chunk=8), lambda r: r % 3)
    batch = shared(9, range(6), torch.device("cpu"))
    assert torch.equal(batch.inputs[:3], batch.inputs[3:])
    assert not torch.equal(batch.inputs[0], batch.inputs[1])
    alone = shared(9, [4], torch.device("cpu"))
    assert torch.equal(alone.inputs[0], batch.inputs[1])
    plain = training.Online(task, 8, seeds, chunk=8)(9, range(3), torch.device("cpu"))
    assert torch.equal(plain.inputs, batch.inputs[:3])


def test_the_distance_is_that_of_the_log_linear_model():
    task = tasks.GaussianPair(d=3, distance=2.0)
    replicas = training.Population(lambda: log_linear(task), range(2))
    replicas.average = replicas.theta.clone()
    measure = parameter_distance(task)
    assert measure(replicas, 0)["distance to optimum"].tolist() == pytest.approx([math.hypot(2, 2)] * 2)
    views = replicas.layout.views(replicas.average)
    views["layers.0.weight"][0, 0] = task.optimum[:-1].float()
    views["layers.0.bias"][0] = -task.optimum[-1].float()
    found = measure(replicas, 0)
    assert found["distance to optimum"].tolist() == pytest.approx([0, math.hypot(2, 2)], abs=1e-6)
    # At the optimum (E w)^2 / E w^2 = exp(-R^2 / 4), since E w is the Bhattacharyya coefficient and E w^2 = 1.
    assert found["effective samples"].tolist() == pytest.approx([math.exp(-1), 1], rel=0.1)


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small = records_of(TINY)
    large = records_of(dataclasses.replace(TINY, seeds=5, image_seeds=4))
    images = large["cell"].str.startswith("images")
    expected = large[(large["seed"] < 3) & ~(images & (large["seed"] >= 2))].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-5, atol=1e-6)


class Stranger(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.score = nn.Linear(*task.input_shape, 1)

    def forward(self, x):
        return self.score(x * x).squeeze(-1)


def test_another_architecture_learns_the_images():
    own, foreign = records_of(TINY), records_of(TINY, architecture=Stranger)
    images, rest = ([r[r["cell"].str.startswith("images") == on] for r in (own, foreign)] for on in (True, False))
    starts = [r[(r["step"] == 0) & (r["metric"] == "held-out loss")]["value"].to_numpy() for r in images]
    assert not np.allclose(*starts)
    pandas.testing.assert_frame_equal(*(r.reset_index(drop=True) for r in rest))
    with style():
        assert [d.name for d in figures(foreign)] == ["landscape", "steps", "sampled", "images"]


def test_figures_are_drawn_of_one_seed():
    records = records_of(dataclasses.replace(TINY, seeds=1))
    with style():
        assert [d.name for d in figures(records)] == ["landscape", "steps", "sampled", "images"]


def test_cells_pair_their_seeds_and_start_at_the_noise():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert len(cells) == 12
    assert {name for name, cell in cells.items() if cell.swappable} == {f"images/{m}" for m in rules.METHODS}
    for cell in cells.values():
        assert cell.seeds == [*range(5 if cell.swappable else 10)] * 3
        assert len(cell.settings["rate"]) == len(cell.seeds)
    gaussian = Lab(None).population(cells["sampled/distance=6/NGD eNCE"])
    assert not gaussian.theta.any()
    first, second = (Lab(None).population(cells[f"images/{m}"]).theta for m in rules.METHODS[:2])
    assert torch.equal(first, second)
    assert torch.equal(first[0], first[5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"side": 5}, "side=5 is not legal: it must divide 8, the side of digits"),
        ({"near": 6.0}, "near=6.0 is not legal: it must be below distance=6.0"),
        ({"descents": (2, 2)}, r"descents=\(2, 2\) is not legal: its values must differ"),
        ({"seeds": 0}, "seeds=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.nce_landscape; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "nce-landscape", "--preset", "smoke", "--out", str(folder)]) == 0
    names = {"landscape.png", "steps.png", "sampled.png", "images.png"}
    assert {path.name for path in (folder / "figures").glob("*.png")} == names
    assert (folder / "verdicts.json").exists()

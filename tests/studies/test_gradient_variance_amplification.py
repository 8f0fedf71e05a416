import dataclasses
import math
import subprocess
import sys

import numpy
import pandas
import pytest
import torch
from torch import nn

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.measures import quadratic_reward, rollout
from mesocosm.studies import gradient_variance_amplification as study
from mesocosm.studies.gradient_variance_amplification import PRESETS, STUDY, Config, evaluation, figures, plan, rules
from mesocosm.studies.gradient_variance_amplification import run as run_study
from mesocosm.tasks import CarryCounter, PlantDemonstrations
from mesocosm.training import Population

SMOKE = PRESETS["smoke"]
STEPS = range(0, 1001, 50)


def made_up(
    reward_sd=1.0, first_sd=0.01, loss_sd=1e-4, contracting_sd=1e-4, calmed=0.2, gained=0.5, ema_mean=-1.05,
    unaveraged=1.0, large_sd=0.3, large_calmed=1.0, more_sd=0.9, variance=1.0, ema_variance=1.0, uncorrelated=30.0,
    cliff=-0.1587, error_sd=0.05, error_calmed=0.2, error_gain=0.02, next_digit_sd=0.002, seeds=6,
):  # fmt: skip
    """Records of metrics that move around a mean, with standard deviations over checkpoints that vary by seed."""
    stream = numpy.random.default_rng(0)
    rows = []

    def moving(cell, metric, mean, sd):
        for seed in range(seeds):
            wave = stream.standard_normal(len(STEPS))
            late = wave[11:]
            wave = (wave - late.mean()) / late.std(ddof=1)
            rows.extend(
                {"cell": cell, "seed": seed, "step": step, "metric": metric, "value": mean + sd * (1 + 0.1 * seed) * w}
                for step, w in zip(STEPS, wave)
            )

    def clone(cell, sd, calm=calmed):
        moving(cell, "reward", ema_mean - gained, sd)
        moving(cell, "EMA reward", ema_mean, calm * sd)
        moving(cell, "first reward", -1, first_sd)
        moving(cell, "cloning loss", 0.01, loss_sd)
        for metric, value in (("expert reward", -1), ("expert first reward", -1), ("idle loss", 1)):
            rows.append({"cell": cell, "seed": 0, "step": 0, "metric": metric, "value": value})

    for cell, sd, calm in (
        ("linear", reward_sd, calmed), ("linear contracting", contracting_sd, calmed), ("neural", reward_sd, calmed),
        ("neural large batch", large_sd, large_calmed), ("neural more data", more_sd, calmed),
        ("neural decay", 0.5, calmed),
    ):  # fmt: skip
        clone(cell, sd, calm)
    for metric in ("log norm", "log growth"):
        moving("linear", metric, 0, 1)
    clone("linear no averaging", reward_sd)
    rows = [r for r in rows if (r["cell"], r["metric"]) != ("linear no averaging", "EMA reward")]
    own = [r for r in rows if (r["cell"], r["metric"]) == ("linear no averaging", "reward")]
    rows += [{**r, "metric": "EMA reward", "value": unaveraged * r["value"]} for r in own]
    for name, value in (("", variance), ("EMA ", ema_variance)):
        moving("stationary", f"{name}variance", 1e-4 * value, 1e-7)
        moving("stationary", f"{name}cliff 1", cliff, 0.0)
        drawn = [r for r in rows if (r["cell"], r["metric"]) == ("stationary", f"{name}cliff 1")]
        for r in drawn:
            r["value"] += 0.004 * (r["seed"] - (seeds - 1) / 2)
    scales = {"predicted variance": 1e-4, "EMA predicted variance": 1e-4, "predicted cliff 1": -0.15866}
    scales["uncorrelated EMA variance"] = 1e-4 * ema_variance / uncorrelated
    rows += [{"cell": "stationary", "seed": 0, "step": 0, "metric": m, "value": v} for m, v in scales.items()]
    moving("counter", "free-running error", 0.1, error_sd)
    moving("counter", "EMA free-running error", 0.1 - error_gain, error_calmed * error_sd)
    moving("counter", "next-digit loss", 0.01, next_digit_sd)
    rows.append({"cell": "counter", "seed": 0, "step": 0, "metric": "idle loss", "value": math.log(10)})
    return pandas.DataFrame(rows)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"loss_sd": 0.1, "contracting_sd": 1e-6}),
        ("C1", {"first_sd": 0.9}),
        ("C2", {"calmed": 0.9}),
        ("C2", {"gained": -0.5}),
        ("C3", {"large_sd": 0.95}),
        ("C4", {"variance": 1.3}),
        ("C4", {"ema_variance": 0.8}),
        ("C4", {"cliff": -0.18}),
        ("C5", {"error_calmed": 0.9}),
        ("C5", {"error_gain": -0.02}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"contracting_sd": 0.9}),
        ("C2", {"large_calmed": 0.2}),
        ("C2", {"unaveraged": 0.5}),
        ("C3", {"more_sd": 0.3}),
        ("C4", {"uncorrelated": 1.0}),
        ("C5", {"next_digit_sd": 0.5}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C1", {"ema_mean": -1.3}, "the median linear policy of averaged weights earns -1.3 and the expert -1"),
        ("C2", {"ema_mean": -2.5}, "must be within 10 %"),
        ("C5", {"error_sd": 0.0}, "without any movement"),
    ],
)
def test_merely_bad_policies_and_still_ones_are_not_judged(claim, changes, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), made_up(**changes), {})
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_neural_policies_may_be_three_times_as_costly_as_the_expert():
    records = made_up()
    chosen = (records["cell"] == "neural") & (records["metric"] == "EMA reward")
    records.loc[chosen, "value"] -= 1.9
    assert verdict("C2", records)[0] == "supported"
    records.loc[chosen, "value"] -= 0.1
    assert verdict("C2", records)[0] == "inconclusive"


def test_a_part_that_was_not_run_is_inconclusive():
    records = made_up()
    for claim in STUDY.claims:
        left = records[~records["cell"].str.startswith(("neural", "counter", "stationary"))]
        judgement = judge(claim, left, {})
        assert judgement.verdict == "inconclusive"
        assert judgement.note


def test_only_checkpoints_of_the_last_half_count():
    late = rules.checkpoints(made_up(), "linear", "reward")
    assert late.shape == (6, 10)
    assert late.columns.min() == 550
    records = made_up()
    early = records["step"] <= 500
    moved = records["metric"].isin(["reward", "EMA reward", "cloning loss"]) & early
    records.loc[moved, "value"] *= 100
    assert rules.amplification(records, "linear").equals(rules.amplification(made_up(), "linear"))


def test_diverged_seeds_are_left_out():
    records = made_up()
    records.loc[(records["seed"] == 2) & (records["step"] == 900), "value"] = numpy.nan
    assert rules.checkpoints(records, "linear", "reward").index.tolist() == [0, 1, 3, 4, 5]


def test_amplification_by_hand():
    records = made_up(reward_sd=2.0, loss_sd=1e-3)
    assert rules.amplification(records, "linear").to_numpy() == pytest.approx(2 / 1e-3)
    ratio = rules.calmer(records, "linear")
    assert (ratio.estimate, ratio.low, ratio.high) == pytest.approx((0.2, 0.2, 0.2))


def test_evaluation_of_policies_equals_rollouts_by_hand():
    task = PlantDemonstrations(steps=20)
    population = Population(lambda: nn.Linear(4, 4), seeds=[0, 1])
    population.average = torch.zeros_like(population.theta)
    found = evaluation.of_both(evaluation.on_plant(task, 15, 6, 100.0))(population, 0)
    starts, inputs, actions = evaluation.plant_samples(task, 6)
    for r in range(2):
        policy = population.replica(r)
        states = rollout(task, policy, starts, 15)
        assert found["reward"][r].item() == pytest.approx(quadratic_reward(states, 100.0).mean().item(), rel=1e-4)
        assert found["first reward"][r].item() == pytest.approx(-states[1].square().sum(-1).mean().item(), rel=1e-4)
        loss = (policy(inputs) - actions).square().sum(-1).mean().item()
        assert found["cloning loss"][r].item() == pytest.approx(loss, rel=1e-4)
    scales = evaluation.plant_scales(task, 15, 6, 100.0)
    assert found["EMA cloning loss"].tolist() == pytest.approx([scales["idle loss"]] * 2)  # zero weights do nothing
    expert = sum(0.995 ** (2 * t) for t in range(1, 16)) / 15 * starts.square().sum(-1).mean().item()
    assert scales["expert reward"] == pytest.approx(-expert, rel=1e-3)


def test_saturated_plants_are_scored_by_survival():
    task = PlantDemonstrations(plant="saturated", steps=20)
    assert 0.9 < evaluation.plant_scales(task, 100, 200, 1e6)["expert reward"] <= 1


def test_growth_of_a_clone_is_that_of_its_spectral_radius():
    task = PlantDemonstrations()
    population = Population(lambda: nn.Linear(4, 4, bias=False), seeds=[0])
    gain = task.gain - 0.03 * torch.eye(4)
    population.layout.views(population.theta)["weight"][0] = gain
    far, near = (evaluation.growth(task, horizon, 50, population) for horizon in (600, 300))
    assert (far["log norm"] - near["log norm"]).item() == pytest.approx(
        (far["log growth"] - near["log growth"]).item(), rel=0.05
    )


def test_laws_are_measured_from_the_experts_weights():
    task = PlantDemonstrations(noise=0.3)
    predicted = evaluation.predictions(8, 0.05, 0.3, 0.002)
    assert predicted["predicted variance"] == pytest.approx(2.93e-4, rel=0.01)
    assert predicted["EMA predicted variance"] / predicted["predicted variance"] == pytest.approx(0.0376, abs=1e-4)
    population = Population(lambda: nn.Linear(4, 4, bias=False), seeds=range(300))
    noise = torch.randn(300, 4, 4, generator=torch.Generator().manual_seed(0))
    for name in ("", "EMA "):
        sd, theta = predicted[f"{name}predicted variance"] ** 0.5, torch.zeros_like(population.theta)
        population.layout.views(theta)["weight"][:] = task.gain + sd * noise
        if name:
            population.average = theta
        else:
            population.theta = theta
    found = evaluation.on_linear_weights(task, predicted)(population, 0)
    for name in ("", "EMA "):
        assert found[f"{name}variance"].mean().item() == pytest.approx(predicted[f"{name}predicted variance"], rel=0.1)
        for margin in evaluation.MARGINS:
            fallen = found[f"{name}cliff {margin:g}"].mean().item()
            assert fallen == pytest.approx(predicted[f"predicted cliff {margin:g}"], abs=0.025)


class Always(nn.Module):
    """Writes one digit, whatever it reads."""

    def __init__(self, digit):
        super().__init__()
        self.digit = nn.Parameter(torch.tensor(float(digit)))

    def forward(self, tokens):
        return -(torch.arange(10) - self.digit).abs().expand(*tokens.shape, 10)


def test_strings_are_judged_by_exact_continuations():
    task = CarryCounter(digits=2, numbers=4, given=2, max_stride=9, order="lowest-first")
    fixed = evaluation.on_strings(task, 50)
    population = Population(lambda: Always(3), seeds=[0])
    found = fixed(population)
    assert found["free-running error"].tolist() == [1]
    assert found["next-digit loss"].item() > 1


def test_each_seed_has_episodes_of_its_own_and_more_data_hold_the_fewer():
    few, many = study.cells.episodes_of(range(3), 2, 10), study.cells.episodes_of(range(3), 10, 10)
    assert few.shape == (3, 400)
    for seed in range(3):
        assert torch.equal(few[seed], many[seed, :400])
        assert sorted(many[seed].tolist()) == list(range(2000))
    assert not torch.equal(few[0], few[1])


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert list(cells) == [
        "linear", "linear small batch", "linear large batch", "linear contracting", "linear no averaging", "stationary",
        "neural", "neural large batch", "neural more data", "neural decay", "neural saturated", "counter",
    ]  # fmt: skip
    assert cells["neural large batch"].batch_size == 16 * cells["neural"].batch_size == 512
    assert cells["neural more data"].stream.subsets.shape == (10, 16 * cells["neural"].stream.subsets.shape[1])
    assert [name for name, cell in cells.items() if cell.swappable] == [n for n in cells if n.startswith("neural")]
    initial = [Lab(None).population(cells[n]).theta[:3] for n in ("neural", "neural large batch", "neural decay")]
    assert all(torch.equal(theta, initial[0]) for theta in initial)
    (alone,) = plan(Config(parts=("autoregressive",)))
    assert alone.swappable


def test_the_rate_of_linear_clones_is_eta():
    """One step of the cell's optimiser on its objective is w - eta mean x (x.w - y)."""
    cell = next(iter(plan(SMOKE)))
    model, batch = nn.Linear(4, 4, bias=False), cell.task.sample(16, torch.Generator().manual_seed(0))
    cell.objective(model, batch).backward()
    step = cell.optimiser.learning_rate * model.weight.grad
    residual = model(batch.inputs) - batch.targets
    assert torch.allclose(step, SMOKE.linear_rate * residual.T @ batch.inputs / 16, atol=1e-6)


@pytest.fixture(scope="module")
def smoke():
    lab = Lab(None)
    run_study(dataclasses.replace(SMOKE, linear_steps=80, linear_horizon=10, steps=40, string_steps=16), lab)
    return lab.records()


@pytest.mark.slow
def test_run_records_what_rules_and_figures_read(smoke):
    assert {judge(claim, smoke, {}).verdict for claim in STUDY.claims} <= {"supported", "not supported", "inconclusive"}
    unaveraged = smoke[smoke["cell"] == "linear no averaging"]
    raw, averaged = (unaveraged[unaveraged["metric"] == m]["value"].tolist() for m in ("reward", "EMA reward"))
    assert raw == averaged
    assert len(smoke[smoke["distance"].notna()]) == 4 * evaluation.POINTS
    with style():
        names = [drawing.name for drawing in figures(smoke)]
    assert names == ["training", "remedies", "slices", "laws", "strings"]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["linear", "neural", "autoregressive"])
def test_any_part_alone_is_judged_and_drawn(part, smoke):
    mine = smoke[smoke["cell"].str.startswith({"autoregressive": "counter"}.get(part, part))]
    with style():
        assert list(figures(mine))
    assert {judge(claim, mine, {}).verdict for claim in STUDY.claims[:3]} == {"inconclusive"} or part == "neural"


@pytest.mark.slow
def test_clones_in_an_environment_are_trained_measured_and_drawn(tmp_path):
    pytest.importorskip("gymnasium")
    stream = numpy.random.default_rng(0)
    observations = stream.standard_normal((50, 3)).astype("float32")
    numpy.savez(tmp_path / "Pendulum-v1.npz", observations=observations, actions=observations[:, :1], returns=[-900.0])
    config = dataclasses.replace(
        SMOKE, parts=("linear",), seeds=2, checkpoints=4, steps=8, environments=("Pendulum-v1",),
        demonstrations=str(tmp_path), environment_horizon=5,
    )  # fmt: skip
    lab = Lab(None)
    run_study(config, lab)
    records = lab.records()
    mine = records[records["cell"] == "environment Pendulum-v1"]
    assert set(mine["metric"]) >= {"reward", "EMA reward", "cloning loss", "EMA cloning loss", "expert reward"}
    assert "environment Pendulum-v1 large batch" in set(records["cell"])
    with style():
        assert [drawing.name for drawing in figures(records)][-1] == "environment-pendulum-v1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: it must divide d_model=64"),
        ({"batch_size": 6}, "batch_size=6 is not legal: it must be a multiple of 4"),
        ({"episodes": 1}, "batch_size=32 is not legal: 16 times it must be at most"),
        ({"parts": ("linear", "linear")}, "parts=.* is not legal: each may be given once"),
        ({"environments": ("Hopper-v5",)}, "environment='Hopper-v5' is not legal without a file"),
        ({"environments": ("Hopper-v5",), "demonstrations": "/nowhere"}, "there is no such file"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'gymnasium'}"
    code = f"import sys, mesocosm.studies.gradient_variance_amplification; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "model", "figure"),
    [("neural", "own_policy:Policy", "remedies"), ("autoregressive", "strangers:OwnGRU", "strings")],
)
def test_another_architecture_takes_the_place_of_ours(part, model, figure, tmp_path, monkeypatch):
    layers = "nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, *task.output_shape)"
    own = f"from torch import nn\ndef Policy(task): return nn.Sequential({layers})"
    (tmp_path / "own_policy.py").write_text(own)
    monkeypatch.chdir(tmp_path)
    words = ["--preset", "smoke", "--parts", part, "--model", model, "--out", str(tmp_path / "run")]
    assert main(["run", "gradient-variance-amplification", *words]) == 0
    assert (tmp_path / "run" / "figures" / f"{figure}.png").exists()

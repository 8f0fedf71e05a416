import dataclasses
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch

from mesocosm import models, tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.raptr import PRESETS, STUDY, Config, figures, plan, rules
from mesocosm.studies.raptr.cells import arms, blocks_of, gap_cells, sandboxes, unscaled
from mesocosm.studies.raptr.evaluation import fixed, track_gap, track_polynomial, track_text
from mesocosm.training import Population
from mesocosm.training.gradients import flop_counter

TINY = dataclasses.replace(PRESETS["smoke"], gap_steps=2, points=50)
SEEDS = 6
NOISE = np.array([0.02, -0.01, 0.0, 0.01, -0.02, 0.0])
"""By seed, of everything that varies."""


def made_up(
    raptr=0.10, plain=0.10, layerdrop=0.13, falling=0.14, unscaled=0.12, no_ends=0.13, text=-0.05, text_drop=0.02,
    text_falling=0.02, alphas=(0.9, 0.6, 0.3), plain_alphas=(1.0, 1.0, 0.9), final_alphas=(1.0, 1.0, 0.9), gap=-0.8,
    gap_start=-0.5, bare=0.0, bare_learns=32, flops=1.0, seeds=SEEDS,
):  # fmt: skip
    """Records of a run of 400 steps whose first stage ends at step 100; gaps are powers of the depth."""
    rows = []

    def add(arm, step, metric, values, sandbox="polynomials"):
        cell = arm if sandbox == "polynomials" else f"text {arm}"
        columns = {"cell": cell, "sandbox": sandbox, "arm": arm, "stages": 4, "step": step, "metric": metric}
        rows.extend({**columns, "seed": seed, "value": values[seed]} for seed in range(seeds))

    ends = {
        "raptr": raptr, "equal compute": plain, "layerdrop": layerdrop, "reversed": falling, "no scale": unscaled,
        "no ends": no_ends, "standard": 0.05, "stacking": 0.11,
    }  # fmt: skip
    for arm, error in ends.items():
        for share in (0, 0.25, 0.5, 1):
            cost = (1.5 if arm == "standard" else flops if arm == "raptr" else 1.0) * 2e10
            add(arm, int(400 * share), "flops", share * cost * np.ones(SEEDS))
            add(arm, int(400 * share), "error", 1 - share * (1 - error) + 0.1 * NOISE * share)
            early = alphas if arm == "raptr" else plain_alphas
            late = final_alphas if arm == "raptr" else plain_alphas
            for degree, (first, last) in enumerate(zip(early, late), start=1):
                value = {0: 0.0, 0.25: first, 0.5: first}.get(share, last)
                add(arm, int(400 * share), f"alpha {degree}", value + NOISE * (share > 0))
    raptr_text = 2.5 + text
    ends = {
        "equal compute": 2.5, "raptr": raptr_text, "layerdrop": raptr_text + text_drop,
        "reversed": raptr_text + text_falling,
    }  # fmt: skip
    for arm, error in ends.items():
        for share in (0, 0.5, 1):
            add(arm, int(400 * share), "flops", share * 2e11 * np.ones(SEEDS), "text")
            add(arm, int(400 * share), "error", 5.5 - share * (5.5 - error) + 0.5 * NOISE * share, "text")
    exponents = {"whole": (gap_start, gap), "no norm": (-0.2, -0.3), "no residual": (0.1, bare)}
    for kind, pair in exponents.items():
        for depth in (4, 8, 16, 32):
            for step, exponent in zip((0, 500), pair):
                columns = {"cell": f"gap {kind} L={depth}", "kind": kind, "depth": depth, "step": step}
                sign = -1 if depth == 8 else 1
                for seed in range(seeds):
                    value = sign * 0.3 * depth**exponent * (1 + NOISE[seed])
                    rows.append({**columns, "seed": seed, "metric": "gap", "value": value})
                    rows.append({**columns, "seed": seed, "metric": "growth r2", "value": 0.98 + NOISE[seed]})
                    dead = kind == "no residual" and depth > bare_learns
                    rows.append({**columns, "seed": seed, "metric": "error", "value": 1.0 if dead else 0.2})
    return pandas.DataFrame(rows)


def judgement(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


CLAIMS = [claim.id for claim in STUDY.claims]


@pytest.mark.parametrize("claim", CLAIMS)
def test_claims_are_supported_where_the_effect_is_there(claim):
    found = judgement(claim, made_up())
    assert found.verdict == "supported"
    assert found.control is None or found.control["verdict"] == "absent"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1a", {"text": 0.05}),
        ("C1b", {"raptr": 0.13, "layerdrop": 0.2}),
        ("C2a", {"text_falling": -0.02}),
        ("C2b", {"falling": 0.07}),
        ("C3", {"gap": -0.1}),
        ("C3", {"gap_start": -0.2}),
        ("C4", {"alphas": (0.9, 0.8, 0.7)}),
        ("C4", {"final_alphas": (1.0, 0.9, 0.7)}),
        ("C5", {"unscaled": 0.09}),
        ("C5", {"no_ends": 0.09}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert judgement(claim, made_up(**changes)).verdict == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [("C1a", {"text_drop": -0.02}), ("C1b", {"layerdrop": 0.09}), ("C3", {"bare": -0.5})],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    found = judgement(claim, made_up(**changes))
    assert (found.verdict, found.control["verdict"]) == ("inconclusive", "present")


@pytest.mark.parametrize("claim", ["C1b", "C4"])
def test_arms_of_unequal_compute_are_not_compared(claim):
    found = judgement(claim, made_up(flops=1.2))
    assert found.verdict == "inconclusive"
    assert "not of equal compute: 2.4e+10 and 2e+10 FLOPs" in found.note


def test_networks_that_learn_nothing_are_no_control():
    found = judgement("C3", made_up(bare_learns=8))
    assert found.verdict == "supported"
    assert found.control["checks"][0]["name"].endswith("L = 4, 8")
    found = judgement("C3", made_up(bare_learns=4))
    assert (found.verdict, found.control["verdict"]) == ("inconclusive", "inconclusive")
    assert "networks without residual connections learn at 1 depth(s)" in found.note


@pytest.mark.parametrize("claim", CLAIMS)
def test_one_seed_decides_nothing(claim):
    assert judgement(claim, made_up(seeds=1)).verdict == "inconclusive"


def test_without_text_its_claims_are_inconclusive_with_the_reason():
    records = made_up()
    for claim in ("C1a", "C2a"):
        found = judgement(claim, records[records["sandbox"] != "text"])
        assert (found.verdict, found.note) == ("inconclusive", "there is no arm 'raptr' on text")


def test_seeds_that_diverged_do_not_count():
    records = made_up()
    last = (records["arm"] == "raptr") & (records["seed"] == 2) & (records["step"] == 400)
    assert rules.final(records[~last], "raptr").index.tolist() == [0, 1, 3, 4, 5]
    assert rules.difference(records[~last], "raptr", "equal compute").estimate == pytest.approx(0)


def test_gaps_are_sizes_and_their_slope_is_the_exponent():
    records = made_up()
    found = rules.gaps(records, "whole", trained=False)
    assert found.loc[2].tolist() == pytest.approx([0.3 * depth**-0.5 for depth in (4, 8, 16, 32)])
    assert rules.slope(records, "no norm", trained=True).estimate == pytest.approx(-0.3)


def test_stage_one_ends_at_its_share_of_the_steps_and_compute_is_matched_between_measurements():
    records = made_up()
    assert rules.first_stage_end(records, "raptr") == 100
    assert rules.alpha_at(records, 100, 3).estimate == pytest.approx(0.9)
    half = made_up(flops=0.5)
    assert rules.alpha_at(half, 100, 3).estimate == pytest.approx(0.45)


def test_figures_are_drawn_from_records():
    with style():
        names = [drawing.name for drawing in figures(made_up())]
    assert names == ["compute", "text", "degrees", "gap"]


def test_the_whole_networks_error_and_degrees_are_measured():
    task = tasks.BooleanPolynomial(n=6, degree=3, terms=2)
    population = Population(lambda: models.ResidualMLP.for_task(task, d_model=4, n_layers=2), [0, 1])
    found, batch = track_polynomial(task, 300, population, 0), fixed(task, 300, torch.device("cpu"))
    for r in range(2):
        scores = population.replica(r)(batch.inputs)
        assert found["error"][r] == pytest.approx(((scores - batch.targets) ** 2).mean().item() / task.variance)
        for degree in (1, 3):
            part = batch.components[:, degree - 1]
            assert found[f"alpha {degree}"][r] == pytest.approx((scores @ part / (part @ part)).item(), abs=1e-5)
    text = tasks.TextBytes(length=8, split="valid")
    reader = Population(lambda: models.Transformer.for_task(text, d_model=8, n_heads=1, n_layers=1), [0])
    batch = fixed(text, 5, torch.device("cpu"))
    expected = training.cross_entropy(reader.replica(0), batch).item()
    assert track_text(text, 5, reader, 0)["error"].item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("residual", [True, False])
def test_the_gap_is_that_of_networks_with_a_layer_cut_out(residual):
    task = tasks.BooleanPolynomial(n=6, degree=3, terms=2)
    make = lambda: models.ResidualMLP.for_task(task, d_model=4, n_layers=4, residual=residual)
    population = Population(make, [0, 1])
    found, batch = track_gap(task, 100, 64, residual, population, 0), fixed(task, 100, torch.device("cpu"))
    for r in range(2):
        losses = []
        for cut in (None, 1, 2):
            model = population.replica(r)
            if cut:
                if residual:  # The layer after the cut stands in for two.
                    after = model.blocks[cut + 1].fc_out
                    after.weight.data *= 2**0.5
                    after.bias.data *= 2**0.5
                del model.blocks[cut]
            losses.append(training.square(model, batch).item() / task.variance)
        assert found["error"][r] == pytest.approx(losses[0], rel=1e-4)
        assert found["gap"][r] == pytest.approx((losses[1] + losses[2]) / 2 - losses[0], abs=1e-4)


def operations(box, layers):
    model, batch = box.model(box.task, n_layers=layers), box.task.sample(4, torch.Generator().manual_seed(0))
    with flop_counter() as counter:
        box.objective(model, batch).backward()
    return counter.get_total_flops()


@pytest.mark.parametrize("number", [0, 1])
def test_arms_have_equal_compute(number):
    config = dataclasses.replace(PRESETS["small"], more_arms=True)
    box = list(sandboxes(config))[number]
    layer = (operations(box, 4) - operations(box, 2)) / 2
    outside, layers = operations(box, 2) - 2 * layer, box.lengths[-1]
    costs = {}
    for cell in arms(config, box):
        mean = training.mean_share(cell.stream.length, cell.steps, layers) if cell.stream else 1
        if cell.grow:
            changes = [0, *(change.step for change in cell.grow), cell.steps]
            mean = np.dot([0.5, 0.75, 1], np.diff(changes)) / cell.steps
        costs[cell.settings["arm"]] = cell.steps * (mean * layers * layer + outside)
    for arm in set(costs) - {"standard", "progressive drop"}:
        assert costs[arm] == pytest.approx(costs["raptr"], rel=0.01), arm


def test_arms_pair_their_seeds_and_differ_in_one_thing():
    cells, config = {cell.name: cell for cell in plan(PRESETS["small"])}, PRESETS["small"]
    falling = cells["reversed"].stream.length
    assert [falling(step) for step in (0, cells["reversed"].steps - 1)] == [config.lengths[-1]] * 2
    assert falling(round(0.94 * cells["reversed"].steps)) == config.lengths[0]
    assert [name for name, cell in cells.items() if cell.swappable] == ["equal compute", "standard"]
    initial = [Lab(None).population(cells[name]).theta[:2] for name in ("raptr", "equal compute", "no ends")]
    assert all(torch.equal(theta, initial[0]) for theta in initial)
    one, other = (cells[name].stream(3, [1], torch.device("cpu")) for name in ("raptr", "no scale"))
    assert torch.equal(one.inputs, other.inputs)
    assert torch.equal(one.layer_scale > 0, other.layer_scale > 0)
    assert set(other.layer_scale.unique().tolist()) <= {0.0, 1.0}
    assert not all(cells["no ends"].stream.kept(step, [0])[0, 0] for step in range(20))


def test_a_true_skip_and_the_mask_train_the_same_network():
    box = next(iter(sandboxes(TINY)))
    cells = {cell.name: dataclasses.replace(cell, steps=20, every=20) for cell in plan(TINY)}
    masked = Lab(None).train(cells["raptr"]).population
    assert masked.reason == "stacked"
    lone = Lab(None).population(cells["raptr"])
    model, optimiser = lone.replica(1), None
    optimiser = torch.optim.Adam(model.parameters(), lr=box.rate)
    for step in range(20):
        batch = cells["raptr"].stream(step, [1], torch.device("cpu"))
        batch = batch._make(field[0] for field in batch)
        optimiser.param_groups[0]["lr"] = box.rate * cells["raptr"].schedule(step)
        optimiser.zero_grad()
        training.along_paths(training.square, blocks_of)(model, batch).backward()
        assert all((block.fc_in.weight.grad is None) == (c == 0) for block, c in zip(model.blocks, batch.layer_scale))
        for parameter in model.parameters():  # Adam's own count of updates would otherwise lag in skipped layers.
            if parameter.grad is None and parameter in optimiser.state:
                optimiser.state[parameter]["step"] += 1
            elif parameter.grad is None:
                optimiser.state[parameter] = {
                    "step": torch.tensor(step + 1.0),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        optimiser.step()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(masked.weights()[name][1], parameter.detach(), atol=1e-5, rtol=1e-4)


def test_unscaled_paths_add_each_layer_once():
    assert unscaled(torch.tensor([True, False, True])).tolist() == [1.0, 0.0, 1.0]


def test_networks_of_the_gap_differ_in_one_thing():
    cells = {cell.name: cell for cell in gap_cells(TINY)}
    assert list(cells) == [f"gap {kind} L={depth}" for kind in ("whole", "no norm", "no residual") for depth in (3, 6)]
    made = {name: cell.model(cell.task) for name, cell in cells.items()}
    assert [len(model.blocks) for model in made.values()] == [3, 6] * 3
    assert isinstance(made["gap no norm L=3"].ln_final, torch.nn.Identity)
    assert [made[f"gap {kind} L=3"].blocks[0].residual for kind in ("whole", "no norm", "no residual")] == [
        True,
        True,
        False,
    ]


def test_paper_preset_is_of_the_papers_size():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    cell = cells["text raptr"]
    with torch.device("meta"):
        blocks = cell.model(cell.task).blocks
    assert len(blocks) == 12
    assert sum(p.numel() for p in blocks.parameters()) == pytest.approx(85e6, rel=0.01)
    assert training.mean_share(cell.stream.length, cell.steps, 12) == pytest.approx(0.75)
    assert {"text reversed", "progressive drop"} <= set(cells)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lengths": (4, 4)}, r"lengths=\(4, 4\) is not legal: it must be up to 10 rising values"),
        ({"lengths": (3, 6)}, r"lengths=\(3, 6\) is not legal: the last must be a multiple of 4"),
        ({"text_lengths": (4, 3)}, r"text_lengths=\(4, 3\) is not legal"),
        ({"gap_depths": (4,)}, r"gap_depths=\(4,\) is not legal: it must be two different values"),
        ({"text_heads": 3}, "text_heads=3 is not legal: it must divide text_width=32"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.raptr; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end_and_equal_compute_is_equal(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "raptr", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {"compute", "text", "degrees", "gap"}
    records = pandas.read_parquet(folder / "records.parquet")
    for arm in ("raptr", "layerdrop", "reversed", "no scale", "no ends", "stacking"):
        spent = [rules.final(records, name, "flops").mean() for name in (arm, "equal compute")]
        assert spent[0] == pytest.approx(spent[1], rel=0.05), arm

import itertools
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.masked_prediction_hmm import PRESETS, STUDY, Config, evaluation, figures, plan, rules, run
from mesocosm.studies.masked_prediction_hmm.rules import ALL_PAIRS, SIZES, TASKS, TRIPLES
from mesocosm.tasks import DiscreteHMM
from mesocosm.tasks.hidden_markov import token_conditional

TINY = Config(
    seeds=2, fitted_seeds=1, starts=2, iterations=2, inputs=20, repeats=1, samples=(100, 1000), trained_seeds=2,
    steps=3, batch_size=8,
)  # fmt: skip
MODELS, STARTS = 4, 8


def made_up(
    pair=1e-15, triple=1e-3, distance=0.2, other=1e-3, relabelled=0.0, wrong=None, singular=1, predictor=1e-15,
    columns=1e-14, reflection=0.5, gaussian=1e-9, local=2, pairs=0.4, triples=1e-8, slow=2, ghosts=4, slope=-0.5,
    control_slope=0.0, sizes=(10**4, 10**5, 10**6),
):  # fmt: skip
    """Records of four models; of eight fits each `local` (Gaussian) or `slow` (discrete) do not converge."""
    rows = []

    def add(cell, seed, metrics, **settings):
        for metric, value in metrics.items():
            rows.append({"cell": cell, "seed": seed, "step": 0, "metric": metric, "value": value, **settings})

    for seed in range(MODELS):
        near = 1 + 0.1 * seed
        add("twin", seed, {"pair difference": pair, "distance": distance * near})
        add("twin", seed, {f"difference {task}": triple * near / (i + 1) for i, task in enumerate(TRIPLES)})
        add("twin", seed, {"pair difference, other rotation": other, "distance, relabelled": relabelled})
        add("twin", seed, {"triple difference, relabelled": relabelled})
        add("ghost", seed, {"predictor difference": predictor, "posterior difference": 1e-15, "distance": near})
        add("ghost", seed, {"column sum + 1": columns, "posterior difference, other reflection": reflection})
        for (states, symbols), task in itertools.product(SIZES, TASKS):
            place = {"states": states, "symbols": symbols, "task": task}
            right = rules.expected_deficiency(task, states)
            drawn = right + (wrong == (states, task) and seed == 3)
            add("jacobian", seed, {"deficiency": drawn}, transition="as drawn", **place)
            add("jacobian", seed, {"deficiency": right + singular}, transition="two equal columns", **place)
        for start in range(STARTS):
            for task in TASKS:
                error = (triples if task in TRIPLES else pairs) * near
                done = start >= slow
                place = {"task": task, "start": start}
                add("fit discrete", seed, {"loss": 1e-24 if done else 1e-7, "error": error if done else 0.5}, **place)
            done, place = start >= local, {"task": "x2|x1", "start": start}
            metrics = {"loss": 1e-24 if done else 1e-3, "error": gaussian if done else 2.0, "ghost error": 3.0}
            add("fit gaussian", seed, metrics, **place)
            there = start < ghosts
            metrics = {"loss": 1e-24, "error": 3.0 if there else 1e-9, "ghost error": 1e-9 if there else 3.0}
            add("fit gaussian, free T", seed, metrics, **place)
        for size, repeat in itertools.product(sizes, range(2)):
            place = {"samples": size, "repeat": repeat}
            spread = 1.2 if repeat else 1 / 1.2
            for emission, exponent in (("as drawn", slope), ("two equal columns", control_slope)):
                value = 3 * spread * (size / 1e4) ** (exponent + 0.01 * seed)
                add("samples", seed, {"error": value}, emission=emission, **place)
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
        ("C1", {"pair": 1e-11}),
        ("C1", {"distance": 0.03}),
        ("C1", {"triple": 5e-5}),
        ("C2", {"wrong": (3, "pairs")}),
        ("C2", {"wrong": (4, "x2|x1x3")}),
        ("C3", {"predictor": 1e-10}),
        ("C3", {"columns": 1e-8}),
        ("C4", {"gaussian": 1e-5}),
        ("C4", {"local": 5}),
        ("C4", {"pairs": 0.05}),
        ("C4", {"triples": 1e-3}),
        ("C5", {"slope": -0.3}),
        ("C5", {"slope": -0.8}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"other": 1e-9}),
        ("C1", {"relabelled": 1e-3}),
        ("C2", {"singular": 0}),
        ("C3", {"reflection": 1e-6}),
        ("C4", {"ghosts": 0}),
        ("C4", {"ghosts": STARTS}),
        ("C5", {"control_slope": -0.5}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C4", {"slow": STARTS}, "0 of 32 fits to pairs (fit discrete) converged, and 3 are needed"),
        ("C4", {"local": STARTS}, "0 of 32 fits to x2|x1 (fit gaussian) converged, and 3 are needed"),
        ("C5", {"sizes": (1000,)}, "one number of samples gives no slope: give two"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), made_up(**changes), {})
    assert (judgement.verdict, judgement.note) == ("inconclusive", why)


def test_free_entries_unfold_to_the_model():
    task = DiscreteHMM(states=4, symbols=6)
    free = torch.cat([task.emission[:-1].flatten(), task.transition[:-1, :-1].flatten()])
    assert len(free) == 4 * 5 + 9
    for found, true in zip(evaluation.unfold(free, 4, 6), (task.emission, task.transition)):
        torch.testing.assert_close(found, true, rtol=0, atol=1e-14)


@pytest.mark.parametrize(("states", "symbols"), [(2, 3), (3, 4), (4, 5)])
def test_deficiencies_are_those_of_finite_differences(states, symbols):
    found = evaluation.count_deficiencies(states, symbols, 1)
    task = DiscreteHMM(states=states, symbols=symbols)
    free = torch.cat([task.emission[:-1].flatten(), task.transition[:-1, :-1].flatten()])
    for name, places in TASKS.items():
        slopes = []
        for i in range(len(free)):
            step = 1e-5 * torch.eye(len(free), dtype=torch.float64)[i]
            above, below = (
                evaluation.predictions(places, *evaluation.unfold(p, states, symbols))
                for p in (free + step, free - step)
            )
            slopes.append((above - below) / 2e-5)
        values = torch.linalg.svdvals(torch.stack(slopes))
        deficiency = len(free) - int((values > 1e-8 * values[0]).sum())
        assert found[f"deficiency {name}"][0, 0] == deficiency == rules.expected_deficiency(name, states)


def test_twins_have_the_largest_legal_angle():
    found = evaluation.compare_twins(PRESETS["smoke"])
    for seed, angle in enumerate(found["angle"].tolist()):
        task = DiscreteHMM(table=seed)
        halvings = np.log2(PRESETS["smoke"].angle / angle)
        assert halvings == int(halvings)
        twin, again = evaluation.find_twin(PRESETS["smoke"], seed, task.emission, task.transition)
        assert again == angle
        assert min(part.min() for part in twin) >= 0
        law = token_conditional(task.emission, task.transition, (0,), (1,))
        torch.testing.assert_close(law, token_conditional(*twin, (0,), (1,)), rtol=0, atol=1e-14)
    assert len(ALL_PAIRS) == 10


def test_exact_counts_give_exact_parameters():
    config = PRESETS["small"]
    for seed in (0, 1):
        task = evaluation.sampled_task(config, seed)
        law = token_conditional(task.emission, task.transition, (), (0, 1, 2))
        emission, transition = evaluation.parameters_of_triples(law, config.states, generator(seed))
        error = evaluation.measures.matched_error(emission, transition, task.emission, task.transition)
        assert error < 1e-8
        counts = evaluation.draw_counts(law, 10**5, 3)
        assert counts.sum() == 10**5
        assert (counts / 1e5 - law).abs().max() < 5 * (law.max() / 1e5).sqrt()


def test_first_starts_do_not_depend_on_how_many_there_are():
    few, many = (evaluation.starts_of(Config(starts=n, fitted_seeds=2), 5).view(2, n, 5) for n in (2, 3))
    assert torch.equal(few, many[:, :2])


def test_fits_reach_the_truth_by_gaussian_pairs():
    config = Config(fitted_seeds=1, starts=4, inputs=200, iterations=200)
    found = evaluation.fit_gaussian(config, stochastic=True)
    done = found["loss"] < rules.CONVERGED
    assert done.any()
    assert (found["error"][done] < 1e-6).all()


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small = records_of(TINY)
    large = records_of(Config(**{**vars(TINY), "seeds": 3, "trained_seeds": 3}))
    large = large[large["seed"] < np.where(large["cell"].isin(["jacobian"]), 1, 2)].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, large, rtol=0, atol=1e-6)


class Straight(nn.Module):
    """An architecture without means or transitions."""

    def __init__(self, task):
        super().__init__()
        self.linear = nn.Linear(task.input_shape[0], task.output_shape[0])

    def forward(self, x):
        return self.linear(x)


@pytest.mark.slow
def test_another_architecture_runs_and_all_is_drawn():
    records = records_of(TINY, architecture=Straight)
    trained = records[records["cell"] == "trained"]
    assert "parameter error" not in set(trained["metric"])
    assert "squared distance to the optimal predictor" in set(trained["metric"])
    for claim in STUDY.claims:
        judge(claim, records, {})
    with style():
        names = [drawing.name for drawing in figures(records)]
    assert names == ["identifiability", "starts", "ghost", "samples", "training"]


def test_many_states_are_matched_too():
    """More than those whose relabellings are all tried."""
    config = Config(**{**vars(TINY), "states": 8, "symbols": 8, "dimensions": 8, "sampled_symbols": 8})
    (cell,) = plan(config)
    errors = Lab(None).train(cell).metrics["parameter error"]
    assert (errors[-1] > 0).all()


def test_poor_samples_are_decomposed_all_the_same():
    config = Config(seeds=20, fitted_seeds=1, samples=(100, 101), concentration=0.05, repeats=1)
    assert evaluation.learn_from_samples(config)["error"].isfinite().all()


def test_papers_preset_has_its_sizes():
    config = PRESETS["paper"]
    assert (config.states, config.symbols, config.dimensions) == (10, 20, 50)
    (cell,) = plan(config)
    assert cell.swappable
    assert cell.model(cell.task).means.shape == (50, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"symbols": 3, "states": 4}, "symbols=3 is not legal: it must be at least states=4"),
        ({"fitted_seeds": 20}, "fitted_seeds=20 is not legal: it must be at most seeds=10"),
        ({"samples": (100, 100)}, r"samples=\(100, 100\) is not legal: the numbers must differ"),
        ({"states": 2}, "states=2 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.masked_prediction_hmm; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "masked-prediction-hmm", "--preset", "smoke", "--out", str(folder)]) == 0
    assert len(list((folder / "figures").glob("*.png"))) == 5
    assert (folder / "verdicts.json").exists()

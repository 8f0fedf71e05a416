import dataclasses
import math
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
from mesocosm.models import Transformer
from mesocosm.studies.induction_heads import PRESETS, STUDY, Config, figures, measuring, plan, rules, run
from mesocosm.tasks import MarkovChains
from mesocosm.tasks.markov_chains import ngram_counts
from mesocosm.training import Population

TINY = Config(
    seeds=2, one_layer_seeds=1, minimal_seeds=1, second_order_seeds=1, length=8, held_out=8, d_model=4, batch_size=4,
    steps=4, second_order_steps=2, minimal_steps=4, every=2,
)  # fmt: skip
KNOWN = {"uniform": 0.28, "unigram": 0.18, "bigram": 0.05}
STEPS = range(0, 801, 20)
ORDER = ("uniform", "unigram", "bigram")


def made_up(
    seeds=8, excess=0.1, one_layer=1.0, unigram=220, drop=240, order=ORDER, doubly=("uniform", "bigram"),
    doubly_drop=140, other=0, head=10, two_back=0.05, attention=True, second_order=None, known=KNOWN,
):  # fmt: skip
    """Records of seeds whose last drop is at `drop` and later in steps of 20, of whom all go through `order`."""
    rows = []

    def add(cell, seed, step, **values):
        rows.extend({"cell": cell, "seed": seed, "step": step, "metric": m, "value": v} for m, v in values.items())

    def course(cell, seed, names, changes, end):
        for step in STEPS:
            now = names[sum(step >= change for change in changes)]
            truth = KNOWN["bigram"] + end * 0.13 if now == "bigram" else KNOWN.get(now, 0)
            strategies = {f"KL to {n}": 0.01 if n == now else 0.1 for n in (*ORDER, *set(names) - set(ORDER))}
            add(cell, seed, step, **strategies, **{"KL from truth": truth})

    add("strategies", 0, 0, **known)
    for seed in range(seeds):
        arrival = drop + 20 * seed
        course("dirichlet", seed, order, [arrival - unigram, arrival][-len(order) + 1 :], excess)
        course(
            "doubly stochastic",
            seed,
            doubly,
            [doubly_drop - 60, doubly_drop + 20 * (seed % 2)][-len(doubly) + 1 :],
            0.4,
        )
        course("other data", seed, ("unigram", "bigram"), [arrival + other + 20 * (-1) ** seed], excess)
        for step in STEPS:
            value = KNOWN["bigram"] + one_layer * 0.13
            add("one layer", seed, step, **{f"KL to {n}": 0.1 for n in ORDER}, **{"KL from truth": value})
            back = {"1 back": float(step >= 400), "on diagonal": float(step >= 100), "off diagonal": 0.0}
            add("minimal model", seed, step, **back)
            if attention:
                now = {"layer 1 one back": 0.6 if step > arrival + head else 0.06, "layer 1 two back": two_back}
                add("dirichlet", seed, step, **now)
        if second_order:
            course("second order", seed, second_order, range(100, 100 * len(second_order), 100), excess)
    return pandas.DataFrame(rows).assign(batch_size=64)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control and judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"excess": 0.3}),
        ("C2", {"order": ("uniform", "bigram")}),
        ("C2", {"order": ("unigram", "uniform", "bigram")}),
        ("C2", {"order": ("uniform", "unigram")}),
        ("C2", {"unigram": 60}),
        ("C3", {"doubly_drop": 500}),
        ("C3", {"doubly": ("uniform", "unigram")}),
        ("C4", {"head": 300}),
        ("C4", {"head": -220}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"one_layer": 0.1}),
        ("C2", {"doubly": ORDER, "doubly_drop": 300}),
        ("C3", {"other": -150}),
        ("C4", {"two_back": 0.4}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    if claim == "C2":  # The uniform phase of 60 steps is followed by a unigram phase as long as it counts.
        records = made_up()
        one = records["cell"] == "doubly stochastic"
        uniform = one & (records["metric"] == "KL to unigram") & records["step"].between(40, 120)
        records.loc[uniform, "value"] = 0.001
    else:
        records = made_up(**changes)
    before, control = verdict(claim, records)
    assert control == "present"
    assert before == "inconclusive"


def test_heads_that_do_not_follow_the_drop_have_no_positive_correlation():
    records = made_up()
    times = {seed: 240 + 20 * (7 - seed) for seed in range(8)}  # Late where the drop is early.
    late = records["step"] > records["seed"].map(times)
    records.loc[records["metric"] == "layer 1 one back", "value"] = np.where(late, 0.6, 0.06)[
        records["metric"] == "layer 1 one back"
    ]
    check = rules.judge_heads(records)[1]
    assert check.verdict == "not supported"
    assert check.estimate == pytest.approx(-1)


@pytest.mark.parametrize(
    ("order", "expected"), [((*ORDER, "trigram"), "supported"), (("uniform", "unigram", "trigram"), "not supported")]
)
def test_second_order_chains_need_all_four_phases(order, expected):
    assert verdict("C5", made_up(second_order=order)) == (expected, None)


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C3", {"order": ("uniform", "unigram"), "doubly": ("uniform", "unigram")}, "8 of 8 seeds come .* on neither"),
        ("C4", {"attention": False}, "attention is measured only in models that give"),
        ("C4", {"order": ("uniform", "unigram")}, "0 of 8 seeds come to the bigram rule, and 3 are needed"),
        ("C1", {"known": {**KNOWN, "unigram": 0.04}}, "the bigram rule is no better"),
        ("C5", {}, "chains of order 2 are trained in the paper preset"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), made_up(**changes), {})
    assert judgement.verdict == "inconclusive"
    pandas.testing.assert_series_equal(pandas.Series([judgement.note]).str.contains(why), pandas.Series([True]))


def test_curves_give_their_times():
    records = made_up(seeds=2)
    assert rules.arrivals(records, "dirichlet").tolist() == [240, 260]
    assert rules.phases(rules.nearest(records, "dirichlet")[0]) == [
        ("uniform", 0, 20), ("unigram", 20, 240), ("bigram", 240, 800),
    ]  # fmt: skip
    assert rules.passes_half(pandas.Series([0.1, 0.2, 0.4, 0.6, 0.5], index=[0, 5, 10, 15, 20])) == 10
    assert math.isinf(rules.first(pandas.Series([False, False])))


class Exact(nn.Module):
    """The add-one rule of some order, as a model without attention patterns."""

    def __init__(self, order):
        super().__init__()
        self.order, self.shift = order, nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        return (ngram_counts(tokens, 3, self.order) + 1).log() + self.shift


@pytest.mark.parametrize(("order", "name"), [(0, "unigram"), (1, "bigram")])
def test_a_model_that_counts_is_at_no_distance_from_its_strategy(order, name):
    task = MarkovChains(length=16)
    found = measuring.distances(task, 20)(Population(lambda: Exact(order), [0, 1]), 0)
    _, truth, strategies = measuring.held_out(task, 20)
    assert set(found) == {"KL from truth", "KL to uniform", "KL to unigram", "KL to bigram"}
    assert found[f"KL to {name}"].tolist() == pytest.approx([0, 0], abs=1e-6)
    rule = strategies[name].exp()
    expected = [
        sum(p * math.log(p / q) for p, q in zip(truth[b, t].exp().tolist(), rule[b, t].tolist()) if p > 0)
        for b in range(20)
        for t in range(8, 16)
    ]
    assert found["KL from truth"].tolist() == pytest.approx([np.mean(expected)] * 2, abs=1e-5)
    assert measuring.arrived(found).tolist() == [name == "bigram"] * 2


def test_attention_of_a_transformer_is_that_of_its_patterns():
    task = MarkovChains(length=8)
    inputs = task.sample(5, torch.Generator().manual_seed(0)).inputs
    model = Transformer.for_task(task, d_model=4, n_heads=2, n_layers=2)
    first, last = measuring.patterns(model, inputs)
    found = measuring.attention(model, inputs)
    back = torch.stack([first[:, :, t, t - 1] for t in range(1, 8)]).mean((0, 1))
    assert found["layer 1 one back"].item() == pytest.approx(back.max().item())
    assert 0 < found["induction"] < 1
    assert last.shape == (5, 2, 8, 8)


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


def test_attention_is_looked_at_on_the_seeds_own_way():
    """Training the first seed again comes to the weights of the population, so the end is the same too."""
    cell = next(iter(plan(TINY)))
    lab = Lab(None)
    population = lab.train(cell).population
    inputs = measuring.held_out(cell.task, TINY.held_out)[0]
    looks = measuring.attention_at(lab, cell, population, inputs, [2, 4, 4])
    torch.testing.assert_close(looks["map"][1], looks["map"][2])
    assert looks["offsets"].shape == (3, 8)
    assert looks["map"].sum(-1).allclose(torch.ones(3, 8))


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=4))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=0, atol=1e-5)


def test_another_architecture_runs_without_attention():
    class Lookup(nn.Module):
        def __init__(self, task):
            super().__init__()
            self.embed = nn.Embedding(len(task.tokens), 8)
            self.unembed = nn.Linear(8, len(task.tokens))

        def forward(self, tokens):
            return self.unembed(self.embed(tokens).cumsum(1))

    records = records_of(TINY, architecture=Lookup)
    assert "attention" not in set(records["cell"])
    assert "attention is measured only" in judge(STUDY.claims[3], records, {}).note
    with style():
        names = [drawing.name for drawing in figures(records)]
    assert names == ["phases", "priors", "minimal-model", "second-order"]


def test_one_seed_is_judged_and_drawn():
    one = dataclasses.replace(TINY, seeds=1, second_order_seeds=0)
    records = records_of(one)
    for claim in STUDY.claims:
        judge(claim, records, {})
    with style():
        assert [d.name for d in figures(records)] == ["phases", "priors", "attention", "minimal-model"]


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert list(cells) == ["dirichlet", "doubly stochastic", "other data", "one layer", "minimal model"]
    assert [len(cell.seeds) for cell in cells.values()] == [8, 8, 8, 4, 4]
    assert [name for name, cell in cells.items() if cell.swappable] == ["dirichlet", "doubly stochastic", "other data"]
    starts = [Lab(None).population(cells[name]).theta for name in ("dirichlet", "doubly stochastic", "other data")]
    assert all(torch.equal(theta, starts[0]) for theta in starts)
    device = torch.device("cpu")
    first, other = (
        cells["other data"].stream(0, [0, 1], device).inputs,
        measuring.training.Online(cells["dirichlet"].task, 64, [0, 1])(0, [0, 1], device).inputs,
    )
    assert not torch.equal(first, other)
    model = cells["dirichlet"].model(cells["dirichlet"].task)
    assert not [name for name, _ in model.named_parameters() if "mlp" in name or "bias" in name]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"d_model": 5}, "d_model=5 is not legal: it must be even"),
        ({"symbols": 6}, "symbols=6 is not legal"),
        ({"length": 4}, "length=4 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.induction_heads; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "induction-heads", "--preset", "smoke", "--out", str(folder)]) == 0
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert drawn == {"phases", "priors", "attention", "minimal-model", "second-order"}
    assert (folder / "verdicts.json").exists()

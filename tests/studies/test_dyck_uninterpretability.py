import dataclasses
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
from mesocosm.models import BracketAttention
from mesocosm.seeding import generator
from mesocosm.studies.dyck_uninterpretability import PRESETS, STUDY, Config, figures, plan, rules, run, turning_stream
from mesocosm.studies.dyck_uninterpretability.evaluation import answers, probe, violations
from mesocosm.tasks import BoundedDyck
from mesocosm.training import Population

TINY = Config(
    seeds=3, treated_seeds=2, other_seeds=2, transformer_seeds=2, length=8, max_depth=2, d_model=8, d_mlp=8,
    other_stds=(0.3,), steps=6, warmup=2, transformer_steps=4, batch_size=4, most_pairs=2, draws=3, strings=100,
)  # fmt: skip
SEEDS = range(30)


def made_up(
    right=1.0, unbalanced=0.6, apart=8.0, known=1.0, equal=1.0, late=0.1, branch=0.1, slope=-1.0, permuted=0.0,
    complete=0.05, lone=0.01, violation=-0.05, lone_violation=0.01, measured=True,
):  # fmt: skip
    """Records of 30 plain seeds, 10 with insertions and 5 draws; `slope` ties violation to accuracy at 2 N."""
    rows = []
    noise = dict(zip(SEEDS, np.random.default_rng(0).permutation(30) / 30))

    def add(cell, seed, **metrics):
        columns = {name: metrics.pop(name) for name in ("length", "other") if name in metrics}
        rows.extend({"cell": cell, "seed": seed, **columns, "metric": m, "value": v} for m, v in metrics.items())

    def model(cell, seed, gain, change):
        quality = seed / 30
        for times, value in ((1, known), (2, 0.9 + 0.05 * quality), (3, 0.7 + 0.05 * quality)):
            add(cell, seed, length=28 * times, accuracy=value + (gain + 0.001 * (seed % 2) if times > 1 else 0))
        if measured:
            v = 0.7 + change + (slope * quality + 0.1 * noise[seed]) / 100
            add(cell, seed, violation=v, **{"permuted violation": 0.7 + permuted * quality + noise[seed] / 100})

    for seed in SEEDS:
        model("plain", seed, 0, 0)
        if measured:
            add("plain", seed, **{"late change": late * (1 + 0.1 * (seed % 3)), "distance to the stack": 6})
        for other in SEEDS[seed + 1 :]:
            add("plain", seed, other=other, agreement=equal)
            if measured:
                add("plain", seed, other=other, variation=apart + 0.1 * noise[other], **{"initial variation": 3})
    for seed in SEEDS[:10]:
        model("complete insertions", seed, complete, violation)
        model("lone insertions", seed, lone, lone_violation)
        if measured:
            add("late branch", seed, **{"distance to plain": branch})
    for draw in range(5):
        add("construction", draw, **{"right answers": right, "unbalanced": unbalanced})
        for other in range(draw + 1, 5):
            add("construction", draw, other=other, variation=apart + 0.1 * draw)
    add("construction", 0, **{"one-hot variation": 25})
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


def verdict(claim, records):
    judgement = judged(claim, records)
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"right": 0.9999}),
        ("C1", {"apart": 5.0}),
        ("C2", {"apart": 0.2}),
        ("C2", {"equal": 0.95}),
        ("C3", {"slope": 1.0}),
        ("C4", {"complete": -0.01}),
        ("C4", {"violation": 0.01}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"unbalanced": 0.97}),
        ("C2", {"branch": 0.5}),
        ("C3", {"permuted": -0.1}),
        ("C4", {"lone": 0.06}),
        ("C4", {"lone_violation": -0.01}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C2", {"known": 0.96}, "0 of 30 models have accuracy above 0.97, and 3 are needed"),
        ("C2", {"measured": False}, "attention is compared only in models that give their attention patterns"),
        ("C3", {"known": 0.96}, "0 of 30 models have accuracy above 0.97, and 24 are needed"),
        ("C3", {"measured": False}, "balance is measured only in models of one attention layer"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judged(claim, made_up(**changes))
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_no_violation_leaves_the_gain_of_insertions_but_no_verdict():
    judgement = judged("C4", made_up(measured=False))
    assert judgement.verdict == "inconclusive"
    assert judgement.effect == pytest.approx(0.05)


def test_mean_of_pairs_leaves_out_pairs_of_one_seed():
    points = np.random.default_rng(1).normal(size=40)
    pairs = (points[:, None] - points) ** 2
    found = rules.mean_of_pairs(pairs)
    assert found.estimate == pytest.approx(2 * points.var(ddof=1))
    assert rules.mean_of_pairs(np.where(np.eye(40), 0, 3.0)).low == pytest.approx(3)
    less = rules.mean_of_pairs(pairs, less=pandas.Series(np.full(40, 0.5)))
    assert (less.low, less.estimate) == pytest.approx((found.low - 0.5, found.estimate - 0.5))


def test_answers_are_counted_as_one_by_one():
    task = BoundedDyck(length=24, max_depth=3)
    population = Population(lambda: BracketAttention.for_task(task, d_model=4, d_mlp=4), [0, 1])
    found = answers(task, 8, 100, population)
    batch = task.sample(100, generator("dyck", "strings", 0))
    right, asked, equal, last = torch.zeros(2, 24), torch.zeros(24), 0, 0
    with torch.no_grad():
        said = [population.replica(r)(batch.inputs).argmax(-1) for r in range(2)]
    for row in range(100):
        for t in range(24):
            if batch.match[row, t] >= 0 and batch.depth[row, t] > 0:
                asked[t] += 1
                for r in range(2):
                    right[r, t] += said[r][row, t] == batch.targets[row, t]
                if t < 8:
                    equal, last = equal + int(said[0][row, t] == said[1][row, t]), last + 1
    assert torch.equal(found["right"], right)
    assert torch.equal(found["asked"], asked)
    assert found["agreement"][0, 1].item() == pytest.approx(equal / last)
    assert found["agreement"].diag().tolist() == [1, 1]


def test_violations_tell_balanced_from_other_models():
    task = BoundedDyck(max_depth=2)
    population = Population(lambda: BracketAttention.for_task(task, d_model=16), [0, 1])
    weights = population.weights()
    half = weights["value.weight"].shape[-1] // 2
    for name, sign in (("key.weight", 1), ("value.weight", -1)):
        weights[name][0, :, half:] = sign * weights[name][0, :, :half]
    found = violations(task, population)
    assert found["violation"][0] < 1e-6
    assert found["violation"][1] > 0.4
    assert (found["permuted violation"] > 0.4).all()


def test_the_probe_is_the_papers_string():
    task = BoundedDyck()
    assert torch.equal(probe(task).inputs, task.parse("[[[[]]]](((())))").inputs)


def test_a_late_branch_sees_other_data_only_late():
    task = BoundedDyck(length=8)
    stream = turning_stream(task, 4, [0, 1], turn=3)
    usual = turning_stream(task, 4, [0, 1], turn=100)
    same = [torch.equal(stream(t, [0, 1], "cpu").inputs, usual(t, [0, 1], "cpu").inputs) for t in range(6)]
    assert same == [True] * 3 + [False] * 3


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small = records_of(TINY)
    large = records_of(dataclasses.replace(TINY, seeds=5, treated_seeds=4))
    for cell, seeds in (("plain", 3), ("complete insertions", 2), ("lone insertions", 2), ("late branch", 2)):
        tables = [
            table[(table["cell"] == cell) & (table["seed"] < seeds) & ~(table["other"] >= seeds)].reset_index(drop=True)
            for table in (small, large)
        ]
        pandas.testing.assert_frame_equal(*tables, rtol=0, atol=1e-5)


class Counts(nn.Module):
    """An architecture without attention patterns."""

    def __init__(self, task):
        super().__init__()
        self.embed = nn.Embedding(len(task.tokens), 8)
        self.unembed = nn.Linear(8, task.n_types)

    def forward(self, tokens):
        return self.unembed(self.embed(tokens).cumsum(1))


class Recurrent(Counts):
    """An architecture that is not mapped."""

    def __init__(self, task):
        super().__init__(task)
        self.cells = nn.GRU(8, 8, batch_first=True)

    def forward(self, tokens):
        return self.unembed(self.cells(self.embed(tokens))[0])


@pytest.mark.parametrize("architecture", [Counts, Recurrent])
def test_another_architecture_runs_and_what_is_inside_is_then_inconclusive(architecture):
    records = records_of(TINY, architecture=architecture)
    assert "violation" not in set(records[records["cell"] == "plain"]["metric"])
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims[1:3]} == {"inconclusive"}
    assert judge(STUDY.claims[3], records, {}).verdict != "supported"
    with style():
        assert [drawing.name for drawing in figures(records)][-3:] == ["lengths", "construction", "transformer-maps"]


def test_one_seed_is_judged_and_drawn():
    records = records_of(dataclasses.replace(TINY, seeds=1, transformer_seeds=1))
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims[1:]} == {"inconclusive"}
    with style():
        names = [drawing.name for drawing in figures(records)]
    assert names == ["attention-maps", "balance", "lengths", "construction", "transformer-maps"]


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert list(cells) == [
        "plain", "initial scale 0.5", "initial scale 0.3", "one initialization", "late branch", "complete insertions",
        "lone insertions", "transformer",
    ]  # fmt: skip
    plain = Lab(None).population(cells["plain"]).theta
    for name in ("late branch", "complete insertions", "lone insertions"):
        theta = Lab(None).population(cells[name]).theta
        assert torch.equal(theta, plain[: len(theta)])
    alike = Lab(None).population(cells["one initialization"]).theta
    assert torch.equal(alike, plain[:1].expand_as(alike))
    batches = [cells[name].task.sample(5, generator(0)).inputs for name in ("plain", "complete insertions")]
    assert torch.equal(*batches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"length": 30}, "length=30 is not legal: it must be a multiple of 4"),
        ({"transformer_steps": 10}, "warmup=50 is not legal"),
        ({"other_stds": (0.5, 1.0)}, r"other_stds=\(0.5, 1.0\) is not legal"),
        ({"other_stds": (0.5, 0.5)}, r"other_stds=\(0.5, 0.5\) is not legal"),
        ({"seeds": 0}, "seeds=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.dyck_uninterpretability; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "dyck-uninterpretability", "--preset", "smoke", "--out", str(folder)]) == 0
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert drawn == {"attention-maps", "balance", "lengths", "construction", "transformer-maps"}
    assert (folder / "verdicts.json").exists()

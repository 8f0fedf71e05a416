import dataclasses
import math
import subprocess
import sys

import pandas
import pytest
import torch

from mesocosm import measures, tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.salt import NOISE_WEIGHTS, PRESETS, STUDY, Config, arms, begun, plan, rules, run, taught
from mesocosm.studies.salt.evaluation import held_out, label_noise, losses_of, score, track_chain, track_text

TINY = Config(
    seeds=2, length=8, context=3, d_embed=3, width=8, teacher_width=6, weak_width=2, steps=6, teacher_steps=4, warmup=1,
    taught_steps=4, every=2, passages=4, chain_steps=3, chain_width=6, chain_teacher_width=4, label_draws=10, top_k=50,
)  # fmt: skip
STEPS = range(0, 1001, 100)
FIGURES = ["training", "compute", "regions", "teachers", "selection", "divergence"]


def made_up(
    salt=-0.03, rkd=0.02, weak=-0.01, frequencies=0.0, ahead=-0.1, quarters=(-0.1, -0.05, 0.0, 0.05), hardest=0.0,
    frequency_quarters=(0.1, 0.05, 0.0, -0.05), exact=-0.02, quality=(1.9, 2.2, 3.3), variance=1.0, bias=1.0, drawn=3.0,
    seeds=8,
):  # fmt: skip
    """Records of which the arguments are differences to the baseline: at the end, at first, by quarter at step 400."""
    rows = []

    def note(cell, seed, step, **metrics):
        regime, _, arm = cell.partition("/")
        settings = {"regime": regime, "arm": arm, "taught_steps": 400, "weight": 0.7, "temperature": 1.0}
        for metric, value in metrics.items():
            row = {"cell": cell, "seed": seed, "step": step, "metric": metric.replace("_", " "), "value": value}
            rows.append({**row, **settings})

    losses = dict(zip(rules.TEACHERS, quality))
    ends = {"baseline": 0.0, "salt": salt, "rkd": rkd, "salt weak": weak, "salt frequencies": frequencies}
    for seed in range(seeds):
        for regime in ("limited", "abundant"):
            for arm, end in {**ends, **({"salt selected": salt} if regime == "abundant" else {})}.items():
                jitter = 1e-4 * seed if arm == "salt" else 0.0
                at_first = 0.0 if arm == "baseline" else ahead
                taught_quarters = {"baseline": [0] * 4, "salt frequencies": frequency_quarters}.get(arm, quarters)
                for step in STEPS:
                    change = 0 if step == 0 else at_first if step < 600 else end + jitter
                    loss = 1.7 + 3.8 * math.exp(-step / 200) + 0.01 * seed + change
                    end_hardest = hardest if arm == "salt" else 0.0
                    parts = taught_quarters if step < 1000 else (0, 0, 0, end_hardest)
                    parts = {f"quarter {i + 1}": i + part + jitter for i, part in enumerate(parts)}
                    note(f"{regime}/{arm}", seed, step, **{"valid loss": loss, "flops": 1e9 * step, **parts})
                if arm in losses:
                    note(f"{regime}/{arm}", seed, 0, **{"teacher loss": losses[arm] + 0.01 * seed})
        note("limited/teacher", seed, 2000, flops=5e11)
        for arm in ("baseline", "salt", "rkd", "salt true laws", "rkd true laws"):
            excess = exact if arm == "rkd true laws" else 0.0
            metrics = {"excess loss": 0.3 + excess + 1e-3 * seed, "easy contexts": 0.4, "hard contexts": 0.2}
            note(f"chain/{arm}", seed, 800, **metrics)
        for part in range(10):
            note("chain/divergence", seed, 0, variation=0.1 * part, gain=0.1 - 0.01 * part)
            rows[-1]["part"] = rows[-2]["part"] = part
        for weight in NOISE_WEIGHTS:
            for metric, value in {"variance": variance, "bias": bias, "drawn": drawn}.items():
                note("label noise", seed, 0, **{metric: value + 1e-3 * (seed - 3.5)})
                rows[-1]["weight"] = weight
        note("abundant/scores", seed, 0, least_selected=1.5)
    for passage in range(40):
        note("abundant/scores", 0, 0, score=0.05 * passage)
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    judgement = judged(claim, made_up())
    assert (judgement.verdict, judgement.control["verdict"]) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"salt": 0.01}),
        ("C1", {"salt": -1e-3, "ahead": 0.1}),
        ("C2", {"rkd": -0.05}),
        ("C2", {"ahead": 0.05}),
        ("C3", {"quarters": (0.0, 0.0, -0.1, -0.1)}),
        ("C3", {"quarters": (0.05, 0.1, 0.1, 0.2)}),
        ("C3", {"hardest": 0.02}),
        ("C4", {"quality": (3.3, 2.2, 1.9)}),
        ("C4", {"salt": 0.02, "weak": 0.01}),
        ("C5", {"variance": 1.1}),
        ("C5", {"bias": 0.9}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert judged(claim, made_up(**changes)).verdict == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"frequencies": -0.03}),
        ("C2", {"exact": 0.02}),
        ("C3", {"frequency_quarters": (-0.1, 0.0, 0.0, 0.1)}),
        ("C5", {"drawn": 1.0}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    judgement = judged(claim, made_up(**changes))
    assert judgement.control["verdict"] == "present"
    assert judgement.verdict == "inconclusive"


def test_the_control_of_teachers_fires_where_arms_differ_before_training():
    records = made_up()
    before = (records["step"] == 0) & (records["metric"] == "valid loss") & (records["regime"] == "limited")
    for arm, change in (("salt", -0.2), ("salt weak", -0.1)):
        records.loc[before & (records["arm"] == arm), "value"] += change
    assert judged("C4", records).control["verdict"] == "present"


def test_one_seed_or_no_measurement_is_inconclusive():
    assert judged("C1", made_up(seeds=1)).verdict == "inconclusive"
    records = made_up()
    judgement = judged("C3", records[records["step"] != 400])
    assert (judgement.verdict, judgement.note) == (
        "inconclusive",
        "nothing was measured at step 400, where the soft labels end",
    )


def test_a_diverged_seed_does_not_count():
    records = made_up()
    gone = (records["cell"] == "limited/salt") & (records["seed"] == 3) & (records["step"] > 100)
    records.loc[gone & (records["metric"] == "valid loss"), "value"] = math.nan
    assert rules.ending(records, "salt").index.tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert rules.share_of_steps(records, "limited")[3] == math.inf


@pytest.mark.parametrize(
    ("target", "step"), [(3.5, 50), (2.0, 200), (1.8, 240), (1.5, 300), (5.0, 0), (4.0, 0), (1.4, 500), (1.0, math.inf)]
)
def test_crossings_are_interpolated(target, step):
    losses = pandas.Series([4.0, 3.0, 2.0, 1.5, 1.9, 1.4], index=[0, 100, 200, 300, 400, 500])
    assert rules.crossing(losses, target) == pytest.approx(step)


def test_shares_of_flops_follow_the_crossing():
    records = made_up()
    steps, flops = rules.share_of_steps(records, "limited"), rules.share_of_flops(records, "limited")
    assert flops.tolist() == pytest.approx(steps.tolist())
    assert steps.between(0.5, 0.9).all()


@pytest.fixture(scope="module")
def trained():
    """The cells of a tiny run, trained."""
    lab, populations = Lab(None), {}
    for cell in plan(TINY):
        if cell.name not in arms(TINY):
            populations[cell.name] = lab.train(cell).population
    return lab, populations


def test_quarters_are_parts_of_the_loss_by_the_teachers(trained):
    _, populations = trained
    teacher, other = populations["limited/teacher"], populations["abundant/teacher"]
    task = tasks.TextBytes(length=8)
    batch = held_out(task, 4, torch.device("cpu"))
    difficulty = losses_of(teacher, batch.inputs, batch.targets, 2)
    values = track_text(task, 4, difficulty, other, 0)
    for r in range(2):
        own = measures.token_losses(other.replica(r)(batch.inputs), batch.targets).flatten()
        order = difficulty[r].flatten().argsort()
        for i, part in enumerate(own[order].view(4, 8).mean(1).tolist()):
            assert values[f"quarter {i + 1}"][r].item() == pytest.approx(part, rel=1e-4)
        assert values["valid loss"][r].item() == pytest.approx(own.mean().item(), rel=1e-4)
    held = {int(p) // task.block_size for p in batch.position}
    assert held <= {int(s) // task.block_size for s in tasks.TextBytes(length=8, split="valid").block_starts}


def test_excess_losses_of_the_true_laws_are_zero():
    task = tasks.EasyHardMarkov(length=8)
    from mesocosm.models import NgramTable

    class Table(NgramTable):
        """With a weight, so that it can be a population."""

        def __init__(self):
            super().__init__(task.chain.laws.clamp_min(1e-30))
            self.shift = torch.nn.Parameter(torch.zeros(()))

        def forward(self, tokens):
            return super().forward(tokens) + self.shift

    values = track_chain(task, 6, training.Population(Table, [0, 1]), 0)
    assert all(value.abs().max() < 1e-5 for value in values.values())


def test_the_limited_regime_reads_the_same_few_passages_over_and_over():
    config = dataclasses.replace(TINY, limited_share=0.002, batch_size=4)
    cells = {cell.name: cell for cell in plan(config)}
    seen = {}
    for name in ("limited/teacher", "limited/salt"):
        stream = cells[name].stream
        batches = [stream(step, [0, 1], torch.device("cpu")).position for step in range(60)]
        seen[name] = [set(torch.cat([batch[r] for batch in batches]).tolist()) for r in range(2)]
    share = round(0.002 * len(tasks.TextBytes(length=8).whole().inputs))
    assert [len(places) for places in seen["limited/teacher"]] == [share, share]
    assert seen["limited/teacher"] == seen["limited/salt"]
    assert seen["limited/salt"][0] != seen["limited/salt"][1]


def test_stage_one_of_the_selected_arm_reads_the_best_scored_passages(trained):
    lab, populations = trained
    cell = next(cell for cell in plan(TINY) if cell.name == "abundant/salt selected")
    arm = arms(TINY)["abundant/salt selected"]
    stream = taught(TINY, lab, cell, arm, populations).stream
    whole = cell.task.whole()
    count = math.ceil(TINY.taught_steps * TINY.batch_size / TINY.selected_share)
    candidates = whole._make(field[torch.arange(count) * len(whole.inputs) // count] for field in whole)
    scorer = populations["abundant/early teacher"]
    scores = score(candidates, TINY.top_k, scorer)["scores"]
    for r in range(2):
        own = measures.challenging_yet_learnable(scorer.replica(r)(candidates.inputs), candidates.targets, TINY.top_k)
        torch.testing.assert_close(scores[r], own, atol=1e-4, rtol=1e-4)
        least = scores[r].sort(descending=True).values[round(0.3 * count) - 1]
        read = torch.cat([stream(step, [r], torch.device("cpu")).position[0] for step in range(TINY.taught_steps)])
        score_at = dict(zip(candidates.position.tolist(), scores[r]))
        assert min(score_at[place] for place in read.tolist()) >= least
    ordinary = training.Online(cell.task, cell.batch_size, cell.seeds)
    for step in range(TINY.taught_steps, TINY.steps):
        after = stream(step, [0, 1], torch.device("cpu"))
        assert torch.equal(after.position, ordinary(step, [0, 1], torch.device("cpu")).position)
        assert after.soft_weight.tolist() == [0, 0]


def test_a_stream_begins_with_another():
    stream = begun(2, lambda step, index, device: ("first", step), lambda step, index, device: ("then", step))
    assert [stream(step, [0], None) for step in range(4)] == [("first", 0), ("first", 1), ("then", 2), ("then", 3)]


def test_label_noise_is_that_of_the_identities(trained):
    _, populations = trained
    task = tasks.EasyHardMarkov(length=8)
    teacher = populations["chain/teacher"]
    found = label_noise(task, 6000, (0.5,), [0, 1], teacher)
    assert found["variance"].flatten().tolist() == pytest.approx([1, 1], abs=0.06)
    assert found["bias"].flatten().tolist() == pytest.approx([1, 1], abs=0.06)
    assert (found["drawn"] > 2).all()
    string = task.sample(1, generator("salt", "label noise", 1))
    law = teacher.replica(1)(string.inputs).softmax(-1)
    distance = (law - string.probabilities).abs().sum(-1)[0, 1:].mean().item()
    assert found["distance"][1].item() == pytest.approx(distance, rel=1e-4)


def test_arms_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    students = [name for name in arms(PRESETS["small"]) if not name.startswith("chain/")]
    assert all(cells[name].swappable for name in arms(PRESETS["small"]))
    assert not any(cell.swappable for name, cell in cells.items() if name.endswith("teacher"))
    initial = [Lab(None).population(cells[name]).theta for name in students]
    assert {len(theta) for theta in initial} == {3, 8}
    assert all(torch.equal(theta[:3], initial[0][:3]) for theta in initial)
    config = PRESETS["small"]
    assert arms(config)["limited/rkd"].until == config.steps
    assert dataclasses.replace(arms(config)["limited/rkd"], until=config.taught_steps) == arms(config)["limited/salt"]


def test_a_grid_adds_arms():
    config = dataclasses.replace(TINY, weights=(0.5, 1.0), temperatures=(1.0, 2.0))
    extra = {name: arm for name, arm in arms(config).items() if name not in arms(TINY)}
    assert sorted((arm.weight, arm.temperature) for arm in extra.values()) == [(0.5, 2.0), (1.0, 1.0), (1.0, 2.0)]


def test_paper_preset_is_of_the_given_sizes():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    sizes = []
    for name in ("limited/salt", "limited/teacher"):
        with torch.device("meta"):
            sizes.append(sum(p.numel() for p in cells[name].model(cells[name].task).parameters()))
    assert sizes == pytest.approx([354e6, 119e6], rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"taught_steps": 450},
            "taught_steps=450 is not legal: it must be a multiple of every=100, at most steps=1000",
        ),
        ({"taught_steps": 1100}, "taught_steps=1100 is not legal"),
        ({"weights": (0.5, 0.5)}, r"weights=\(0.5, 0.5\) is not legal: a value stands twice"),
        ({"weights": (1.0,), "transition": "linear-ratio"}, "must be below 1 for transition='linear-ratio'"),
        ({"architecture": "transformer", "width": 200}, "width=200 is not legal: a decoder has an even width"),
        ({"limited_share": 0.0}, "batch_size=2 is not legal: at most the 1 training samples"),
        ({"text": "/nowhere"}, "path='/nowhere' is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.salt; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_figure_is_drawn_from_records():
    from mesocosm.studies.salt.figures import figures

    with style():
        assert [drawing.name for drawing in figures(made_up())] == FIGURES


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["ngram", "transformer"])
def test_a_tiny_run_is_judged_and_drawn(architecture):
    lab = Lab(None)
    run(dataclasses.replace(TINY, architecture=architecture, temperatures=(1.0, 2.0), weights=(0.5, 0.2)), lab)
    records = lab.records()
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {
        "supported",
        "not supported",
        "inconclusive",
    }
    from mesocosm.studies.salt.figures import figures

    with style():
        assert [drawing.name for drawing in figures(records)] == [*FIGURES, "grid"]


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "salt", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == {*FIGURES, "grid"}
    assert (folder / "verdicts.json").exists()

import dataclasses
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch

from mesocosm import tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.measures import block_similarity
from mesocosm.models import Transformer
from mesocosm.seeding import generator
from mesocosm.studies.stacking_midas import (
    PRESETS,
    STUDY,
    Config,
    copies,
    cost_of_growth,
    evaluation,
    figures,
    growths,
    mixture,
    plan,
    rules,
    run,
)
from mesocosm.training import Population

TINY = Config(
    seeds=2, looped_seeds=1, d_model=8, n_heads=2, steps=20, warmup=4, every=5, batch_size=8, rows=8, tracked_rows=4,
    examples=(8, 16), fine_tuning_steps=2,
)  # fmt: skip
STEPS = [100, 200, 300, 400, 500]
DRAWN = ["order", "training", "equal-loss", "final", "fine-tuning", "similarity"]


def made_up(
    midas=-0.05, gradstack=-0.02, random=0.02, cost=1.0, reasoning=0.2, facts=0.0, tuned=(0.1, 0.05), middle=0.7,
    lopsided=0.5, copied=1.0, fresh=0.02, blocks=4, loss_shift=0.0, deep="accuracy, depth 1",
):  # fmt: skip
    """Records of 5 seeds: losses, excess accuracies at equal loss, gains of fine-tuning, similarities."""
    rows = []

    def add(cell, seed, metric, value, **columns):
        rows.append({"cell": cell, "seed": seed, "step": 500, "metric": metric, "value": value, **columns})

    def similar(cell, seed, inner, last):
        for i in range(blocks):
            for j in range(blocks):
                value = 1.0 if i == j else last if {i, j} == {blocks - 2, blocks - 1} else 0.1
                add(cell, seed, "similarity", inner if {i, j} == {1, 2} else value, block=i, other=j)

    for seed in range(5):
        wobble = 0.002 * seed
        losses = {"baseline": 1.0, "midas": 1 + midas, "gradstack": 1 + gradstack, "random": 1 + random}
        for cell, loss in losses.items():
            add(cell, seed, "validation loss", loss + wobble * (cell == "midas"), sample="test")
            add(cell, seed, "filler loss", 1.5 * loss, sample="test")
        for i, step in enumerate(STEPS):
            loss = 2.5 - 0.2 * i
            for cell, excess, fact in (("baseline", 0, 0), ("midas", reasoning, facts)):
                own = loss - loss_shift * (cell == "midas")
                values = {
                    "filler loss": own,
                    deep: 0.8 - 0.2 * (loss - 1.5) + excess + wobble * (cell == "midas"),
                    "accuracy, depth 0": 1.0,
                    "accuracy, facts": 0.9 - 0.2 * (loss - 1.5) + fact,
                    "flops": step * (cost if cell == "baseline" else 1),
                }
                if cell == "midas":
                    values["layers"] = 2.0 if i < 2 else 4.0
                for metric, value in values.items():
                    add(cell, seed, metric, value)
                    rows[-1]["step"] = step
        for cell, inner, last in (("baseline", 0.1, 0.1), ("midas", 0.1 + middle, 0.1), ("gradstack", 0.1, lopsided)):
            similar(cell, seed, inner + wobble, last)
        add("midas", seed, "similarity of a copy block", copied)
        add("midas", seed, "similarity of a fresh block", fresh + wobble)
        for arm, gain in (("baseline", (0, 0)), ("midas", tuned)):
            for examples, more in zip((32, 128), gain):
                columns = {"arm": arm, "examples": examples}
                for step, value in ((0, 0.3), (60, 0.5 + more + wobble * (arm == "midas"))):
                    add(f"fine-tuned {arm}, {examples} examples", seed, "accuracy, depth 2", value, **columns)
                    rows[-1]["step"] = step
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    judgement = judged(claim, made_up())
    assert judgement.verdict == "supported"
    assert judgement.control is None or judgement.control["verdict"] == "absent"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"midas": 0.1}),
        ("C1", {"gradstack": -0.2}),
        ("C2", {"reasoning": 0.0}),
        ("C2", {"reasoning": -0.2}),
        ("C3", {"tuned": (-0.1, 0.2)}),
        ("C4", {"middle": 0.05}),
        ("C4", {"lopsided": 0.0}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert judged(claim, made_up(**changes)).verdict == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [("C1", {"random": -0.2}), ("C2", {"facts": 0.2}), ("C4", {"copied": 0.99}), ("C4", {"fresh": 0.4})],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    judgement = judged(claim, made_up(**changes))
    assert judgement.control["verdict"] == "present"
    assert judgement.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C1", {"cost": 1.3}, "the baseline took 1.30 times MIDAS's operations: not an equal cost"),
        ("C2", {"loss_shift": 2.0}, "in 0 seeds both have had the same filler loss"),
        ("C2", {"deep": "accuracy, nothing"}, "no assignment has a depth of at least 1"),
        ("C4", {"blocks": 3}, "3 blocks have no two in the middle"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judged(claim, made_up(**changes))
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_accuracies_are_compared_at_equal_loss_and_full_depth_only():
    records = made_up(loss_shift=0.2)
    early = (records["cell"] == "midas") & (records["metric"] == "accuracy, depth 1") & (records["step"] <= 200)
    records.loc[early, "value"] = 0.0
    excess = rules.at_equal_loss(records, *(rules.reasoning(records, cell) for cell in ("midas", "baseline")))
    # One step ahead in loss, MIDAS has lost 0.04 of its excess of 0.2; its last loss the baseline never had.
    np.testing.assert_allclose(excess, 0.16 + 0.002 * np.arange(5), atol=1e-12)


def test_operations_to_learn_depth_1_are_infinite_where_it_is_not_learned():
    records = made_up(reasoning=0.0)
    assert rules.cost_of_depth_1(records, "baseline").tolist() == [400.0] * 5
    assert np.isinf(rules.cost_of_depth_1(made_up(reasoning=-0.5), "midas")).all()


def records_of(config, **options):
    lab = Lab(None, **options)
    run(config, lab)
    return lab.records()


@pytest.fixture(scope="module")
def tiny():
    return records_of(TINY)


def test_counted_operations_are_those_of_the_closed_form(tiny):
    assert training.proportional_stages(TINY.steps, 4) == [2, 6, 12]
    midas, baseline = (rules.curve(tiny, cell, "flops") for cell in ("midas", "baseline"))
    assert midas[0].tolist() == midas[1].tolist()
    a_step = midas.loc[20, 0] - midas.loc[15, 0]
    assert baseline.loc[5, 0] == pytest.approx(a_step)
    assert midas.loc[20, 0] == pytest.approx(cost_of_growth(TINY) * TINY.steps * a_step / TINY.every, rel=1e-3)
    assert baseline.iloc[-1, 0] == pytest.approx(baseline.index[-1] * a_step / TINY.every)
    assert baseline.index[-1] == round(cost_of_growth(TINY) * TINY.steps)


def test_what_grows_has_its_blocks_at_each_stage(tiny):
    assert rules.curve(tiny, "midas", "layers")[0].to_dict() == {0: 1, 5: 2, 10: 3, 15: 4, 20: 4}


def test_a_tiny_run_is_judged_and_drawn(tiny):
    assert {judge(claim, tiny, {}).verdict for claim in STUDY.claims} <= {"supported", "not supported", "inconclusive"}
    assert judged("C4", tiny).control["checks"][0]["verdict"] == "supported"
    with style():
        assert [drawing.name for drawing in figures(tiny)] == DRAWN


def test_networks_start_and_learn_in_pairs():
    cells = {cell.name: cell for cell in plan(dataclasses.replace(TINY, more_arms=True))}
    tuned = [f"fine-tuned {arm}, {count} examples" for arm in ("baseline", "midas") for count in (8, 16)]
    trained = ["baseline", "midas", "gradstack", "random", "looped", "full baseline", "silent"]
    assert list(cells) == trained + tuned
    assert [name for name, cell in cells.items() if cell.swappable] == ["baseline", "full baseline"]
    initial = {name: Lab(None).population(cells[name]).theta for name in trained}
    assert torch.equal(initial["midas"], initial["gradstack"])
    assert torch.equal(initial["baseline"], initial["full baseline"])
    first, second = (cells[name].stream(1, [0, 1], torch.device("cpu")) for name in tuned[::2])
    assert torch.equal(first.inputs, second.inputs)
    assert not torch.equal(first.inputs[0], first.inputs[1])


def test_growths_copy_or_put_fresh_or_silent_blocks_in_the_same_places():
    small = Transformer.for_task(mixture(TINY), d_model=8, n_heads=2, n_layers=3)
    for options, place, kind in (
        ({"rule": training.copy_middle}, 2, "copy"),
        ({"rule": training.copy_last}, 3, "copy"),
        ({"rule": training.copy_middle, "fresh": True}, 2, "fresh"),
        ({"rule": training.copy_middle, "fresh": True, "silent": True}, 2, "silent"),
    ):
        growth = growths(TINY, **options)[-1]
        assert growth.step == 12
        small.embed = (large := growth.make_model()).embed
        training.grow_module(small, large, growth.source)
        before, new = large.blocks[place - 1].mlp.fc_out.weight, large.blocks[place].mlp.fc_out.weight
        assert torch.equal(before, new) == (kind == "copy")
        assert bool((new == 0).all()) == (kind == "silent")


def test_knowledge_is_counted_as_by_hand():
    task = mixture(dataclasses.replace(TINY, shares=(5.0, 2.0, 1.0, 1.0)))
    sets = evaluation.held_out(task, 20, torch.device("cpu"))
    assert list(sets) == ["depth 0", "depth 1", "depth 2", "facts", "copying", "filler"]
    assert [set(batch.source.tolist()) for batch in sets.values()] == [{0}, {0}, {0}, {1}, {2}, {3}]
    assert all(sets[f"depth {depth}"].depth.eq(depth).all() for depth in range(3))
    table = torch.randn(len(task.tokens), len(task.tokens), generator=generator("test"))
    model = torch.nn.Embedding.from_pretrained(table)
    found = evaluation.knowledge(model, sets)
    for name, batch in sets.items():
        right, loss, count = 0, 0.0, 0
        for row, position in batch.weights.nonzero().tolist():
            logits, target = table[batch.inputs[row, position]], batch.targets[row, position]
            right, count = right + int(logits.argmax() == target), count + 1
            loss -= logits.log_softmax(0)[target].item()
        if name == "filler":
            assert found["filler loss"].item() == pytest.approx(loss / count, rel=1e-4)
        else:
            assert found[f"accuracy, {name}"].item() == pytest.approx(right / count, abs=1e-6)


def test_a_depth_score_is_what_a_network_loses_without_its_second_half():
    task = mixture(TINY)
    population = Population(lambda: Transformer.for_task(task, d_model=8, n_heads=2, n_layers=4), [0, 1])
    found = evaluation.evaluate(TINY, task, population)
    model = population.replica(1)
    model.blocks = model.blocks[:2]
    sets = evaluation.held_out(task, TINY.rows, torch.device("cpu"))
    shallow = evaluation.knowledge(model, sets)
    for name, value in shallow.items():
        assert found[f"depth score, {name}"][1].item() == pytest.approx((found[name][1] - value).item(), abs=1e-5)


def test_blocks_of_two_layers_are_as_alike_as_their_layers_in_turn():
    config = dataclasses.replace(TINY, stages=2, block_layers=2)
    task = mixture(config)
    population = Population(lambda: Transformer.for_task(task, d_model=8, n_heads=2, n_layers=4), [0])
    found = evaluation.similarities(config, task, population)
    inputs = task.sample(config.rows, generator("stacking-midas", "similarity")).inputs
    counted = (inputs != task.tokens.index(".")).float()
    model = population.replica(0)
    layers = block_similarity(model, inputs, model.blocks, counted)
    assert found["0 1"].item() == pytest.approx(((layers[0, 2] + layers[1, 3]) / 2).item(), abs=1e-6)
    assert found["1 1"].item() == pytest.approx(1, abs=1e-6)


def test_examples_of_a_seed_do_not_depend_on_the_others():
    task = mixture(TINY)
    alone, data, subsets = evaluation.examples(TINY, task, 5, range(3))
    assert (alone.depths, alone.tokens) == ((2,), task.tokens)
    assert data.depth.eq(2).all() and data.inputs.shape[0] == 15
    _, single, _ = evaluation.examples(TINY, task, 5, [1])
    assert torch.equal(data.inputs[subsets[1]], single.inputs)


def test_fine_tuning_starts_from_copies_of_the_trained_networks():
    task = mixture(TINY)
    population = Population(lambda: Transformer.for_task(task, d_model=8, n_heads=2, n_layers=1), [3, 4])
    make = copies(population)
    for _ in range(2):
        again = Population(lambda: make(task), [0, 1])
        assert torch.equal(again.theta, population.theta)


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one(tiny):
    large = records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(tiny, expected, rtol=1e-4, atol=1e-5)


def test_paper_preset_is_of_the_papers_size():
    cell = next(iter(plan(PRESETS["paper"])))
    with torch.device("meta"):
        model = Transformer(d_vocab=2, max_length=16, d_model=2048, n_heads=32, n_layers=24)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(1.2e9, rel=0.02)
    assert (cell.steps, PRESETS["paper"].n_layers) == (round(cost_of_growth(PRESETS["paper"]) * 400_000), 24)
    assert isinstance(cell.task, tasks.ReasoningMixture)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: it must divide d_model=64"),
        ({"shares": (1.0, 0.0, 0.0, 1.0)}, "is not legal: it must hold 4 numbers"),
        ({"stages": 3}, "stages=3 is not legal: there must be an even number of layers"),
        ({"warmup": 500}, "warmup=500 is not legal: it must be at most half of steps=800"),
        ({"steps": 8, "warmup": 0}, "steps=8 is not legal: the first of stages=4 would have no step"),
        ({"examples": (8, 8)}, "the values must differ"),
        ({"depths": (4,)}, "depths=.* is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.stacking_midas; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "stacking-midas", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()

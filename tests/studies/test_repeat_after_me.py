import dataclasses
import math
import subprocess
import sys

import pandas
import pytest
import torch
from torch import nn

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies import repeat_after_me
from mesocosm.studies.repeat_after_me import PRESETS, STUDY, Config, evaluation, figures, plan, rules, run
from mesocosm.studies.repeat_after_me.evaluation import evaluate, held_out
from mesocosm.tasks import NGramLookup, StringCopy

TINY = Config(
    seeds=2, other_seeds=1, letters=4, min_length=3, short_length=4, lookup_length=4, max_length=6, n=2, answer=1,
    duplicated=(1, 2), d_model=8, n_heads=2, ssm_width=8, d_state=2, d_states=(1,), lstm_width=4, steps=4,
    recurrent_steps=4, short_steps=4, short_recurrent_steps=4, suffix_steps=4, lookup_steps=4, warmup=1,
    batch_size=4, lookup_batch_size=4, every=2, tracked=4, strings=6,
)  # fmt: skip
NOISE = [0.0, 0.01, -0.01, 0.02]


def made_up(
    copying=(4000, 12000), reached=(1, 0), prefix=(6000, 6000), once=(0.99, 0.98), twice=(0.95, 0.4),
    states=(0.5, 0.6), machine=0.0, suffix=(0.8, 0.3), before=(0.3, 0.6), copied=0.9, single=0.88, longest=0.3,
    ssm_longest=0.0, duplicated=(1, 5), seeds=4,
):  # fmt: skip
    """Records of a run; pairs are of the transformer and of the state space model."""
    rows = []

    def add(cell, metric, value, **columns):
        for seed in range(seeds):
            moved = value * (1 + NOISE[seed]) if metric == "examples" else value + NOISE[seed]
            value_of = value if metric == "reached" else moved
            rows.append({"cell": cell, "metric": metric, "seed": seed, "value": value_of, **columns})

    def test(cell, metric, *shares, **columns):
        for length, share in zip((8, 12, 16, 32, 64), shares):
            add(cell, metric, share, length=length, **{"duplicated": 0, **columns})

    for i, model in enumerate(("hard-alibi", "ssm")):
        add(f"copy/{model}", "examples", copying[i])
        add(f"copy/{model}", "reached", reached[i])
        add(f"prefix/{model}", "examples", prefix[i])
        add(f"prefix/{model}", "reached", 1)
        for metric in ("string accuracy", "character accuracy"):
            test(f"short/{model}", metric, once[i], 0.9, twice[i], 0.3, 0.2)
        test(f"suffix/{model}", "string accuracy", 0.9, 0.8, suffix[i], 0.2, 0.1)
        test(f"prefix/{model}", "string accuracy", 0.9, 0.8, before[i], 0.2, 0.1)
    add("copy/lstm", "examples", 9000)
    add("copy/lstm", "reached", 1)
    for model in ("alibi", "none", "rotary", "lstm"):
        test(f"short/{model}", "character accuracy", 0.9, 0.8, 0.7, 0.5, 0.2)
    for cell, d_state, share in zip(("state/1", "state/4", "short/ssm"), (1, 4, 16), (*states, 0.9)):
        add(cell, "characters", share, d_state=d_state, step=400)
    add("short/ssm", "characters", 0.0, d_state=16, step=500)
    test("copy/hard-alibi", "string accuracy", copied, 0.5, 0.1, 0, 0)
    test("copy/ssm", "string accuracy", 0.05, 0, 0, 0, 0)
    for n, share, other in zip(duplicated, (single, longest), (0.05, ssm_longest)):
        test("copy/hard-alibi", "string accuracy", share, duplicated=n)
        test("copy/ssm", "string accuracy", other, duplicated=n)
    for kept in range(7):
        bound = 4.0 ** (kept - 6)
        values = {"states": 4**kept, "bound": bound, "accuracy": bound + machine * (kept == 3)}
        rows += [{"cell": "copier", "seed": 0, "kept": kept, "metric": m, "value": v} for m, v in values.items()]
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


def verdict(claim, records):
    judgement = judged(claim, records)
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C5"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"copying": (4000, 3000), "reached": (1, 1)}),
        ("C2", {"twice": (0.95, 0.8)}),
        ("C3", {"states": (1.1, 1.0)}),
        ("C3", {"machine": 1e-6}),
        ("C4", {"suffix": (0.4, 0.6)}),
        ("C5", {"longest": 0.85}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"prefix": (6000, 9000)}),
        ("C2", {"once": (0.99, 0.8)}),
        ("C2", {"once": (0.8, 0.99)}),
        ("C3", {"copied": 0.1}),
        ("C4", {"before": (0.6, 0.3)}),
        ("C5", {"single": 0.6}),
        ("C5", {"ssm_longest": -0.3}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C1", {"reached": (0, 1)}, "0 of 4 transformers get there, and half of them are needed"),
        ("C2", {"seeds": 1}, "1 seed(s) have both numbers, and 2 are needed"),
        ("C4", {"seeds": 1}, "1 seed(s) have both numbers, and 2 are needed"),
        ("C5", {"duplicated": (3,)}, "n-grams of one length are duplicated, and 2 lengths are needed"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judged(claim, made_up(**changes))
    assert (judgement.verdict, judgement.note) == ("inconclusive", why)


def test_a_seed_whose_transformer_does_not_learn_gives_no_advantage():
    records = made_up(copying=(4000, 12000))
    failed = (records["cell"] == "copy/hard-alibi") & (records["metric"] == "reached") & (records["seed"] == 2)
    records.loc[failed, "value"] = 0
    gap = rules.gap(records, "copy", "ssm")
    assert gap.tolist() == pytest.approx([math.log(3), math.log(3), 0, math.log(3)])


def test_sizes_of_the_state_are_compared_after_as_many_steps():
    rows = []
    for cell, d_state, curve in (("state/2", 2, {0: 0.1, 10: 0.3}), ("short/ssm", 4, {0: 0.1, 10: 0.6, 20: 0.9})):
        rows += [(cell, d_state, seed, step, share) for step, share in curve.items() for seed in (0, 1)]
    records = pandas.DataFrame(rows, columns=["cell", "d_state", "seed", "step", "value"]).assign(metric="characters")
    # Seed 1 of the larger state has stopped before.
    stopped = (records["cell"] == "short/ssm") & (records["seed"] == 1) & (records["step"] > 0)
    table = rules.by_state(records[~stopped])
    assert table.to_dict("list") == {2: [0.3, 0.3], 4: [0.6, 0.1]}


def test_held_out_strings_are_fixed_sliced_and_weigh_only_letters(monkeypatch):
    task = StringCopy(letters=4, min_length=5, max_length=5)
    whole = held_out(task, "test", 10, torch.device("cpu"))
    assert len(whole) == 1
    assert (whole[0].weights.sum(1) == 5).all()
    assert torch.equal(whole[0].inputs, held_out(task, "test", 10, torch.device("cpu"))[0].inputs)
    assert not torch.equal(whole[0].inputs, held_out(task, "tracking", 10, torch.device("cpu"))[0].inputs)
    monkeypatch.setattr(evaluation, "SLICE", 50)
    sliced = held_out(task, "test", 10, torch.device("cpu"))
    assert [len(batch.inputs) for batch in sliced] == [4, 4, 4]


class Oracle(nn.Module):
    """Copies what stands 1 + L tokens before, and so is right at one length only."""

    def __init__(self, task, length=6):
        super().__init__()
        self.length, self.size = length, len(task.tokens)
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, tokens):
        shifted = nn.functional.pad(tokens, (self.length, 0))[:, : tokens.shape[1]]
        return nn.functional.one_hot(shifted, self.size).float() + 0 * self.weight.sum()


def test_evaluation_tells_lengths_apart():
    cell = next(iter(plan(TINY)))
    population = Lab(None, architecture=Oracle).population(cell)
    found = evaluate(TINY, cell, population)
    assert found["shares"].shape == (2, 2, 5 + 2)
    assert found["parameters"].tolist() == [3, 3]
    assert found["memory"].isnan().all()
    strings, characters = found["shares"][0]
    # Lengths 6, 9, 12, 24 and 48, then duplicates at length 6.
    assert strings[[0, 5, 6]].tolist() == characters[[0, 5, 6]].tolist() == [1, 1, 1]
    assert strings[1:5].max() < 1


def test_memory_is_what_the_model_carries():
    cells = {cell.name: cell for cell in plan(TINY)}
    memory = {name: memory_of(cell) for name, cell in cells.items() if name.startswith("copy/")}
    tokens = 2 * TINY.max_length + 2
    assert memory["copy/hard-alibi"] == 2 * TINY.n_layers * TINY.d_model * tokens
    assert memory["copy/ssm"] == TINY.n_layers * 2 * TINY.ssm_width * (TINY.d_state + 3)
    assert memory["copy/lstm"] == 2 * TINY.n_layers * TINY.lstm_width


def memory_of(cell):
    return evaluation.memory_of(cell.model(cell.task), cell.task, torch.device("cpu"))


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=0, atol=1e-6)


class Unrelated(nn.Module):
    """Offers nothing but `forward`."""

    def __init__(self, task):
        super().__init__()
        self.embed = nn.Embedding(len(task.tokens), 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.unembed = nn.Linear(8, len(task.tokens))

    def forward(self, tokens):
        return self.unembed(self.gru(self.embed(tokens))[0])


@pytest.mark.slow
def test_another_architecture_takes_the_place_of_the_hard_alibi_transformer():
    records = records_of(TINY, architecture=Unrelated)
    memory = records[records["metric"] == "memory"].groupby("cell").size()
    assert {"copy/hard-alibi", "short/hard-alibi", "suffix/hard-alibi", "prefix/hard-alibi"}.isdisjoint(memory.index)
    parameters = records[records["metric"] == "parameters"].groupby("cell")["value"].first()
    assert parameters["copy/hard-alibi"] == sum(p.numel() for p in Unrelated(next(iter(plan(TINY))).task).parameters())
    assert all(judge(claim, records, {}).verdict for claim in STUDY.claims)


@pytest.mark.slow
def test_one_seed_is_judged_inconclusive_and_drawn():
    records = records_of(dataclasses.replace(TINY, seeds=1, duplicated=(2,)))
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} == {"inconclusive"}
    with style():
        assert [d.name for d in figures(records)] == ["examples", "lengths", "look-up", "duplicates", "state"]


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(dataclasses.replace(TINY, short_recurrent_steps=9))}
    assert {name: cells[name].steps for name in ("short/ssm", "state/1", "short/lstm", "short/rotary")} == {
        "short/ssm": 9, "state/1": 4, "short/lstm": 9, "short/rotary": 4,
    }  # fmt: skip
    assert cells["state/1"].schedule(3) == cells["short/ssm"].schedule(3)
    assert len(cells) == 3 + 6 + 1 + 4
    assert {name for name, cell in cells.items() if cell.swappable} == {
        f"{kind}/hard-alibi" for kind in ("copy", "short", "suffix", "prefix")
    }
    assert cells["suffix/ssm"].task == dataclasses.replace(cells["prefix/ssm"].task, key="suffix")
    assert isinstance(cells["suffix/ssm"].task, NGramLookup)
    initial = [Lab(None).population(cells[f"short/{code}"]).theta[0] for code in repeat_after_me.POSITIONS]
    assert all(torch.equal(theta, initial[0]) for theta in initial)
    sizes = {
        name: cell.model(cell.task).blocks[0].sizes[1] for name, cell in cells.items() if "d_state" in cell.settings
    }
    assert sizes == {"short/ssm": 2, "state/1": 1} == {name: cells[name].settings["d_state"] for name in sizes}


def test_paper_preset_is_of_the_papers_size():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    with torch.device("meta"):
        counts = {
            model: sum(p.numel() for p in cells[f"copy/{model}"].model(cells[f"copy/{model}"].task).parameters())
            for model in ("hard-alibi", "lstm")
        }
    assert counts["hard-alibi"] == pytest.approx(155e6, rel=0.05)
    assert counts["lstm"] == pytest.approx(40e6, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: d_model=64 must be an even multiple"),
        ({"short_length": 17}, "short_length=17 is not legal: it must be from min_length=4 to max_length=12"),
        ({"duplicated": (1, 9)}, r"duplicated=\(1, 9\) is not legal: each must fit into max_length=12 twice"),
        ({"duplicated": (1, 1)}, r"duplicated=\(1, 1\) is not legal: a value stands twice"),
        ({"d_states": (4, 16)}, r"d_states=\(4, 16\) is not legal: a value stands twice, or is d_state"),
        ({"ssm_width": 12}, "ssm_width=12 is not legal: it must be a multiple of 8"),
        ({"lookup_steps": 10}, "warmup=20 is not legal"),
        ({"short_recurrent_steps": 300}, "short_steps=600 is not legal: it must be at most short_recurrent_steps=300"),
        ({"n": 3, "answer": 3}, "n=3 is not legal: with the answer of 3 it must fit into min_length=4"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.repeat_after_me; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "repeat-after-me", "--preset", "smoke", "--out", str(folder)]) == 0
    drawn = {path.stem for path in (folder / "figures").glob("*.png")}
    assert drawn == {"examples", "lengths", "look-up", "duplicates", "state"}

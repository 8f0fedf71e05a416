import dataclasses
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
from mesocosm.studies import flip_flop
from mesocosm.studies.flip_flop import HAND_MADE, PRESETS, STUDY, Config, figures, plan, rules, run

TINY = Config(
    seeds=3, treated_seeds=2, length=8, d_model=8, n_heads=2, steps=6, warmup=2, lstm_width=4, lstm_steps=4,
    batch_size=4, reads=40, tracked_reads=20,
)  # fmt: skip
READS = 4000
PLAIN = [40, 80, 160, 320, 40, 80, 160, 320]
"""Wrong reads on the dense tail, by seed."""


def made_up(
    plain=PLAIN, in_distribution=0, fresh_in_distribution=0, fresh=PLAIN, lstm=0, mixture=0, more=0.9, sharp=0.5,
    entropy=-0.5, attention=True, reads=READS, enough=(0, 0.1), weak=(900, -0.2), one_write=0,
):  # fmt: skip
    """Records of 8 seeds and 5 treated ones: wrong reads on the dense tail, or their share of the plain ones."""
    rows = []

    def count(cell, dense, trained=0, sample="first"):
        for seed, errors in enumerate(dense):
            for p_ignore, wrong in ((0.8, trained), (0.98, 0), (0.1, errors)):
                columns = {"cell": cell, "seed": seed, "sample": sample, "p_ignore": p_ignore}
                rows.append({**columns, "metric": "errors", "value": wrong})
                rows.append({**columns, "metric": "reads", "value": reads})

    count("transformer", plain, in_distribution)
    count("transformer", fresh, fresh_in_distribution, "fresh")
    count("lstm", [lstm] * len(plain))
    for cell, share in {
        "mixture": mixture,
        "more data": more,
        "entropy penalty": sharp,
        "embedding dropout": 1,
    }.items():
        count(cell, [int(share * errors) for errors in plain[:5]])
    for cell, nats in (("transformer", 2.0), ("entropy penalty", 2.0 + entropy)) if attention else ():
        for seed in range(5):
            values = {"attention entropy": nats + 0.01 * seed, "wrong reads": 50, "wrong reads at another write": 20}
            rows += [{"cell": cell, "seed": seed, "metric": name, "value": value} for name, value in values.items()]
    outcomes = {(1.0, 1 / 3): enough, (0.5, 0.0): weak, (0.5, 1.0): (one_write, -0.2)}
    for length, recency, p_ignore in HAND_MADE:
        errors, margin = outcomes[recency, p_ignore]
        columns = {"cell": "hand-made head", "seed": 0, "length": length, "recency": recency, "p_ignore": p_ignore}
        values = {"errors": errors, "margin": margin, "reads": 100_000}
        rows += [{**columns, "metric": name, "value": value} for name, value in values.items()]
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
        ("C1", {"plain": [1, 2, 0, 3, 1, 2, 0, 3]}),
        ("C1", {"lstm": 1}),
        ("C2", {"plain": [100, 105, 95, 110, 100, 105, 95, 110]}),
        ("C3", {"mixture": 0.8}),
        ("C3", {"plain": [8] * 8}),
        ("C4", {"entropy": 0.5}),
        ("C4", {"sharp": 0}),
        ("C5", {"enough": (1, 0.1)}),
        ("C5", {"weak": (0, -0.2)}),
        ("C5", {"weak": (900, 0.2)}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"fresh_in_distribution": 40}),
        ("C1", {"lstm": 400}),
        ("C2", {"fresh": PLAIN[::-1]}),
        ("C3", {"more": 0}),
        ("C4", {"lstm": 1}),
        ("C5", {"one_write": 1}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize(
    ("claim", "changes", "why"),
    [
        ("C1", {"in_distribution": 4}, "0 of 8 transformers have a read error below 0.001 in distribution"),
        ("C1", {"reads": 2000}, "2000 reads are too few: 3,000 a set are needed"),
        ("C2", {"plain": PLAIN[:7], "fresh": PLAIN[:7]}, "7 of 7 transformers .* and 8 are needed"),
        ("C3", {"plain": PLAIN[:1], "fresh": PLAIN[:1]}, "1 of 1 transformers"),
        ("C4", {"attention": False}, "attention is measured only in models that give their attention patterns"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, changes, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), made_up(**changes), {})
    assert judgement.verdict == "inconclusive"
    pandas.testing.assert_series_equal(pandas.Series([judgement.note]).str.contains(why), pandas.Series([True]))


def test_seeds_short_of_convergence_do_not_count():
    records = made_up()
    slow = (records["seed"] == 3) & (records["p_ignore"] == 0.8) & (records["metric"] == "errors")
    records.loc[slow & (records["cell"] == "transformer"), "value"] = 400
    assert rules.converged(records).tolist() == [0, 1, 2, 4, 5, 6, 7]
    assert rules.fall(records, "mixture").index.tolist() == [0, 1, 2, 4]


def test_no_error_counts_as_three():
    falls = rules.fall(made_up(), "mixture")
    assert 10 ** falls.to_numpy() == pytest.approx([errors / 3 for errors in PLAIN[:5]])


@pytest.fixture
def one_hand_made_head(monkeypatch):
    monkeypatch.setattr(flip_flop, "HAND_MADE", HAND_MADE[:1])


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
@pytest.mark.usefixtures("one_hand_made_head")
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small = records_of(TINY)
    large = records_of(dataclasses.replace(TINY, seeds=7, treated_seeds=6))
    treated = ~large["cell"].isin(["transformer", "lstm", "hand-made head"])
    expected = large[(large["seed"] < 3) & ~(treated & (large["seed"] >= 2))].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=0, atol=1e-6)
    exact = ["errors", "reads"]
    assert (small["value"] == expected["value"])[small["metric"].isin(exact)].all()


class Lookup(nn.Module):
    """An architecture without attention patterns."""

    def __init__(self, task):
        super().__init__()
        self.embed = nn.Embedding(5, 8)
        self.unembed = nn.Linear(8, 5)

    def forward(self, tokens):
        return self.unembed(self.embed(tokens).cumsum(1))


@pytest.mark.usefixtures("one_hand_made_head")
def test_another_architecture_runs_and_attention_is_then_inconclusive():
    records = records_of(TINY, architecture=Lookup)
    assert "attention entropy" not in set(records[records["cell"] == "transformer"]["metric"])
    assert "attention entropy" in set(records[records["cell"] == "entropy penalty"]["metric"])
    judgement = judge(STUDY.claims[3], records, {})
    assert judgement.verdict == "inconclusive"
    assert "attention is measured only in models" in judgement.note
    with style():
        assert [drawing.name for drawing in figures(records)] == ["tails", "training", "interventions"]


@pytest.mark.usefixtures("one_hand_made_head")
def test_one_seed_is_judged_inconclusive_and_drawn():
    records = records_of(dataclasses.replace(TINY, seeds=1))
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims[:4]} == {"inconclusive"}
    with style():
        assert [d.name for d in figures(records)] == ["tails", "training", "interventions", "attention"]


@pytest.mark.usefixtures("one_hand_made_head")
def test_the_recorded_attention_is_that_of_a_wrong_read():
    records = records_of(TINY)
    shown = records[records["key"].notna()]
    tokens = shown[shown["metric"] == "token"].sort_values("key")["value"].tolist()
    assert (tokens[0], tokens[-1]) == (0, 1)
    heads = shown[shown["metric"] == "attention"].groupby(["layer", "head"])["value"]
    assert heads.sum().tolist() == pytest.approx([1.0] * 4)
    assert heads.size().eq(len(tokens)).all()


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert list(cells) == ["transformer", "lstm", "more data", "mixture", "entropy penalty", "embedding dropout"]
    assert [len(cell.seeds) for cell in cells.values()] == [8, 8, 5, 5, 5, 5]
    assert cells["mixture"].task.p_ignore == (0.8, 0.98, 0.1)
    assert cells["mixture"].task.shares == (0.5, 0.25, 0.25)
    assert [cell.steps for cell in cells.values()] == [1000, 300, 2000, 1000, 1000, 1000]
    assert [name for name, cell in cells.items() if cell.swappable] == ["transformer", "more data", "mixture"]
    initial = [Lab(None).population(cell).theta[:5] for name, cell in cells.items() if name != "lstm"]
    assert all(torch.equal(theta, initial[0]) for theta in initial)


def test_paper_preset_is_of_the_papers_size():
    cell = next(iter(plan(PRESETS["paper"])))
    with torch.device("meta"):
        assert sum(p.numel() for p in cell.model(cell.task).parameters()) == pytest.approx(19e6, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: it must divide d_model=32"),
        ({"lstm_steps": 10}, "warmup=50 is not legal: it must be at most steps and lstm_steps"),
        ({"length": 33}, "length=33 is not legal: it must be even"),
        ({"seeds": 0}, "seeds=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.flip_flop; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "flip-flop", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.name for path in (folder / "figures").glob("*.png")} >= {
        "tails.png",
        "training.png",
        "interventions.png",
    }
    assert (folder / "verdicts.json").exists()

import dataclasses
import itertools
import subprocess
import sys

import pandas
import pytest
import torch
from torch import nn

from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.automata_shortcuts import PRESETS, STUDY, Config, evaluation, figures, plan, rules, run
from mesocosm.tasks import Automaton
from mesocosm.training import Online, ScratchpadTask

TINY = Config(
    seeds=2, length=4, others=("cyclic-3",), depths=(1, 2), d_model=8, n_heads=2, steps=4, parity_steps=4,
    scratchpad_steps=4, warmup=2, lstm_width=4, lstm_steps=4, batch_size=4, strings=20, exact_strings=20,
)  # fmt: skip
RANKS = {"flip-flop": 1, "grid-4": 1, "parity": 2, "dihedral-4": 3, "symmetric-5": 4}
GOOD = {"flip-flop": 1.0, "grid-4": 0.998, "parity": 0.95, "dihedral-4": 0.8, "symmetric-5": 0.6}
T = 16


def made_up(
    deep=GOOD, shallow=0.9, strangers=0.25, lstm=1.0, biased=0.7, biased_lstm=1.0, fresh=0.95, late=0.5,
    scratchpad=0.9, recent=1.0, few=0.7, few_easy=1.0, wrong=0, short=0.01, seeds=3, ranks=RANKS,
):  # fmt: skip
    """Records of three seeds, a little apart: accuracies by cell and test set, the same at all positions."""
    rows = []

    def add(cell, sample, accuracy, layers=2, length=T, first=1, name="parity"):
        columns = {"cell": cell, "sample": sample, "layers": layers, "metric": "accuracy", "automaton": name}
        for seed, position in itertools.product(range(seeds), range(first, first + length)):
            value = accuracy if accuracy in (0.0, 1.0) else accuracy + 0.001 * seed
            rows.append({**columns, "seed": seed, "position": position, "value": value})
        if sample == "test":
            for position in range(1, length + 1):
                rows.append({**columns, "metric": "chance", "seed": 0, "position": position, "value": 0.25})

    def add_brittle(cell, good, other, afterwards):
        add(cell, "fresh", fresh if cell.startswith("direct") else good)
        for p in rules.P_ONES:
            add(cell, f"p={p:g}", other)
        add(cell, "long", good)
        add(cell, "long", afterwards, first=T + 1)
        add(cell, "ones", good, length=T + 1, first=0)

    for name in ranks:
        add(f"transformer/{name}/L=2", "test", deep[name], name=name)
        add(f"lstm/{name}", "test", lstm, name=name)
        if name in rules.EASY:
            add(f"transformer/{name}/L=1", "test", shallow, layers=1, name=name)
            add(f"transformer/{name}/L=4", "test", deep[name], layers=4, name=name)
    add("strangers/grid-4/L=4", "test", strangers, name="grid-4")
    add("direct/parity/L=2", "test", deep["parity"])
    add_brittle("direct/parity/L=2", deep["parity"], biased, late)
    add_brittle("transformer/grid-4/L=2", deep["grid-4"], biased, late)
    add_brittle("lstm/parity", lstm, biased_lstm, 1.0)
    for cell, afterwards in (("scratchpad", scratchpad), ("recent scratchpad", recent)):
        add(f"{cell}/parity/L=2", "test", 1.0)
        add_brittle(f"{cell}/parity/L=2", 1.0, 1.0, afterwards)
    add("few labels/dihedral-4/L=2", "test", few)
    add("few labels/flip-flop/L=2", "test", few_easy)
    add("indirect labels/dihedral-4/L=2", "test", 0.9)
    facts = [{"metric": "layers", "value": 2}, {"metric": "strings", "value": 1000}]
    facts += [{"metric": "rank", "automaton": name, "value": rank} for name, rank in ranks.items()]
    rows += [{"cell": "setup", "seed": 0, **fact} for fact in facts]
    rows.append({"cell": "constructions", "seed": 0, "metric": "wrong", "value": wrong})
    for layers, position in itertools.product(range(6), range(1, 33)):
        columns = {"cell": "doubling", "metric": "accuracy", "seed": 0, "layers": layers, "position": position}
        rows.append({**columns, "value": 1.0 if position <= 2**layers else short})
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


@pytest.mark.parametrize("claim", [claim.id for claim in STUDY.claims])
def test_claims_are_supported_where_the_effect_is_there(claim):
    judgement = judged(claim, made_up())
    assert (judgement.verdict, judgement.control["verdict"]) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"deep": GOOD | {"grid-4": 0.98}}),
        ("C1", {"shallow": 1.0}),
        ("C2", {"deep": dict(zip(GOOD, reversed(GOOD.values())))}),
        ("C3", {"biased": 0.9}),
        ("C3", {"biased_lstm": 0.6}),
        ("C4", {"late": 0.94}),
        ("C4", {"recent": 0.9}),
        ("C5", {"wrong": 1}),
        ("C6", {"few": 0.86}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert judged(claim, made_up(**changes)).verdict == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"strangers": 0.4}),
        ("C1", {"strangers": 0.1}),
        ("C2", {"lstm": 0.9}),
        ("C3", {"fresh": 0.8}),
        ("C4", {"scratchpad": 0.2}),
        ("C5", {"short": 1.0}),
        ("C6", {"few_easy": 0.9}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    judgement = judged(claim, made_up(**changes))
    assert judgement.control["verdict"] == "present"
    assert judgement.verdict != "supported"


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4", "C6"])
def test_one_seed_is_too_few(claim):
    assert judged(claim, made_up(seeds=1)).verdict == "inconclusive"


def test_too_few_ranks_or_depths_are_inconclusive_with_their_reason():
    few = judged("C2", made_up(ranks={"flip-flop": 1, "grid-4": 1, "parity": 2}))
    assert few.verdict == "inconclusive" and "automata of 2 algebraic ranks are too few" in few.note
    records = made_up()
    depth = records["cell"].str.endswith("/L=1")
    only = judged("C1", records[~depth & ~records["cell"].str.contains("transformer/.*/L=4")])
    assert only.verdict == "inconclusive" and "of the depths [2] two up to log2 T are needed" in only.note


def test_depths_beyond_log2_of_the_length_do_not_count():
    records = made_up()
    records.loc[(records["cell"] == "transformer/grid-4/L=4") & (records["metric"] == "accuracy"), "value"] = 0.5
    deeper = records.replace({"cell": {f"transformer/{n}/L=4": f"transformer/{n}/L=5" for n in rules.EASY}})
    deeper.loc[deeper["cell"].str.endswith("/L=5"), "layers"] = 5
    assert judged("C1", records).verdict == "not supported"
    assert judged("C1", deeper).checks[0]["name"].startswith("best seed at L = 2")


def test_the_rank_correlation_is_scipys():
    from scipy.stats import spearmanr

    mixed = dict(zip(GOOD, (0.99, 0.9, 0.95, 0.7, 0.8)))
    found = rules.correlation(made_up(deep=mixed), "transformer")
    assert found.estimate == pytest.approx(spearmanr(list(RANKS.values()), list(mixed.values())).statistic)


def test_normalised_accuracy_is_0_at_chance_and_1_when_perfect():
    records = made_up(deep=GOOD | {"parity": 0.25, "grid-4": 1.0})
    assert rules.normalised(records, "transformer/parity/L=2").iloc[0] == pytest.approx(0)
    assert rules.normalised(records, "transformer/grid-4/L=2").tolist() == pytest.approx([1] * 3)


def test_strangers_labels_are_those_of_another_string():
    task = Automaton(name="gridworld", n=4, length=6)
    true = Online(task, 5, [0, 1])(0, [0, 1], torch.device("cpu"))
    batch = evaluation.Strangers(Online(task, 5, [0, 1]))(0, [0, 1], torch.device("cpu"))
    assert torch.equal(batch.inputs, true.inputs)
    assert torch.equal(batch.targets[:, 1:], true.targets[:, :-1])
    assert torch.equal(batch.targets[:, 0], true.targets[:, -1])


class AlwaysZero(nn.Module):
    """Right wherever the state is 0."""

    def __init__(self, task):
        super().__init__()
        self.states, self.weight = task.output_shape[1], nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        return nn.functional.one_hot(torch.zeros_like(tokens), self.states) + self.weight


def test_evaluation_counts_right_answers_by_position_and_by_ones():
    from mesocosm.seeding import generator

    cell = next(cell for cell in plan(TINY) if cell.name == "direct/parity/L=2")
    population = Lab(None, architecture=AlwaysZero).population(cell)
    found = evaluation.evaluate(cell, population, 4, 500)
    assert set(found) == {"test", "fresh", "long", "ones", *(f"p={p:g}" for p in rules.P_ONES)}
    assert found["long"].shape == (2, 8) and found["test"].shape == (2, 4)
    symbols = Automaton(length=4, probabilities=(0.1, 0.9)).sample(500, generator("automata-shortcuts", "p=0.9")).inputs
    assert symbols.float().mean() > 0.85
    assert found["p=0.9"][0].tolist() == pytest.approx((symbols.cumsum(1) % 2 == 0).double().mean(0).tolist())
    assert found["ones"].tolist() == [[1, 0, 1, 0, 1]] * 2


def test_strangers_are_tested_on_the_labels_of_others():
    """An exact model is then right as often as two independent strings agree."""
    cell = next(cell for cell in plan(TINY) if cell.name.startswith("strangers/"))
    population = Lab(None, architecture=lambda task: Exact()).population(cell)
    right = evaluation.evaluate(cell, population, 4, 4000)["test"][0]
    agree = (cell.task.state_distribution() ** 2).sum(1)
    assert right.tolist() == pytest.approx(agree.tolist(), abs=0.04)


class Exact(nn.Module):
    """Walks on a grid of 4."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, tokens):
        return nn.functional.one_hot(Automaton(name="gridworld", n=4).states(tokens), 4) + self.weight


def test_scratchpads_are_judged_on_their_own_states():
    task = ScratchpadTask(automaton=Automaton(length=6))
    symbols = torch.ones(1, 6, dtype=torch.long)
    batch = task.sample(1, torch.Generator())._replace(symbols=symbols, targets=symbols.cumsum(1) % 2)

    class Table(nn.Module):
        """Flips on a one, but stays in state 0 when it is there a second time: forced, every second answer is wrong."""

        def __init__(self):
            super().__init__()
            self.logits = nn.Parameter(torch.tensor([[1.0, 0], [0, 1], [1, 0], [1, 0]]))

        def forward(self, tokens):
            return self.logits[tokens]

    assert (evaluation.answers(Table(), task, batch) == batch.targets).tolist() == [[False, True] * 3]


def test_every_construction_is_exact_and_too_few_layers_are_not():
    found = evaluation.hold_constructions(50)
    assert found["wrong"].tolist() == [0] * len(evaluation.CONSTRUCTIONS)
    by_layers = found["by layers"]
    assert by_layers.shape == (6, 32)
    assert (by_layers[5] == 1).all() and (by_layers[4, :16] == 1).all() and (by_layers[4, 16:] < 0.5).all()


def test_ranks_follow_the_algebra():
    expected = {"flip-flop": 1, "adder": 1, "cyclic-3": 2, "parity": 2, "quaternion": 3, "symmetric-4": 3}
    expected |= {"alternating-5": 4, "permutation-reset-5": 4}
    assert {name: evaluation.algebraic_rank(name) for name in expected} == expected


def test_cells_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    assert len([name for name in cells if name.startswith("transformer/")]) == 8 + 4
    assert [name for name, cell in cells.items() if not cell.swappable] == [
        *(name for name in cells if name.startswith("lstm/")),
        "recent scratchpad/parity/L=2",
    ]
    direct = cells["direct/parity/L=2"]
    assert direct.task.length == 32 and direct.stream.tasks[0].length == 16
    full, few = (cells[f"{kind}/dihedral-4/L=2"] for kind in ("transformer", "few labels"))
    assert few.task == dataclasses.replace(full.task, p_label=0.25)
    initial = [Lab(None).population(cell).theta for cell in (full, few)]
    assert torch.equal(*initial)
    scratchpads = [Lab(None).population(cells[f"{name}/parity/L=2"]) for name in ("scratchpad", "recent scratchpad")]
    assert torch.equal(scratchpads[0].theta, scratchpads[1].theta)
    assert [p.module.window for p in scratchpads] == [None, 2]


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_a_tiny_run_is_judged_and_drawn_also_with_one_seed():
    records = records_of(TINY)
    one = records_of(dataclasses.replace(TINY, seeds=1))
    expected = records[(records["seed"] == 0)].reset_index(drop=True)
    pandas.testing.assert_frame_equal(one, expected, rtol=0, atol=1e-5)
    for found in (records, one):
        verdicts = {claim.id: judge(claim, found, {}).verdict for claim in STUDY.claims}
        assert verdicts["C5"] == "supported"
        with style():
            assert [d.name for d in figures(found)] == ["depths", "difficulty", "brittle", "doubling"]
    assert {judge(claim, one, {}).verdict for claim in STUDY.claims[1:4]} <= {"inconclusive", "not supported"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: it must divide d_model=32"),
        ({"d_model": 33, "n_heads": 3}, "d_model=33 is not legal: sinusoidal positions need it even"),
        ({"scratchpad_steps": 10}, "warmup=50 is not legal: it must be at most the steps of every training"),
        ({"depths": (1, 1)}, r"depths=\(1, 1\) is not legal: each may come only once"),
        ({"others": ("abab", "abab")}, "others=.* is not legal: each may come only once"),
        ({"others": ("parity",)}, "others=.* is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.automata_shortcuts; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

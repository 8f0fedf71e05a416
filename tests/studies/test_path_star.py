import dataclasses

import numpy
import pandas
import pytest
import torch
from torch import nn

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.measures import exact_match, free_running, teacher_forced
from mesocosm.studies.path_star import PRESETS, STUDY, Config, first_node_loss, plan, rules, run
from mesocosm.studies.path_star.evaluation import accuracies, held_out
from mesocosm.studies.path_star.figures import figures
from mesocosm.tasks import PathStar
from mesocosm.training import cross_entropy

TINY = Config(
    seeds=2, d_model=8, n_layers=1, shallow_layers=1, ssm_width=8, ssm_layers=1, steps=4, ssm_steps=4, warmup=2,
    batch_size=4, graphs=20, tracked_graphs=10, every=2, more_arms=True,
)  # fmt: skip
DRAWN = ["paths", "training", "wrong-arm"]
SEEDS = 4


def made_up(
    standard=0.5, ssm=0.51, reverse=1.0, teacherless=1.0, shallow=0.5, short=1.0, later=1.0, first=0.5, followed=1.0,
    reverse_followed=0.0, neighbour=1.0, order=(90, 50, 10), teacher_order=(None, 10, 10), star=(2, 4),
):  # fmt: skip
    """Records of 4 seeds, as the study would leave them."""
    rows = []

    def add(arm, values, sample="test", step=100, star=star):
        columns = {"cell": f"{arm} G", "arm": arm, "degree": star[0], "path_length": star[1], "sample": sample}
        for metric, value in values.items():
            for seed in range(SEEDS):
                noisy = value + 0.01 * (seed - 1.5) if 0.1 < value < 0.9 else value
                rows.append({**columns, "seed": seed, "step": step, "metric": metric, "value": noisy})

    nodes = {1: first} | dict.fromkeys(range(2, star[1]), later)
    forced = {f"right at node {node}": value for node, value in nodes.items()}
    cheating = {**forced, "loss": 0.231, "wrong arm followed": followed, "first steps to a neighbour": neighbour}
    add("standard", {**cheating, "right paths": standard})
    add("ssm", {**cheating, "right paths": ssm})
    add("reversed", {**cheating, "right paths": reverse, "wrong arm followed": reverse_followed})
    add("teacherless", {"right paths": teacherless})
    add("shallow", {"right paths": shallow})
    add("short", {"right paths": short}, star=(star[0], 3))
    for arm, learned in (("standard", teacher_order), ("teacherless", order)):
        for node, when in enumerate(learned, 1):
            for step in range(0, 101, 10):
                right = 1.0 if when is not None and step >= when else 0.05
                add(arm, {f"right at node {node}": right}, numpy.nan, step)
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
        ("C1", {"standard": 0.95}),
        ("C1", {"ssm": 0.7}),
        ("C1", {"ssm": 0.4}),
        ("C2", {"followed": 0.7}),
        ("C2", {"first": 0.7}),
        ("C2", {"later": 0.8}),
        ("C2", {"neighbour": 0.8}),
        ("C3", {"reverse": 0.8}),
        ("C4", {"teacherless": 0.6}),
        ("C5", {"order": (50, 50, 10)}),
        ("C5", {"order": (10, 50, 90)}),
        ("C5", {"order": (None, 50, 10)}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"short": 0.5}),
        ("C2", {"reverse_followed": 0.5}),
        ("C3", {"standard": 0.95}),
        ("C4", {"shallow": 0.95}),
        ("C5", {"teacher_order": (90, 50, 10)}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    before, control = verdict(claim, made_up(**changes))
    assert control == "present"
    assert before != "supported"


def test_too_little_is_inconclusive_with_its_reason():
    chance, order = (next(c for c in STUDY.claims if c.id == claim) for claim in ("C1", "C5"))
    blind = judge(chance, made_up(later=0.8), {})
    assert blind.verdict == "inconclusive"
    assert "(0 of 4 seeds follow edges)" in blind.checks[0]["name"]
    unsolved = judge(order, made_up(teacherless=0.5), {})
    assert unsolved.verdict == "inconclusive"
    assert unsolved.note.startswith("0 of 4 seeds solve it without a teacher, and 2 are needed")


def test_a_claim_must_hold_on_every_graph():
    good, bad = made_up(star=(2, 4)), made_up(star=(3, 4), standard=1 / 3, first=1 / 3, ssm=1 / 3, reverse=0.5)
    both = pandas.concat([good, bad])
    assert rules.stars(both) == [(2, 4), (3, 4)]
    assert [verdict(claim, both)[0] for claim in ("C1", "C2", "C3")] == ["supported", "supported", "not supported"]
    names = [check["name"] for check in judge(STUDY.claims[2], both, {}).checks]
    assert names == ["G(2,4): right paths, reversed", "G(3,4): right paths, reversed"]


def test_seeds_without_the_cheat_do_not_count():
    records = made_up()
    blind = (records["arm"] == "standard") & (records["seed"] == 2) & (records["metric"] == "right at node 3")
    records.loc[blind & (records["sample"] == "test"), "value"] = 0.3
    assert rules.with_cheat(records, "standard").index.tolist() == [0, 1, 3]


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


@pytest.fixture(scope="module")
def tiny():
    return records_of(TINY)


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one(tiny):
    large = records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(tiny, expected, rtol=0, atol=1e-6)


def test_what_is_right_after_the_true_nodes_is_right_after_ones_own(tiny):
    """The tracked share of right paths, of one pass, is that of free running."""
    task = PathStar(nodes=8)
    found = tiny[(tiny["arm"] == "standard") & (tiny["metric"] == "right paths")]
    assert len(found) == TINY.seeds * 4  # steps 0, 2, 4 and the test
    batch = held_out(task, "test", 200, "cpu")
    model = OwnGRU(task)
    own = exact_match(free_running(model, batch), batch.targets, batch.weights)
    assert accuracies(teacher_forced(model, batch), task, batch)["right paths"] == own


@pytest.mark.parametrize("reverse", [False, True])
def test_nodes_are_numbered_along_the_path(reverse):
    task = PathStar(path_length=5, nodes=12, reverse=reverse)
    batch = task.sample(10, torch.Generator().manual_seed(0))
    predictions = batch.targets.clone()
    place = batch.targets == batch.path[:, 2:3]
    predictions[place] = -1
    found = accuracies(predictions, task, batch)
    assert [found[f"right at node {node}"].item() for node in (1, 2, 3, 4)] == [1, 0, 1, 1]
    assert found["right paths"] == 0


def test_the_first_nodes_loss_counts_nothing_else():
    task = PathStar()
    batch = task.sample(30, torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Embedding(len(task.tokens), 4), nn.Linear(4, task.nodes))
    logits = model(batch.inputs)[:, -3]
    expected = nn.functional.cross_entropy(logits, batch.path[:, 1])
    assert torch.isclose(first_node_loss(model, batch), expected)
    assert not torch.isclose(cross_entropy(model, batch), expected)


class OwnGRU(nn.Module):
    """An architecture that offers nothing but `forward`, and cannot be mapped."""

    def __init__(self, task):
        super().__init__()
        self.embed = nn.Embedding(len(task.tokens), 8)
        self.gru = nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, task.output_shape[-1])

    def forward(self, tokens):
        return self.head(self.gru(self.embed(tokens))[0])


@pytest.mark.parametrize("form", ["edges", "tokens"])
def test_another_architecture_runs_and_is_judged_and_drawn(form):
    records = records_of(dataclasses.replace(TINY, form=form, more_arms=False), architecture=OwnGRU)
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {"inconclusive", "not supported"}
    with style():
        assert [drawing.name for drawing in figures(records)] == DRAWN


def test_one_seed_and_several_graphs_are_judged_and_drawn():
    config = dataclasses.replace(TINY, seeds=1, degrees=(2, 3), path_lengths=(5, 4), nodes=12)
    records = records_of(config)
    assert set(zip(records["degree"], records["path_length"])) == {(2, 5), (3, 4), (2, 3), (3, 3)}
    assert all(judge(claim, records, {}).verdict != "supported" for claim in STUDY.claims)
    with style():
        assert [drawing.name for drawing in figures(records)] == DRAWN


def test_arms_pair_their_seeds_and_differ_in_one_thing():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    arms = ["standard G(2,4)", "reversed G(2,4)", "teacherless G(2,4)", "shallow G(2,4)", "ssm G(2,4)", "short G(2,3)"]
    assert list(cells) == arms
    assert [name for name, cell in cells.items() if not cell.swappable] == ["shallow G(2,4)", "ssm G(2,4)"]
    initial = [Lab(None).population(cells[name]).theta for name in arms[:3]]
    assert all(torch.equal(theta, initial[0]) for theta in initial)
    same = [
        (cell.steps, cell.batch_size, cell.optimiser, cell.seeds) for name, cell in cells.items() if "ssm" not in name
    ]
    assert all(settings == same[0] for settings in same)


def test_paper_preset_is_of_the_papers_size():
    cells = list(plan(PRESETS["paper"]))
    assert len(cells) == 6 * 7 + 4
    with torch.device("meta"):
        assert sum(p.numel() for p in cells[0].model(cells[0].task).parameters()) == pytest.approx(21e6, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_heads": 3}, "n_heads=3 is not legal: it must divide d_model=64"),
        ({"path_lengths": (4, 5)}, r"path_lengths=\(4, 5\) is not legal: it must hold 1 value"),
        ({"degrees": (2, 2), "path_lengths": (4, 4)}, r"degrees=\(2, 2\) is not legal"),
        ({"ssm_width": 12}, "ssm_width=12 is not legal: it must be a multiple of 8"),
        ({"warmup": 2000}, "warmup=2000 is not legal: it must be at most steps and ssm_steps"),
        ({"nodes": 6}, "nodes=6 is not legal: it must be at least 7"),
        ({"path_lengths": (3,)}, "path_lengths=.* is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "path-star", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()

import dataclasses
import itertools
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.progressive_distillation import PRESETS, STUDY, Config, evaluation, figures, plan, rules, run
from mesocosm.studies.progressive_distillation.teaching import SHARES, lessons, syllabus, transition
from mesocosm.tasks import HierarchicalParity, MaskedText, ProbabilisticGrammar
from mesocosm.training import Online, Population, Shared

TINY = dataclasses.replace(
    PRESETS["smoke"], seeds=2, steps=8, tree_steps=8, token_steps=8, checkpoints=4, tested_inputs=64, inputs=128
)
STEPS = range(0, 4001, 100)
LEARNS = {
    "labels": 4, "one-shot": 4, "progressive": 12, "two-shot": 12, "two-shot early": 4, "two-shot late": 4,
    "wide progressive": 6, "teacher": 6,
}  # fmt: skip
"""How many students of each way learn a parity."""


def made_up(
    learns=None, when=2400, peak=20.0, peak_at=1400, end=1.0, outside=1.0, untrained=1.0, second=2000,
    second_spike=2100, gain=0.05, least=0.05, last=0.3, first=0.15, shuffled=0.01, dependence=0.4, before=0.5,
    seeds=12, chance=0.4,
):  # fmt: skip
    """Records of all parts; a parity's students learn at `when` steps or later, 800 later with labels."""
    rows = []

    def add(part, arm, seed, step, metric, value, **columns):
        cell = {"cell": f"{part}/{arm}", "part": part, "arm": arm}
        rows.append({**cell, "seed": seed, "step": step, "metric": metric, "value": value, **columns})

    for part, (arm, count) in itertools.product(("parity", "hierarchy"), (LEARNS | (learns or {})).items()):
        if part == "hierarchy" and arm.startswith("two-shot"):
            continue
        of_teachers = arm in ("teacher", "wide progressive")
        for seed in range(6 if of_teachers else seeds):
            at = 1400 if arm == "teacher" else when + 20 * seed + (800 if arm == "labels" else 0)
            for step in STEPS:
                value = 1.0 if seed < count and step >= at + 300 else 0.75 if seed < count and step >= at else before
                add(part, arm, seed, step, "accuracy", value)
    for part, seed in itertools.product(("parity", "hierarchy"), range(6)):
        for name, step in (("begun", 1200), ("halfway", 1400), ("done", 1700)):
            add(part, "teacher", seed, 0, name, step)
        for level, learned, spike in ((0, 1400, peak_at), (1, second, second_spike))[: 1 + (part == "hierarchy")]:
            for step, degree in itertools.product(STEPS, (1, 2)):
                stands = peak if degree == 2 and step == spike else untrained if step == 0 else end
                values = {"on": 0.002 * stands, "off": 0.002, "off again": 0.002 * outside}
                for name, value in values.items():
                    add(part, "teacher", seed, step, name, value, level=level, degree=degree)
            for step in STEPS:
                add(part, "teacher", seed, step, "right turns", 0.5 + 0.5 * (step >= learned), level=level)
    for part in ("grammar", "text"):
        for step in range(0, 801, 20):
            risen = min(step / 300, 1)
            add(part, "teacher", 0, step, "accuracy", 0.4 + 0.3 * risen)
            add(part, "teacher", 0, step, "loss", 1.1 - 0.4 * risen)
            for seed, (arm, more) in itertools.product(
                range(4), (("labels", 0), ("one-shot", 0), ("progressive", gain))
            ):
                add(
                    part,
                    arm,
                    seed,
                    step,
                    "accuracy",
                    0.4 + 0.2 * risen + (more + 0.002 * seed if 0 < step < 800 else 0),
                )
        for name, step in (("begun", 40), ("halfway", 120), ("done", 280), ("chance", chance)):
            add(part, "teacher", 0, 0, name, step)
        for step, sentence, n in itertools.product(range(0, 801, 40), range(20), (3, 5)):
            noise = 0.01 * np.sin(sentence + step)
            close = first if step == 0 else least if step == 120 else last
            add(part, "teacher", 0, step, "closeness", close + noise, n=n, sentence=sentence)
            rise = dependence * min(step / 280, 1)
            add(part, "teacher", 0, step, "dependence", 0.02 + rise + noise, n=n, sentence=sentence)
        for sentence, n in itertools.product(range(20), (3, 5)):
            add(part, "shuffled", 0, 400, "dependence", shuffled, n=n, sentence=sentence)
    return pandas.DataFrame(rows)


def judged(claim, records):
    return judge(next(c for c in STUDY.claims if c.id == claim), records, {})


def verdict(claim, records):
    judgement = judged(claim, records)
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", [claim.id for claim in STUDY.claims])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"learns": {"progressive": 4}}),
        ("C1", {"learns": {"one-shot": 12}}),
        ("C1", {"learns": {"labels": 12}}),
        ("C2", {"learns": {"two-shot": 4}}),
        ("C3", {"peak": 3.0}),
        ("C3", {"peak_at": 1800}),
        ("C3", {"peak_at": 1000}),
        ("C3", {"end": 4.0}),
        ("C4", {"learns": {"progressive": 4}}),
        ("C4", {"second_spike": 1000}),
        ("C4", {"second": 1000}),
        ("C5", {"gain": -0.05}),
        ("C5", {"least": 0.5}),
        ("C5", {"first": 0.01}),
        ("C6", {"gain": -0.05}),
        ("C6", {"dependence": -0.1}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"learns": {"teacher": 0}}),
        ("C2", {"learns": {"two-shot early": 12}}),
        ("C2", {"learns": {"two-shot late": 12}}),
        ("C2", {"before": 0.52}),
        ("C3", {"outside": 30.0}),
        ("C3", {"untrained": 9.0}),
        ("C4", {"learns": {"teacher": 0}}),
        ("C5", {"shuffled": 0.2}),
        ("C6", {"shuffled": 0.2}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    records = made_up(**changes)
    before, control = verdict(claim, records)
    assert control == "present"
    assert before != "supported"


@pytest.mark.parametrize("claim", [claim.id for claim in STUDY.claims])
def test_parts_that_were_not_run_are_inconclusive(claim):
    records = made_up()
    part = next(c for c in STUDY.claims if c.id == claim).cells[0].partition("/")[0]
    judgement = judged(claim, records[records["part"] != part])
    assert judgement.verdict == "inconclusive"
    assert "nothing is recorded of " + part in judgement.note


@pytest.mark.parametrize("claim", ["C5", "C6"])
def test_a_teacher_that_learned_nothing_tells_nothing(claim):
    judgement = judged(claim, made_up(chance=0.65))
    assert judgement.verdict == "inconclusive"
    assert "gained 0.05 over chance, and 0.1 are needed" in judgement.note


def test_one_student_is_inconclusive():
    assert judged("C1", made_up(seeds=1)).note == "1 student is too few: 2 are needed"


def test_a_student_that_stopped_keeps_its_accuracy():
    records = made_up()
    stopped = (records["arm"] == "progressive") & (records["seed"] == 0) & (records["step"] > 3200)
    kept = records[~(stopped & (records["part"] == "parity") & (records["metric"] == "accuracy"))]
    assert rules.accuracy(kept, "parity", "progressive").loc[4000, 0] == 1
    assert rules.times(kept, "parity", "progressive")[0] == 2700
    assert np.isinf(rules.times(kept, "parity", "labels")[11])


def test_transition_marks_the_shares_of_each_teachers_gain():
    steps = [0, 10, 20, 30, 40]
    accuracy = torch.tensor([[0.5, 0.51, 0.54, 0.98, 1.0], [0.5, 0.6, 0.7, 0.71, 0.7], [0.5] * 5]).T
    marks = transition(accuracy, steps, chance=0.5)
    expected = []
    for curve in accuracy.T.tolist():
        gains = [(a - 0.5) / max(max(curve) - 0.5, 1e-6) for a in curve]
        expected.append([next((s for s, g in zip(steps, gains) if g >= share), 40) for share in SHARES])
    assert marks.T.tolist() == expected
    assert expected == [[20, 30, 30], [10, 10, 30], [40, 40, 40]]


def test_syllabus_takes_kept_checkpoints_from_within_before_and_after_the_transition():
    marks, steps = torch.tensor([[12, 6], [20, 10], [28, 30]]), list(range(0, 41, 2))
    assert syllabus("progressive", marks, steps, 3) == [[12, 6], [20, 18], [28, 30]]
    assert syllabus("progressive", marks, steps, 1) == [[12, 6]]
    assert syllabus("two-shot", marks, steps, 3) == [[20, 10]]
    assert syllabus("two-shot early", torch.tensor([[12, 8]] * 3), steps, 3) == [[6, 4]]
    assert syllabus("two-shot late", marks, steps, 3) == [[34, 34]] or syllabus("two-shot late", marks, steps, 3) == [
        [34, 36]
    ]
    assert syllabus("one-shot", marks, steps, 3) == []


class Fixed(nn.Module):
    """Always the same logits."""

    def __init__(self, level):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([0.0, level]))

    def forward(self, x):
        return self.logits.expand(len(x), 2)


def test_lessons_go_through_the_stages_and_stay_with_the_last():
    task = HierarchicalParity(n=6, k=2, n_classes=2)
    stages = [Population(lambda level=level: Fixed(level), [0, 1]) for level in (1.0, 2.0, 3.0)]
    stream = lessons(Online(task, 4, [0, 1]), stages, guided=6, temperature=1.0)
    seen = [stream(step, [0, 1], torch.device("cpu")).soft[0, 0, 1].item() for step in range(9)]
    expected = [torch.tensor([0.0, level]).softmax(0)[1].item() for level in (1, 1, 1, 2, 2, 2, 3, 3, 3)]
    assert seen == pytest.approx(expected)
    alone = lessons(Online(task, 4, [0, 1]), stages[-1:], guided=6, temperature=1.0)
    assert alone(0, [0, 1], torch.device("cpu")).soft[0, 0, 1].item() == pytest.approx(expected[-1])


def test_shared_gives_all_replicas_the_same_batches():
    stream = Shared(Online(ProbabilisticGrammar(levels=2, form="masked"), 3, ["students"]))
    batch, lone = (stream(5, index, torch.device("cpu")) for index in ([0, 1, 2], [2]))
    assert all(torch.equal(field, other.expand_as(field)) for field, other in zip(batch, lone))
    assert stream.kinds(0, [0, 1]) == [None, None]


def test_features_agree_with_sums_over_the_whole_cube():
    """Of a function of few bits, with which every correlation is known."""
    task = HierarchicalParity(n=25, k=3, n_classes=4)

    class Known(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.2))

        def forward(self, x):
            root, left = self.scale * x[:, 0] * x[:, 1], self.scale / 2 * x[:, 3]
            p = torch.stack([(1 + root) / 4 + left, (1 + root) / 4 - left, (1 - root) / 4, (1 - root) / 4], -1)
            return p.log()

    class Kept:
        def at(self, population, steps):
            return population

    found = evaluation.features(Config(inputs=50_000), task, Kept(), Population(Known, [0, 1]), [0, 10])
    assert found["on"].shape == (2, 2, 2, 2)
    root, below = [0, 0.1 / 3], [0.1 / 3 / 2, 0]
    assert found["on"][0, 0].flatten().tolist() == pytest.approx([*root, *below], abs=0.002)
    assert found["off"].max() < 0.002
    assert not torch.equal(found["off"][..., 1], found["off again"][..., 1])
    assert not torch.equal(found["on"][:, 0], found["on"][:, 1])  # Teachers are asked about inputs of their own.


def test_levels_and_right_turns_follow_the_tree():
    p = torch.tensor([[0.4, 0.1, 0.3, 0.2]])
    root, below = evaluation.levels(p)
    assert root.flatten().tolist() == pytest.approx([0.0])
    assert below.flatten().tolist() == pytest.approx([0.15, 0.05])
    predicted, targets = torch.tensor([0, 1, 2, 3, 3, 0]), torch.tensor([0, 0, 2, 2, 0, 2])
    assert evaluation.right_turns(predicted, targets, 4).tolist() == pytest.approx([4 / 6, 2 / 4])


@pytest.mark.parametrize("task", [ProbabilisticGrammar(levels=2, form="masked"), MaskedText(length=12)])
def test_accuracy_counts_masked_tokens_alone(task):
    """A model that repeats what it sees is right wherever it was not asked, and never on a mask."""

    class Repeat(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(1.0))

        def forward(self, x):
            return self.scale * nn.functional.one_hot(x, len(task.tokens)).float()

    never = dataclasses.replace(task, mask_rate=0.0)
    for asked in (task, never):
        assert evaluation.track(Config(sentences=50), asked, Population(Repeat, [0]), 0)["accuracy"].tolist() == [0]


@pytest.mark.parametrize("task", [ProbabilisticGrammar(levels=2, form="masked"), MaskedText(length=12)])
def test_ngrams_of_a_predictor_that_sees_its_two_neighbours(task):
    class Neighbours(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(len(task.tokens), len(task.tokens))

        def forward(self, x):
            seen = self.table(x)
            return 3 * (seen.roll(1, 1) + seen.roll(-1, 1))

    found = evaluation.ngrams_of(Config(sentences=40), task, Population(Neighbours, [0, 1]))
    assert found["closeness"].shape == (2, 2, 40)
    inside = found["closeness"][:, 0].abs() < 1e-6
    assert inside.float().mean() > 0.7  # rolling goes round at the ends of a row
    assert found["dependence"][:, 0].mean() > 0.1


def records_of(config, folder=None, **settings):
    lab = Lab(folder, **settings)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_a_teacher_that_was_cut_off_goes_on_with_all_its_checkpoints(tmp_path, monkeypatch):
    config = dataclasses.replace(TINY, parts=("parity",))
    whole = records_of(config)
    lab, track = Lab(tmp_path), evaluation.track

    def interrupt(config, task, population, step):
        lab.interrupted = step == 4
        return track(config, task, population, step)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation, "track", interrupt)
        patch.setattr("mesocosm.training.loop.TICK", 0.0)
        with pytest.raises(KeyboardInterrupt):
            run(config, lab)
    assert [path.name for path in tmp_path.glob("checkpoints/*.safetensors")] == ["parity_teacher.safetensors"]
    calls = []
    monkeypatch.setattr(evaluation, "track", lambda *arguments: calls.append(arguments[-1]) or track(*arguments))
    pandas.testing.assert_frame_equal(records_of(config, tmp_path), whole)
    assert calls[:2] == [6, 8]
    calls.clear()
    pandas.testing.assert_frame_equal(records_of(config, tmp_path), whole)
    assert calls == []


@pytest.mark.slow
def test_parts_do_not_depend_on_each_other_and_all_are_drawn():
    whole = records_of(TINY)
    text = records_of(dataclasses.replace(TINY, parts=("text",)))
    own = whole[whole["part"] == "text"].reset_index(drop=True)
    pandas.testing.assert_frame_equal(text, own[text.columns])
    with style():
        names = [drawing.name for drawing in figures(whole)]
    assert sorted(names) == sorted(
        [f"students-{part}" for part in ("parity", "hierarchy", "grammar", "text")]
        + ["spikes-parity", "spikes-hierarchy", "ngrams-grammar", "ngrams-text"]
    )
    assert {judged(claim.id, whole).verdict for claim in STUDY.claims} <= {
        "supported", "not supported", "inconclusive",
    }  # fmt: skip


class Scores(nn.Module):
    """A user's network for students of parities."""

    def __init__(self, task):
        super().__init__()
        self.layer = nn.Linear(task.n, task.n_classes)

    def forward(self, x):
        return self.layer(x)


@pytest.mark.slow
def test_another_architecture_takes_the_students_place():
    config = dataclasses.replace(TINY, parts=("parity", "hierarchy"))
    ours, theirs = records_of(config), records_of(config, architecture=Scores)
    is_teacher = ours["arm"].isin(["teacher", "wide progressive"])
    assert ours[is_teacher].equals(
        theirs[theirs["arm"].isin(["teacher", "wide progressive"])].set_axis(ours[is_teacher].index)
    )
    assert not ours[~is_teacher]["value"].equals(theirs[~is_teacher]["value"])


def test_figures_of_made_up_records_are_drawn():
    with style():
        drawings = {drawing.name: drawing for drawing in figures(made_up())}
    assert len(drawings) == 8
    assert "Of those on labels 33 % do, of those on the teacher's successive checkpoints 100 %" in (
        drawings["students-parity"].caption
    )
    assert "at degree 2 peaks at 20" in drawings["spikes-parity"].caption


def test_arms_are_paired_and_students_are_narrow():
    cells = {cell.name: cell for cell in plan(PRESETS["small"])}
    parities = [cells[f"parity/{way}"] for way in ("labels", "one-shot", "progressive", "two-shot")]
    initial = [Lab(None).population(cell).theta for cell in parities]
    assert all(torch.equal(theta, initial[0]) for theta in initial)
    assert all(cell.seeds == range(12) for cell in parities)
    assert {name for name, cell in cells.items() if cell.swappable} == {
        name
        for name in cells
        if name.startswith(("parity", "hierarchy")) and "wide" not in name and "teacher" not in name
    }
    batch = cells["text/labels"].stream(0, [0, 1], torch.device("cpu"))
    assert torch.equal(batch.inputs[0], batch.inputs[1])
    sizes = {name: sum(p.numel() for p in cell.model(cell.task).parameters()) for name, cell in cells.items()}
    assert sizes["parity/teacher"] == 1000 * 33 + 2
    assert sizes["parity/labels"] == 20 * 33 + 2
    assert sizes["grammar/teacher"] > 10 * sizes["grammar/labels"]


def test_paper_preset_is_of_the_papers_size():
    cells = {cell.name: cell for cell in plan(PRESETS["paper"])}
    with torch.device("meta"):
        wide = cells["parity/teacher"].model(cells["parity/teacher"].task)
    assert wide.layers[0].weight.shape == (50_000, 100)
    assert cells["hierarchy/labels"].task == HierarchicalParity(n=100, k=5, n_classes=8)
    assert cells["grammar/teacher"].task.lengths == (161, 432)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 6}, "k=4 is not legal: 3 of n=6 bits must be left outside the parity"),
        ({"n_classes": 3}, "n_classes=3 is not legal: it must be a power of two"),
        ({"n_classes": 16}, "node_bits=3 is not legal: with n_classes=16 it needs 47 bits"),
        ({"d_head": 3}, "d_head=3 is not legal: rotary positions need an even one"),
        ({"levels": 7}, "levels=7 is not legal: it must be from 1 to 6"),
        ({"text": "nowhere"}, r"path='nowhere' is not legal"),
        ({"text": "nowhere", "parts": ("text",)}, r"path='nowhere' is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy'}"
    code = f"import sys, mesocosm.studies.progressive_distillation; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

import dataclasses
import json
import math
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm import models, sandbox, tasks, training
from mesocosm.cli import main
from mesocosm.lab import jobs
from mesocosm.lab.claims import judge
from mesocosm.lab.files import read_table, read_tensors
from mesocosm.lab.folder import Request
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.tinygsm import PRESETS, STUDY, Config, cells, evaluation, figures, plan, rules, run
from mesocosm.studies.tinygsm.experiment import Experiment
from mesocosm.studies.tinygsm.problems import PROGRAM, QUESTION, Problems, Verification, through_end, to_judge
from mesocosm.studies.tinygsm.written import Judged, Pretrained, Texts, Written
from mesocosm.training import gradients

TINY = dataclasses.replace(PRESETS["smoke"], steps=4, examples_steps=4, verifier_steps=4, test=3, samples=2)
FIGURES = ["accuracy", "curves", "variants", "sizes", "tokens"]


def made_up(
    gain=0.2, over_teacher=0.1, shuffled=0.0, oracle=1.0, independent=0.02, first=0.3, last=0.02, rising=True,
    one_family=0.1, head=-0.2, scratch=-0.2, all_right=0.0, noise=0.01, seeds=5,
):  # fmt: skip
    """Records as the study leaves them; the named numbers are differences that the rules ask for."""
    rows = []

    def add(cell, seed, metrics, **columns):
        rows.extend(
            {"cell": cell, "seed": seed, "step": 9, "metric": m, "value": v, **columns} for m, v in metrics.items()
        )

    for seed in range(seeds):
        ripple = noise * math.sin(5 * seed)
        verify = 0.9 + ripple
        add("generator", seed, {"greedy": verify - gain - ripple, "teacher": verify - over_teacher + ripple})
        for n in (1, 8):
            far = 0.5 if n == 1 else 0  # What is chosen from fewer must not count.
            add("verifier", seed, {"verify": verify - far, "majority": verify - gain + far, "pass": oracle - far}, n=n)
            both = {"verify": 0.9 - far, "majority": 0.9 + independent + ripple + far}
            add("verifier, independent errors", seed, both, n=n)
            for variant, less in {"head only": head, "from scratch": scratch, "one checkpoint": -0.1}.items():
                add(f"verifier, {variant}", seed, {"verify": verify + less + ripple + far}, n=n)
            add("verifier, last token", seed, {"verify": verify + far}, n=n)
            for variant, more in {"shuffled": shuffled, "all right": all_right}.items():
                add(f"verifier, {variant}", seed, {"verify": 0.6 + more + ripple + far}, n=n)
            add("verifier, large of small", seed, {"verify": 0.8}, n=n)
            add("verifier, small of large", seed, {"verify": 0.7 - far}, n=n)
        for variant in ("shuffled", "all right"):
            add(f"verifier, {variant}", seed, {"blind choice": 0.6, "mean sample": 0.7})
        levels = [0.3, 0.3 + first, 0.3 + first + (0.1 if rising else -0.1)]
        levels.append(levels[-1] + last)
        for examples, level in zip((250, 500, 2000, 4000), levels):
            for family, off in (("chain", 0.05), ("comparison", -0.05), ("unknown start", -9)):
                columns = {"examples": examples, "families": "all"}
                add("data", seed, {f"greedy, {family}": level + off + ripple}, **columns)
        for family in ("chain", "comparison"):
            add("data", seed, {f"greedy, {family}": one_family + ripple}, examples=4000, families="one")
    return pandas.DataFrame(rows)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control and judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"gain": -0.05}),
        ("C1", {"over_teacher": -0.05}),
        ("C2", {"gain": -0.05}),
        ("C2", {"oracle": 0.8}),
        ("C3", {"last": 0.3}),
        ("C3", {"rising": False}),
        ("C4", {"head": 0.1}),
        ("C4", {"scratch": 0.1}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"shuffled": 0.2}),
        ("C2", {"independent": -0.2}),
        ("C3", {"one_family": 0.8}),
        ("C4", {"all_right": -0.2}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


def test_sizes_are_reported_and_never_judged():
    judgement = judge(next(c for c in STUDY.claims if c.id == "C5"), made_up(), {})
    assert (judgement.verdict, judgement.control) == ("inconclusive", None)
    assert judgement.effect == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("claim", "choose", "why"),
    [
        ("C1", lambda r: r[r["metric"] != "teacher"], "there is no teacher of the generator"),
        ("C2", lambda r: r[r["n"].isna()], "nothing was chosen"),
        ("C3", lambda r: r[~r["examples"].isin([500, 2000])], "needs three numbers"),
        ("C4", lambda r: r[r["cell"] != "verifier, head only"], "there is no verify of the verifier, head only"),
    ],
)
def test_too_little_is_inconclusive_with_its_reason(claim, choose, why):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), choose(made_up()), {})
    assert judgement.verdict == "inconclusive"
    assert why in judgement.note


def test_one_seed_is_inconclusive():
    assert verdict("C1", made_up(seeds=1)) == ("inconclusive", "inconclusive")


def documents(batch):
    return torch.cat([batch.inputs, batch.targets[:, -1:]], 1)


def test_questions_end_where_programs_begin_and_nothing_is_lost():
    task, plain = Problems(), tasks.WordProblems()
    batch, before = task.sample(4000, generator(3)), plain.sample(4000, generator(3))
    rows = documents(batch)
    assert rows.shape == (4000, QUESTION + PROGRAM)
    for row, other, start in zip(rows[:300], documents(before)[:300], before.prompt.tolist()):
        assert (row[: QUESTION - start] == task.end).all()
        assert row[QUESTION - start : QUESTION].tolist() == other[:start].tolist()
        assert task.text(row[QUESTION:]) == plain.text(other[start:])
    assert (rows[:, -1] == task.end).all()
    assert torch.equal(batch.weights.sum(1), before.weights.sum(1))
    assert torch.equal(torch.where(batch.weights.bool(), batch.targets, 0).sum(1),
                       torch.where(before.weights.bool(), before.targets, 0).sum(1))  # fmt: skip


def test_a_verifier_sees_the_whole_program_and_its_end():
    batch = Verification().sample(500, generator(4))
    same = Problems().sample(500, generator(4))
    assert torch.equal(batch.inputs, same.inputs)
    assert (batch.targets == (batch.teacher == batch.answer).float()[:, None]).all()
    # A program and its end: all targets of the generator.
    assert torch.equal(batch.weights.sum(1), same.weights.sum(1))
    last = batch.inputs.gather(1, (batch.weights * torch.arange(batch.inputs.shape[1])).argmax(1, keepdim=True))
    assert (last == Problems().end).all()


def test_weights_stop_at_the_first_end():
    assert through_end(torch.tensor([[5, 6, 9, 5, 9], [9, 5, 5, 5, 5]]), 9).tolist() == [
        [1, 1, 1, 0, 0],
        [1, 0, 0, 0, 0],
    ]
    programs = torch.full((1, PROGRAM), 5)
    programs[0, 3:] = 9
    inputs, targets, weights = to_judge(torch.zeros(1, QUESTION, dtype=torch.long), programs, torch.ones(1), 9)
    assert inputs.shape == targets.shape == weights.shape == (1, QUESTION + PROGRAM - 1)
    assert weights[0].nonzero().flatten().tolist() == [QUESTION, QUESTION + 1, QUESTION + 2, QUESTION + 3]


class Parrot(nn.Module):
    """A generator that knows one document by heart."""

    def __init__(self, document, tokens):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))
        self.register_buffer("next", nn.functional.one_hot(document.roll(-1), tokens).float(), persistent=False)

    def forward(self, tokens):
        return (self.scale * self.next[: tokens.shape[-1]]).expand(*tokens.shape, -1)


def test_programs_are_run_in_the_sandbox_as_they_were_written():
    task = Problems()
    batch = evaluation.problems(task, [100, 101], 2, "test")
    row = documents(batch._make(field[0] for field in batch))[0]
    population = training.Population(lambda: Parrot(row, len(task.tokens)), [100, 101])
    found = evaluation.write(task, population, batch, 3, 0.7, "samples")
    assert found["programs"].shape == (2, 2, 3, PROGRAM)
    assert (found["programs"] == row[QUESTION:]).all()
    expected = sandbox.execute(task.text(row[QUESTION:])).value
    assert (found["answers"] == expected).all()
    assert batch.teacher[0, 0] == expected


def test_failed_programs_have_no_answer():
    task = Problems()
    digits = [task.tokens.index(token) for token in ("\nresult = ", "7", "<end>", "9")]
    broken = [task.tokens.index(token) for token in ("\nresult = ", " * ", "<end>", "9")]
    answers = evaluation.execute(task, torch.tensor([[digits, broken, digits]]))
    assert answers[0, 0] == answers[0, 2] == 7
    assert answers[0, 1].isnan()


def test_selection_is_that_of_a_plain_loop():
    torch.manual_seed(0)
    answers = torch.randint(0, 3, (2, 5, 4)).double()
    scores = torch.rand(2, 5, 4)
    batch = Problems().sample(5, generator(0))
    batch = batch._make(torch.stack([field, field]) for field in batch)._replace(answer=torch.ones(2, 5).long())
    programs = answers.long()[..., None].expand(-1, -1, -1, 3)
    found = evaluation.picked(batch, answers, scores, 3)
    other = evaluation.choices(batch, programs, answers, scores)
    for seed in range(2):
        chosen, any_right, blind = [], [], []
        for a, s in zip(answers[seed].tolist(), scores[seed].tolist()):
            chosen.append(a[max(range(3), key=s.__getitem__)] == 1)
            wrong = 4 - a.count(1)
            any_right.append(1 - math.comb(wrong, 3) / math.comb(4, 3))
            blind.append((1 in a) / len(set(a)))
        assert found["verify"][seed].item() == pytest.approx(np.mean(chosen))
        assert found["pass"][seed].item() == pytest.approx(np.mean(any_right))
        assert other["blind choice"][seed].item() == pytest.approx(np.mean(blind))
        assert other["mean sample"][seed].item() == pytest.approx((answers[seed] == 1).double().mean().item())


def test_scores_are_the_last_tokens():
    task = Problems()
    batch = evaluation.problems(task, [0], 4, "test")
    programs = batch.targets[:, :, None, QUESTION - 1 :]

    class Places(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Parameter(torch.ones(()))

        def forward(self, tokens):
            return (self.one * torch.arange(tokens.shape[-1])).expand(tokens.shape)[..., None]

    scores = evaluation.score(task, training.Population(Places, [0]), batch, programs)
    ends = QUESTION - 1 + batch.weights[0].sum(1)
    assert torch.equal(scores[0, :, 0], ends)
    right = torch.ones(1, 4, 1)
    last = evaluation.labelled(task, batch, programs, right, last_only=True)
    assert last.weights.sum(1).tolist() == [1] * 4
    assert last.weights.argmax(1).tolist() == ends.tolist()


@pytest.mark.parametrize(
    ("name", "objective"), [("generator", training.cross_entropy), ("verifier", training.outcome_loss)]
)
def test_what_is_left_out_of_a_row_has_no_part_in_the_loss(name, objective):
    cell = next(cell for cell in plan(TINY) if cell.name == name)
    population = Lab(None).population(cell)
    batch = training.Online(cell.task, 8, list(cell.seeds))(0, population.index, population.device)
    found, expected = (
        gradients.gradients_of(population, loss)(population.theta, {}, batch) for loss in (cell.objective, objective)
    )
    for one, other in zip(found, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    stranger = training.Population(lambda: Stranger(cell.task), cell.seeds)
    one, other = (
        gradients.gradients_of(stranger, loss)(stranger.theta, {}, batch)[0] for loss in (cell.objective, objective)
    )
    assert torch.equal(one, other)


def test_head_only_leaves_the_rest_alone():
    config = TINY
    all_of = {cell.name: cell for cell in plan(config)}
    source = Lab(None).population(all_of["generator"]).select([0, 1])
    cell = all_of["verifier, head only"]
    cell = dataclasses.replace(cell, start=lambda population: training.inherit(population, source))
    head = training.inherit(Lab(None).population(cell), source)
    assert head == ["unembed.weight"]
    whole = dataclasses.replace(cell, steps=1, optimiser=training.SGD(0.1), clip=None)
    cell = dataclasses.replace(whole, objective=partial(cells.head_only, head))
    before, after = Lab(None).population(cell).weights(), Lab(None).train(cell).population.weights()
    expected = Lab(None).train(whole).population.weights()
    assert torch.allclose(after["unembed.weight"], expected["unembed.weight"], rtol=1e-5, atol=1e-7)
    assert not torch.equal(expected["blocks.0.attn.qkv.weight"], before["blocks.0.attn.qkv.weight"])
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"unembed.weight"}


def test_unique_examples_are_nested_and_so_many():
    cell = next(cell for cell in plan(TINY) if cell.name == "data")
    stream = cell.stream.epochs
    own = [{tuple(row.tolist()) for row in stream.data.inputs[rows]} for rows in stream.subsets]
    assert [len(some) for some in own] == cell.settings["examples"]
    few = TINY.few
    assert all(own[seed] < own[seed + few] for seed in range(few))
    families = [set(stream.data.family[rows].tolist()) for rows in stream.subsets]
    assert families[-few:] == [{cells.ONE_FAMILY}] * few
    assert not own[0] & own[1]


def test_the_papers_batches_are_read_in_parts_of_one_size():
    found = {cell.name.split(",")[0]: (cell.batch_size, cell.accumulate) for cell in plan(PRESETS["paper"])}
    assert found == {"generator": (1024, 64), "data": (1024, 64), "verifier": (256, 16)}
    assert {cell.accumulate for cell in plan(Config(micro_batch_size=1000))} == {1}


def test_limited_data_are_learned_from_anywhere_as_planned():
    config = dataclasses.replace(TINY, few=1)
    request = Request("tinygsm", "smoke", config)
    assert [part.cell for part in jobs.unfinished(request, Path("nowhere"))] == ["data"]
    (job,) = jobs.plan_jobs([jobs.unfinished(request, Path("nowhere"))], Lab(None), jobs.InProcess())
    tensors, facts = jobs.train_job(job)
    cell = next(cell for cell in plan(config) if cell.name == "data")
    expected, _ = Lab(None).train(cell).saved()
    assert facts["first"] == len(cell.seeds) == 3
    assert tensors.keys() == expected.keys()
    assert all(torch.equal(tensors[name].nan_to_num(), expected[name].nan_to_num()) for name in expected)


def test_variants_change_one_thing_and_share_their_start():
    by_name = {cell.name: cell for cell in plan(Config())}
    first = by_name["verifier"]
    for variant in cells.JUDGED + cells.REPORTED:
        cell = by_name[f"verifier, {variant}"]
        assert (cell.steps, cell.batch_size, cell.optimiser) == (first.steps, first.batch_size, first.optimiser)
        assert cell.seeds == first.seeds[: len(cell.seeds)]
    assert {name for name, cell in by_name.items() if not cell.swappable} == {
        "generator, small",
        "verifier, small",
        "verifier, small of large",
    }


def test_what_is_only_reported_can_be_left_out():
    config = dataclasses.replace(TINY, reported=False)
    judged = {cell.name for cell in plan(config)}
    assert {cell.name for cell in plan(TINY)} - judged == {
        "generator, small",
        "verifier, one checkpoint",
        "verifier, last token",
        "verifier, small",
        "verifier, small of large",
        "verifier, large of small",
    }
    records = made_up()
    left = records[~records["cell"].str.contains("checkpoint|token|of")]
    assert verdict("C4", left) == ("supported", "absent")
    assert verdict("C5", left)[0] == "inconclusive"


def test_independent_errors_are_as_frequent():
    task = cells.task_of(Config(), **cells.independent(Config()))
    assert task.teacher_accuracy() == pytest.approx(cells.task_of(Config()).teacher_accuracy())


def records_of(config, **changes):
    lab = Lab(None, **changes)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small = records_of(TINY)
    large = records_of(dataclasses.replace(TINY, seeds=3))
    expected = large[large["seed"] < 2].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-4, atol=1e-5)


class Stranger(nn.Module):
    def __init__(self, task):
        super().__init__()
        self.read = nn.Embedding(len(task.tokens), 8)
        self.say = nn.Linear(8, task.output_shape[1])

    def forward(self, tokens):
        return self.say(self.read(tokens).cumsum(-2))


@pytest.mark.slow
def test_another_architecture_writes_and_judges():
    records = records_of(TINY, architecture=Stranger)
    assert not (records["metric"] == "diverged").any()
    with style():
        assert [d.name for d in figures(records)][:4] == FIGURES[:4]


GSM8K = [
    {"question": "the capital of Spain has 3 red buttons and 4 blue", "answer": "3 + 4 = <<3+4=7>>7\n#### 7"},
    {"question": "press the red button 1,000 times", "answer": "#### 1,000"},
    {"question": "press the blue button twice", "answer": "#### 2"},
]
PROGRAMS = [
    {"question": f"press {n} buttons", "code": f"def simple_math_problem() -> int:\n    return {n}\n"} for n in range(9)
]


@pytest.fixture
def pretrained(tiny_folder, tmp_path, monkeypatch):
    """A configuration with a random Llama and few short problems."""
    for name, rows in {"train": GSM8K, "test": GSM8K, "programs": PROGRAMS}.items():
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setattr(Written, "question", 48)
    monkeypatch.setattr(Written, "program", 64)
    return dataclasses.replace(
        PRESETS["paper"], language_model=str(tiny_folder), reported=False, gsm8k=str(tmp_path),
        programs=str(tmp_path / "programs.jsonl"), seeds=2, few=1, steps=4, batch_size=2, learning_rate=0.01, warmup=1,
        examples=(4, 8), examples_steps=4, labelled=3, verifier_steps=4, verifier_batch_size=2, verifier_warmup=1,
        test=3, samples=2,
    )  # fmt: skip


def test_a_pretrained_model_reads_the_files_as_they_are_written(pretrained):
    texts = Texts(pretrained)
    task = Written(texts=texts)
    rows = documents(task.sample(50, generator(0)))
    assert rows.shape == (50, 48 + 64)
    for row in rows:
        question, program = task.text(row[: task.question][row[: task.question] != task.end]), task.text(row[48:])
        n = question.removeprefix("press ").removesuffix(" buttons\n")
        assert program == PROGRAMS[int(n)]["code"]
    asked = evaluation.problems(task, [0, 1], 3, "labelled")
    assert {7, 1000, 2} == set(asked.answer[0].tolist()) == set(asked.answer[1].tolist())
    assert not asked.answer.isnan().any() and (asked.targets[:, :, task.question - 1 :] == task.end).all()
    different = evaluation.problems(task, [0, 1], 8, "examples").inputs[:, :, : task.question]
    assert [len({tuple(row) for row in rows}) for rows in different.tolist()] == [8, 8]
    answers = evaluation.execute(task, rows[None, :, task.question :])
    assert answers[0].tolist() == [int(task.text(row[48:]).split()[-1]) for row in rows]


def test_a_pretrained_model_writes_the_same_with_its_cache_and_hands_its_body_to_its_verifier(pretrained):
    task = Written(texts=Texts(pretrained))
    model = Pretrained(pretrained.language_model, task)
    rows = task.sample(3, generator(1)).inputs[:, : task.question]

    class Slow(nn.Module):
        def forward(self, tokens):
            return model(tokens)

    assert torch.equal(models.generate(model, rows, 8), models.generate(Slow(), rows, 8))
    name, judge = pretrained.language_model, Judged(texts=task.texts)
    source = training.Population(lambda: model, [0])
    heir = training.Population(lambda: Pretrained(name, judge), [0])
    source.theta += 1
    assert training.inherit(heir, source) == ["head.weight"]
    body = "body.layers.0.mlp.up_proj.weight"
    assert torch.equal(heir.weights()[body], source.weights()[body])
    assert heir.replica(0)(rows).shape == (3, task.question, 1)


def test_a_pretrained_model_learns_writes_and_judges(pretrained, monkeypatch):
    monkeypatch.setitem(gradients.LARGE, "cpu", 1)  # One by one, as models of the usual sizes step.
    lab = Lab(None)
    run(pretrained, lab)
    records = lab.records()
    assert not (records["metric"] == "diverged").any()
    loss = records[(records["cell"] == "generator") & (records["metric"] == "loss")].groupby("step")["value"].mean()
    assert loss.iloc[-1] < loss.iloc[0]
    assert (rules.values(records, "generator", "teacher") == 0.774).all()
    assert not records["metric"].str.contains("chain").any()
    assert set(rules.by_examples(records).columns) == {4, 8}
    assert {cell.name for cell in plan(pretrained)} | {"tokens"} == set(records["cell"])
    with style():
        assert [drawing.name for drawing in figures(records)] == ["accuracy", "curves", "variants", "tokens"]


@pytest.mark.parametrize("way", [["--out", "run"], ["--dry-run"]])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gsm8k": None}, "gsm8k=None is not legal with a language model: say where the problems are"),
        ({"gsm8k": "nowhere"}, "gsm8k='nowhere' is not legal: path='nowhere/train.jsonl' is not legal"),
        ({"programs": None}, "programs=None is not legal with a language model"),
        ({"programs": "nowhere"}, "programs='nowhere' is not legal: after 0 problems"),
        ({"labelled": 4}, "labelled=4 is not legal: the file holds 3 problems"),
        ({"examples": (4, 10)}, "examples=10 is not legal: the file holds 9 problems"),
    ],
)
def test_files_that_are_missing_are_told_before_there_is_a_folder(
    pretrained, changes, message, way, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    flags = []
    for name, value in dataclasses.asdict(dataclasses.replace(pretrained, **changes)).items():
        if value is not None and value != getattr(PRESETS["paper"], name):
            values = value if isinstance(value, tuple) else (value,)
            flags += [f"--no-{name}"] if value is False else [f"--{name.replace('_', '-')}", *map(str, values)]
    assert main(["run", "tinygsm", "--preset", "paper", *flags, *way]) == 2
    assert f"mesocosm: error: {message}" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_sandbox_nothing_starts(monkeypatch, tmp_path, capsys):
    def absent(*arguments, **keywords):
        raise ModuleNotFoundError("running programs needs the package pydantic-monty")

    monkeypatch.setattr(sandbox, "execute", absent)
    monkeypatch.setattr(Experiment, "run", lambda self: pytest.fail("it started"))
    assert main(["run", "tinygsm", "--preset", "smoke", "--out", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == ["mesocosm: error: running programs needs the package pydantic-monty"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"few": 6}, "few=6 is not legal: it must be at most seeds=5"),
        ({"errors": (0.1, 0.2)}, r"errors=\(0.1, 0.2\) is not legal"),
        ({"examples": (500, 250)}, r"examples=\(500, 250\) is not legal"),
        ({"d_model": 36}, "d_model=36 is not legal"),
        ({"warmup": 1000}, "warmup=1000 is not legal"),
        ({"verifier_batch_size": 2000}, "verifier_batch_size=2000 is not legal"),
        ({"batch_size": 5000}, "batch_size=5000 is not legal"),
        ({"samples": 1}, "samples=1 is not legal"),
        ({"gsm8k": "gsm8k"}, "gsm8k='gsm8k' is not legal without a language model"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'pydantic_monty'}"
    code = f"import sys, mesocosm.studies.tinygsm; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "tinygsm", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} >= set(FIGURES[:4])
    assert (folder / "verdicts.json").exists()


DEADLY = """
import os, signal, sys
from mesocosm.cli import main
from mesocosm.lab import lab
from mesocosm.training import loop
loop.TICK = 0.0
lab._Watcher.pause = property(lambda self: -1.0, lambda self, seconds: None)
replace, left = os.replace, int(sys.argv[1])
def deadly(*arguments):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(*arguments)
os.replace = deadly
code = main(sys.argv[2:])
print(int(sys.argv[1]) - left)
sys.exit(code)
"""
"""A run that writes its state at every step and is killed after so many files."""


@pytest.mark.slow
def test_records_survive_kills_within_trainings_and_between_them(tmp_path):
    def start(files, folder):
        short = [
            "--seeds",
            "1",
            "--few",
            "1",
            "--steps",
            "4",
            "--examples-steps",
            "4",
            "--verifier-steps",
            "4",
            "--no-reported",
        ]
        arguments = ["run", "tinygsm", "--preset", "smoke", *short, "--out", folder]
        command = [sys.executable, "-c", DEADLY, str(files), *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    whole = start(10_000, tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    written, held, training = int(whole.stdout.split()[-1]), [], []
    for _ in range(2):
        assert start(written // 3, tmp_path / "run").returncode == -signal.SIGKILL
        paths = sorted((tmp_path / "run" / "checkpoints").glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
        held.append({path.name for path in paths})
        training.append("step" in read_tensors(paths[-1])[1])
    assert held[0] < held[1]
    assert any(training)
    assert start(10_000, tmp_path / "run").returncode == 0
    records = [read_table(tmp_path / name / "records.parquet") for name in ("whole", "run")]
    pandas.testing.assert_frame_equal(*records)

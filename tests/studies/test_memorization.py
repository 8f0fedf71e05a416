import dataclasses
import itertools
import subprocess
import sys

import numpy
import pandas
import pytest
import torch
from sklearn.linear_model import Ridge
from strangers import OwnImages
from torch import nn

from mesocosm import models, tasks, training
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies import memorization
from mesocosm.studies.memorization import PRESETS, STUDY, Config, evaluation, figures, plan, rules, run
from mesocosm.training import History, Population

TINY = Config(
    seeds=1, train_images=60, widths=(2, 4, 8), clean_widths=(2, 8), teacher_width=8, student_widths=(4,), models=20,
    steps=8, batch_size=10, checkpoints=4,
)  # fmt: skip
DRAWN = ["scores", "widths", "classes", "proxies", "distillation"]
WIDTHS = (8, 16, 32, 64)
EXAMPLES = 200


def made_up(
    top=0.95, increase=1.0, ambiguous=0.1, clean=0.0, wrong=0.1, wrong_high=False, proxy=-0.1, related=True,
    other_half=0.2, reduction=0.3, everywhere=0.0, hard=0.0, subsampled=0.02, wrong_reference=False, error=0.0,
):  # fmt: skip
    """Records of 3 seeds: a tenth of the labels is flipped, and their scores rise to `top` in a share of `increase`."""
    rows = []
    noise = numpy.random.default_rng(0)
    doublings = numpy.log2(numpy.array(WIDTHS) / WIDTHS[0])

    def add(cell, metric, seed, width, values, flipped):
        columns = {"cell": cell, "metric": metric, "seed": seed, "step": 0, "width": width, "flipped": flipped}
        rows.append(pandas.DataFrame({**columns, "example": range(len(values)), "value": values}))

    for seed in range(3):
        flipped = (numpy.arange(EXAMPLES) < EXAMPLES // 10).astype(float)
        rises = numpy.where(flipped == 1, noise.random(EXAMPLES) < increase, noise.random(EXAMPLES) < ambiguous)
        base = 0.1 * noise.random(EXAMPLES)
        for d, width in zip(doublings, WIDTHS):
            share = d / doublings[-1]
            scores = base + rises * (top - 0.1) * share
            add("networks", "memorisation", seed, width, scores, flipped)
            for half, rise in (("one", top - 0.1), ("other", other_half)):
                add("networks", f"memorisation, {half} half", seed, width, base + rises * rise * share, flipped)
            for name in ("1 - cumulative confidence", "EL2N", "early EL2N"):
                difficulty = base + rises if related else noise.random(EXAMPLES)
                add("networks", name, seed, width, difficulty + proxy * d, flipped)
            add("networks", "chance deviation", seed, width, numpy.full(EXAMPLES, 0.1), flipped)
            guess = wrong * noise.standard_normal(EXAMPLES)
            guess[0] = 0.9 if wrong_high else guess[0]
            add("networks", "memorisation, wrong subsets", seed, width, guess, flipped)
            for images in ("train", "test"):
                add("networks", f"{images} accuracy", seed, width, [0.9], 0.0)
            if width in (8, 64):
                rare = noise.random(EXAMPLES) < clean
                add("true labels", "memorisation", seed, width, base + rare * 0.5 * share, 0 * flipped)
            if width == 32:
                for arm, less in (("distilled", reduction), ("argmax", hard)):
                    taught = scores - less * rises - everywhere - 0.01 * (arm == "distilled")
                    add(arm, "memorisation", seed, width, taught, flipped)
                    add(arm, "test accuracy", seed, width, [0.9], 0.0)
        exact = noise.random(60)
        guesses = {
            "exact": exact,
            "closed form": exact + error,
            "subsampled": exact + subsampled * noise.standard_normal(60),
            "wrong subsets": exact if wrong_reference else noise.standard_normal(60),
        }
        for name, values in guesses.items():
            add("reference", name, seed, numpy.nan, values, numpy.nan)
    return pandas.concat(rows, ignore_index=True)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["Exact", "C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("Exact", {"subsampled": 3.0}),
        ("Exact", {"error": 1e-6}),
        ("C1", {"top": 0.1}),
        ("C2", {"increase": 0.2}),
        ("C2", {"ambiguous": 0.8}),
        ("C3", {"proxy": 0.2}),
        ("C3", {"related": False}),
        ("C4", {"reduction": -0.3}),
        ("C4", {"reduction": 0.0, "everywhere": 0.1}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("Exact", {"wrong_reference": True}),
        ("C1", {"wrong": 0.2}),
        ("C1", {"wrong_high": True}),
        ("C2", {"clean": 0.5}),
        ("C3", {"other_half": -0.2}),
        ("C4", {"hard": 0.2}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


def test_rules_without_scores_or_flips_are_inconclusive():
    records = made_up()
    assert verdict("C2", records.assign(flipped=0.0))[0] == "inconclusive"
    scores = records["metric"].str.startswith("memorisation")
    assert {verdict(claim, records[~scores])[0] for claim in ("C1", "C2", "C3", "C4")} == {"inconclusive"}
    with style():
        assert not list(figures(records[~scores]))


def test_examples_are_told_by_seed_and_followed_over_widths():
    scores = pandas.DataFrame(
        {8: [0.0, 0.9, 0.1, 0.1, 0.0], 16: [0.1, 0.5, 0.9, 0.1, 0.0], 32: [0.9, 0.1, 0.1, 0.1, numpy.nan]},
        index=pandas.MultiIndex.from_tuples([(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)], names=["seed", "example"]),
    )
    classes = rules.trajectories(scores)
    assert classes.to_dict() == {(0, 0): "increasing", (0, 1): "decreasing", (1, 0): "cap", (1, 1): "flat"}
    assert rules.of_class(scores, classes, "cap", "flat").index.tolist() == [(1, 0), (1, 1)]
    assert rules.high_share(scores)[16].tolist() == pytest.approx([0, 1 / 3])
    assert rules.high_share(scores)[32].tolist() == pytest.approx([1 / 2, 0])
    assert rules.slopes(rules.of_class(scores, classes, "increasing"))[0] == pytest.approx(0.45)


def data_of(models=12, noise=0.1, seed=3):
    task = tasks.Images(count=60, label_noise=noise, draw=seed)
    return evaluation.TrainingData(task, seed, models, 0.7, 10)


def test_all_networks_of_a_seed_share_subsets_labels_and_orders():
    noisy, clean = data_of(), data_of(noise=0.0)
    assert torch.equal(noisy.included, clean.included)
    assert noisy.included.sum(1).tolist() == [42] * 12
    assert not torch.equal(noisy.included, data_of(seed=4).included)
    cpu = torch.device("cpu")
    for step in range(5):
        one, other, alone = noisy(step, range(12), cpu), clean(step, range(12), cpu), data_of()(step, [7], cpu)
        assert torch.equal(one.row, other.row)
        assert torch.equal(one.row[7:8], alone.row)
        rows = noisy.task.train().row
        for r in range(12):
            assert set(one.row[r].tolist()) <= set(rows[noisy.included[r]].tolist())


class Memory(nn.Module):
    """Knows the labels of given images by heart, answers class 0 to the rest, and gives `sure` to its answers."""

    def __init__(self, data, known, sure=20.0):
        super().__init__()
        train = data.task.train()
        self.register_buffer("images", train.inputs.flatten(1))
        self.register_buffer("labels", torch.where(known, train.targets, 0))
        self.scale = nn.Parameter(torch.tensor(sure))

    def forward(self, x):
        nearest = (x.flatten(1)[:, None] - self.images).square().sum(-1).argmin(1)
        return self.scale * nn.functional.one_hot(self.labels[nearest], 10)


def memories(data):
    """Networks that know what they trained on and nothing else."""
    made = iter(data.included)
    population = Population(lambda: Memory(data, next(made)), data.keys)
    population.mappable = False
    return population


def test_networks_that_know_their_subset_by_heart_memorise_all_but_class_0():
    data = data_of(models=30)
    history = History(memories(data), [0, 1, 2])
    watch = evaluation.Watch(data)
    assert watch(history.population, 0)["train accuracy"].tolist() == [1] * 30
    for step in (1, 2):
        watch(history.population.select(range(20)), step)
        watch(history.population.select(range(20, 30)), step)
    found = evaluation.examine(data, history, watch)
    guessed = data.task.train().targets == 0
    scored = ~found["memorisation"].isnan()
    assert scored.sum() > 50
    assert found["memorisation"][scored].tolist() == (~guessed)[scored].double().tolist()
    assert found["memorisation, one half"].nanmean() > 0.8
    assert found["train accuracy"] == 1
    assert found["1 - cumulative confidence"][scored].max() < 1e-6
    assert found["EL2N"][scored].max() < 1e-6
    assert found["margin"][scored].tolist() == [20] * int(scored.sum())
    assert found["memorisation, wrong subsets"].nanmean().abs() < 0.1
    ratio = found["memorisation, wrong subsets"].square().nanmean() / found["chance deviation"].square().nanmean()
    assert 0.6 < ratio < 1.6
    history.diverged = {3: 1}
    with torch.no_grad():
        history.population.theta[3] = torch.nan
    fewer = evaluation.examine(data, history, watch)
    assert fewer["train accuracy"] == 1
    assert set(fewer["memorisation"][~fewer["memorisation"].isnan()].tolist()) == {0.0, 1.0}


def test_the_deviation_by_chance_is_that_of_random_subsets():
    data = data_of(models=40)
    right = (torch.rand(40, 60, generator=torch.Generator().manual_seed(0)) < 0.3).double()
    draws = []
    for seed in range(400):
        order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        draws.append(memorization.evaluation.measures.feldman_memorisation(right, data.included[order]).score)
    counts = [side.sum(0).double() for side in (data.included, ~data.included)]
    expected = (right.var(dim=0) * (1 / counts[0] + 1 / counts[1])).sqrt()
    torch.testing.assert_close(torch.stack(draws).std(dim=0), expected, rtol=0.2, atol=0)


def test_what_is_kept_in_a_folder_is_what_is_kept_in_memory(tmp_path):
    data = data_of()
    population = Population(lambda: models.MLP.for_task(data.task, hidden=(4,)), data.keys)
    held, written = evaluation.Watch(data), evaluation.Watch(data, tmp_path / "answers")
    for watch, rows in itertools.product((held, written), (range(5), range(5, 12))):
        watch(population.select(rows), 3)
    again = evaluation.Watch(data, tmp_path / "answers").at(3)
    images = data.task.train()
    probabilities = torch.stack([population.replica(r)(images.inputs).softmax(-1) for r in range(12)]).detach()
    label = nn.functional.one_hot(images.targets, 10)
    torch.testing.assert_close(again["confidence"], (probabilities * label).sum(-1))
    torch.testing.assert_close(again["el2n"], (probabilities - label).square().sum(-1).sqrt())
    assert all(torch.equal(values, held.at(3)[name]) for name, values in again.items())
    assert again["el2n"].isfinite().all()
    written.forget()
    assert not (tmp_path / "answers").exists()


def test_answers_are_those_of_each_network():
    images = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = tasks.Images(source="cifar10", size=8)
    population = Population(lambda: models.ResNet.for_task(task, width=8), [0, 1])
    found = population.outputs(images, at_once=6)
    with torch.no_grad():
        expected = torch.stack([population.replica(r)(images) for r in range(2)])
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_ridge_regression_is_that_of_an_independent_implementation():
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(12, d, generator=generator, dtype=torch.float64) for d in (5, 3))
    subsets = torch.tensor([[0, 3, 4, 7], [1, 2, 10, 11]])
    found = evaluation.ridge(inputs @ inputs.T, targets, subsets)
    for rows, outputs in zip(subsets, found):
        model = Ridge(alpha=evaluation.PENALTY, fit_intercept=False).fit(inputs[rows].numpy(), targets[rows].numpy())
        numpy.testing.assert_allclose(outputs, model.predict(inputs.numpy()), atol=1e-10)


def test_the_reference_agrees_with_its_closed_form():
    found = evaluation.reference(tasks.Images(label_noise=0.1, draw=5), 5)
    torch.testing.assert_close(found["exact"], found["closed form"], atol=1e-12, rtol=0)
    assert found["exact"].max() > 0.1
    assert torch.corrcoef(torch.stack([found["exact"], found["subsampled"]]))[0, 1] > 0.9


def test_softened_distillation_is_the_divergence_from_the_teacher():
    generator = torch.Generator().manual_seed(0)
    inputs, model, teacher = torch.randn(6, 4, generator=generator), nn.Linear(4, 3), nn.Linear(4, 3)
    soft = (teacher(inputs) / 3).softmax(-1).detach()
    batch = training.Taught(lambda *_: made_batch(inputs[None]), [teacher], temperature=3.0)(0, [0], inputs.device)
    batch = batch._make(field[0] for field in batch)
    torch.testing.assert_close(batch.soft, soft)
    found = evaluation.softened(3.0, model, batch)
    divergence = nn.functional.kl_div((model(inputs) / 3).log_softmax(-1), soft, reduction="batchmean")
    entropy = -(soft * soft.log()).sum(-1).mean()
    torch.testing.assert_close(found, 9 * (divergence + entropy))


def made_batch(inputs):
    from mesocosm.tasks.images import ImageBatch

    ones = torch.ones(inputs.shape[:2])
    return ImageBatch(inputs, ones.long(), ones, ones, ones)


def records_of(config, folder=None, **lab):
    lab = Lab(folder, **lab)
    run(config, lab)
    return lab.records()


@pytest.fixture(scope="module")
def tiny():
    return records_of(TINY)


def test_a_run_that_was_cut_off_goes_on_to_equal_records(tmp_path, tiny):
    lab, calls = Lab(tmp_path), itertools.count()
    lab.record = lambda *args, **kwargs: 1 / 0 if next(calls) == 5 else Lab.record(lab, *args, **kwargs)
    with pytest.raises(ZeroDivisionError):
        run(TINY, lab)
    pandas.testing.assert_frame_equal(records_of(TINY, tmp_path), tiny, rtol=1e-4, atol=1e-5)
    assert not list(tmp_path.glob("**/step *"))


def test_a_training_that_was_cut_off_still_has_its_earlier_checkpoints(tmp_path, tiny, monkeypatch):
    monkeypatch.setattr("mesocosm.training.loop.TICK", 0.0)
    lab, calls = Lab(tmp_path, stack=8), itertools.count(1)
    whole = evaluation.Watch.__call__

    def interrupting(self, population, step):
        lab.interrupted = next(calls) == 8
        return whole(self, population, step)

    monkeypatch.setattr(evaluation.Watch, "__call__", interrupting)
    with pytest.raises(KeyboardInterrupt):
        run(TINY, lab)
    assert len(list(tmp_path.glob("**/step *"))) == 8
    monkeypatch.undo()
    pandas.testing.assert_frame_equal(records_of(TINY, tmp_path, stack=8), tiny, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one(tiny):
    large = records_of(dataclasses.replace(TINY, seeds=2), stack=7)
    expected = large[large["seed"] == 0].reset_index(drop=True)
    pandas.testing.assert_frame_equal(tiny, expected, rtol=1e-4, atol=1e-5)


def test_another_architecture_takes_the_place_of_the_widest_networks(tiny):
    records = records_of(TINY, architecture=OwnImages)
    assert {judge(claim, records, {}).verdict for claim in STUDY.claims} <= {"inconclusive", "not supported"}
    losses = [
        some[(some["metric"] == "loss") & (some["step"] == 8)].groupby(["arm", "width"])["value"].mean()
        for some in (records, tiny)
    ]
    other = (losses[0] - losses[1]).abs() > 1e-6
    assert other[other].index.tolist() == [("argmax", 4), ("distilled", 4), ("networks", 8), ("true labels", 8)]


def test_another_architecture_that_teaches_nobody_leaves_students_alone(tiny):
    config = dataclasses.replace(TINY, teacher_width=4)
    cells = {cell.name: cell for cell in plan(config)}
    assert [name for name, cell in cells.items() if cell.swappable] == [
        "networks/width=8/seed=0",
        "true labels/width=8/seed=0",
    ]


def test_what_is_recorded_of_a_real_run(tiny):
    scores = rules.table(tiny, "networks")
    assert scores.columns.tolist() == [2, 4, 8]
    train = TINY.images(0).train()
    noise = rules.flipped(tiny)
    assert noise[0].tolist() == (train.targets != train.clean)[noise[0].index.tolist()].tolist()
    assert rules.table(tiny, "true labels").columns.tolist() == [2, 8]
    assert rules.student_widths(tiny) == [4]
    with style():
        assert {drawing.name for drawing in figures(tiny)} <= set(DRAWN)


def test_made_up_records_are_drawn():
    records = made_up()
    with style():
        drawings = {drawing.name: drawing for drawing in figures(records)}
    assert list(drawings) == DRAWN
    less = rules.reductions(records, "distilled", 32)
    classes = rules.trajectories(rules.table(records, "networks"))
    rising = rules.of_class(less, classes, "increasing").mean()
    assert f"by {rising:.3f} on increasing" in drawings["distillation"].caption


def test_students_learn_from_the_network_on_their_own_subset():
    cells = {cell.name: cell for cell in plan(TINY)}
    student, teacher = cells["distilled/width=4/seed=0"], cells["networks/width=8/seed=0"]
    assert torch.equal(student.stream.stream.included, teacher.stream.included)
    population = Lab(None).population(teacher)
    batch = memorization.taught(TINY, memorization.cells_of(TINY, 0)[1][0], population).stream(
        0, range(20), torch.device("cpu")
    )
    for r in (0, 13):
        soft = (population.replica(r)(batch.inputs[r]) / TINY.temperature).softmax(-1)
        torch.testing.assert_close(batch.soft[r], soft, atol=1e-6, rtol=1e-4)
        rows = teacher.stream.task.train().row[teacher.stream.included[r]]
        assert set(batch.row[r].tolist()) <= set(rows.tolist())
    argmax = cells["argmax/width=4/seed=0"]
    assert (argmax.stream.temperature, argmax.objective) == (0, training.distil)


def test_labels_are_flipped_in_the_share_that_is_asked():
    task = Config(label_noise=0.2).images(4)
    train = task.train()
    assert (train.targets != train.clean).double().mean() == pytest.approx(0.2, abs=0.04)
    clean = Config().images(4, label_noise=0.0).train()
    assert torch.equal(clean.row, train.row)
    assert torch.equal(clean.targets, clean.clean)


def test_missing_images_are_an_error_of_the_user(tmp_path, capsys):
    words = ["--preset", "smoke", "--source", "cifar10", "--folder", str(tmp_path), "--out", str(tmp_path / "run")]
    assert main(["run", "memorization", *words]) == 2
    assert "cifar10 was not found" in capsys.readouterr().err


def test_paper_preset_is_of_the_papers_size():
    cells = list(plan(PRESETS["paper"]))
    widest = next(cell for cell in cells if cell.settings["width"] == 64)
    assert len(widest.seeds) == 400
    with torch.device("meta"):
        model = widest.model(widest.task)
    assert isinstance(model, models.ResNet)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.2e6, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"widths": (8, 4, 16)}, "widths=.* is not legal: it must be three or more, rising"),
        ({"widths": (8, 16)}, "widths=.* is not legal: it must be three or more, rising"),
        ({"clean_widths": (32,)}, "clean_widths=.* is not legal: it must be two or more, rising"),
        ({"clean_widths": (8, 9)}, "clean_widths=.* is not legal: each must be one of widths"),
        ({"student_widths": (32, 32)}, "student_widths=.* is not legal: each must be one of widths"),
        ({"teacher_width": 9}, "teacher_width=9 is not legal: it must be one of"),
        ({"network": "resnet", "widths": (4, 8, 32, 64, 128)}, "for network=resnet each must be a multiple of 8"),
        ({"network": "cnn", "side": 2}, "side=2 is not legal: for network=cnn it must be at least 4"),
        ({"train_images": 2000}, "train_images=2000 is not legal: digits has 1000"),
        ({"train_images": 60}, "batch_size=50 is not legal: a subset has 42 images"),
        ({"side": 5}, "side=5 is not legal: it must divide 8"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'sklearn'}"
    code = f"import sys, mesocosm.studies.memorization; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "memorization", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()
    assert memorization.STUDY is STUDY

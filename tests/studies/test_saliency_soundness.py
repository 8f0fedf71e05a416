import dataclasses
import subprocess
import sys

import numpy as np
import pandas
import pytest
import torch
from torch import nn

from mesocosm import measures
from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.seeding import generator
from mesocosm.studies.saliency_soundness import (
    PRESETS,
    STUDY,
    Config,
    evaluation,
    figures,
    maps,
    plan,
    rules,
    run,
)

pytest.importorskip("captum")

TINY = Config(
    seeds=1, channels=2, steps=3, images_per_class=1, mask_steps=2, draws=1, points=2, samples=2, insertions=4, fills=1
)
DRAWN = ["plane", "scores", "curves", "maps"]
AREAS = {
    "random": (0.5, 0.1),
    "|gradient|": (0.7, 0.12),
    "gradient x input": (0.95, 0.8),
    "integrated gradients": (0.94, 0.78),
    "greedy": (0.99, 0.9),
    "mask": (0.96, 0.82),
    "mask with TV": (0.9, 0.3),
    "coarse mask": (0.92, 0.25),
    "coarse mask with TV": (0.88, 0.2),
}
"""Insertion areas of the predicted and of other labels."""


def made_up(shuffled=(0.5, 0.5), untrained=(0.3, 0.3), constant=1.0, images=40, noise=0.01, **changes):
    """Records of two networks which give their predicted label 0.99: areas by method as in AREAS, and changes."""
    areas = AREAS | {name.replace("_", " "): pair for name, pair in changes.items()}
    areas["|gradient|"] = changes.get("gradient", areas["|gradient|"])
    draw = np.random.default_rng(0)
    rows = []

    def add(cell, method, own, others):
        for seed in range(2):
            for image in range(images):
                for label in range(10):
                    p = 0.99 if label == image % 10 else 0.001
                    g = (own if label == image % 10 else others) + noise * draw.uniform(-1, 1)
                    values = {
                        "probability": p,
                        "insertion area": g,
                        "deletion area": 1 - g,
                        "completeness": constant if cell == "constant" else min(max(0.1, g) / p, 1),
                        "soundness": constant if cell == "constant" else min(max(0.1, p) / g, 1),
                        "soundness, images as fill": 0.5,
                    }
                    places = {"cell": cell, "seed": seed, "method": method, "image": image, "label": label}
                    rows.extend({**places, "target": image % 10, "metric": m, "value": v} for m, v in values.items())

    for method, pair in areas.items():
        add("maps", method, *pair)
    for method, own in zip(("mask", "coarse mask with TV"), shuffled):
        add("shuffled", method, own, 0.1)
    add("untrained", "mask", *untrained)
    add("constant", "random", 0.5, 0.5)
    return pandas.DataFrame(rows).assign(step=0)


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
def test_claims_are_supported_where_the_effect_is_there(claim):
    assert verdict(claim, made_up()) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"gradient_x_input": (0.95, 0.2)}),
        ("C1", {"integrated_gradients": (0.8, 0.78)}),
        ("C1", {"mask": (0.85, 0.9)}),
        ("C2", {"mask_with_TV": (0.9, 0.95)}),
        ("C2", {"coarse_mask": (0.9, 0.95)}),
        ("C2", {"coarse_mask_with_TV": (0.9, 0.95)}),
        ("C3", {"gradient": (0.985, 0.12)}),
        ("C3", {"integrated_gradients": (0.9, 0.1)}),
        ("C4", {"greedy": (0.99, 0.5)}),
        ("C4", {name.replace(" ", "_"): (own, 1.1 - own) for name, (own, _) in AREAS.items() if "grad" not in name}
         | {"gradient": (0.7, 0.4), "gradient_x_input": (0.95, 0.15), "integrated_gradients": (0.94, 0.16)}),
    ],
)  # fmt: skip
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes))[0] == "not supported"


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"random": (0.9, 0.1)}),
        ("C1", {"random": (0.5, 0.9)}),
        ("C1", {"constant": 0.99}),
        ("C2", {"shuffled": (0.93, 0.5)}),
        ("C2", {"shuffled": (0.5, 0.8)}),
        ("C3", {"untrained": (0.6, 0.3)}),
    ],
)
def test_controls_fire_where_their_effect_is_present(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


def test_the_control_of_c2_sees_soundness_that_shuffled_maps_gain():
    records = made_up()
    spelled = (records["cell"] == "shuffled") & (records["method"] == "mask") & (records["metric"] == "soundness")
    records.loc[spelled, "value"] *= 0.5
    assert verdict("C2", records) == ("inconclusive", "present")


def test_worst_soundness_and_its_interval_are_over_the_images_of_each_network():
    records = made_up(noise=0.2)
    nets = rules.networks(records)
    expected = []
    for seed in range(2):
        rows = records[(records["cell"] == "maps") & (records["method"] == "greedy") & (records["seed"] == seed)]
        own = rows[rows["metric"] == "soundness"]
        expected.append(own.groupby("label")["value"].mean().min())
    found = rules.over_images(nets, rules.worst("greedy"))
    assert found.estimate == pytest.approx(np.mean(expected))
    assert found.low < found.estimate < found.high
    everything = rules.over_images(nets[:1], lambda net, weights: weights.sum(-1))
    assert (everything.low, everything.high) == pytest.approx((1, 1))


def test_statistics_are_those_of_the_measures():
    """On made-up areas, as `saliency_scores` has them."""
    net = rules.networks(made_up(noise=0.1))[0]
    tables = [torch.tensor(net.of("coarse mask", m)) for m in ("insertion area", "probability")]
    scores = measures.saliency_scores(*tables)
    all_alike = np.full(len(net.targets), 1 / len(net.targets))
    assert rules.worst("coarse mask")(net, all_alike) == pytest.approx(scores.worst_soundness)
    assert rules.wrong("coarse mask")(net, all_alike) == pytest.approx(scores.wrong_area)
    assert rules.predicted("coarse mask", "insertion area")(net, all_alike) == pytest.approx(scores.area)
    assert rules.predicted("coarse mask", "completeness")(net, all_alike) == pytest.approx(scores.completeness)


def test_too_little_is_inconclusive_with_its_reason():
    records = made_up()
    claims = {claim.id: claim for claim in STUDY.claims}
    without = judge(claims["C3"], records[records["method"] != "|gradient|"], {})
    assert (without.verdict, without.note) == ("inconclusive", "there is no completeness of |gradient|")
    nothing = judge(claims["C1"], records[records["cell"] == "first image"], {})
    assert (nothing.verdict, nothing.note) == ("inconclusive", "there are no maps: every network diverged")


class Linear(nn.Module):
    """Logits w.x and 0 of images."""

    def __init__(self, w):
        super().__init__()
        self.w = nn.Parameter(w)

    def forward(self, x):
        score = (x * self.w).flatten(1).sum(1)
        return torch.stack((score, torch.zeros_like(score)), dim=1)


def normal(*shape):
    return torch.randn(*shape, generator=generator("soundness", *shape))


def test_greedy_maps_of_a_linear_model_insert_the_largest_contributions_first():
    w, inputs = normal(2, 3, 4), normal(5, 2, 3, 4)
    contributions = (w * inputs).sum(1).flatten(1)
    for label, sign in ((0, 1), (1, -1)):
        found = maps.greedy_maps(Linear(w), 5, inputs, torch.full((5,), label))
        assert torch.equal(found.flatten(1).argsort(descending=True), (sign * contributions).argsort(descending=True))


def test_greedy_maps_spell_labels_that_the_first_gradient_does_not_see():
    """x and y raise the label only together, and z alone a little: so does the gradient at grey rank them."""

    class Product(nn.Module):
        def forward(self, x):
            a, b, c, d = x.flatten(1).unbind(1)
            score = 0.1 * a + 5 * a * b + 0.05 * c - d
            return torch.stack((score, torch.zeros_like(score)), dim=1)

    found = maps.greedy_maps(Product(), 4, torch.ones(1, 1, 2, 2), torch.tensor([0]))
    assert found.flatten().argsort(descending=True).tolist() == [0, 1, 2, 3]


def chosen(seed=3, **changes):
    config = dataclasses.replace(TINY, **changes)
    (cell,) = plan(config)
    return config, evaluation.choose(config, cell.task, seed, "cpu"), Lab(None).model(cell).eval()


def test_images_are_as_many_of_each_class_and_belong_to_their_network():
    config, images, _ = chosen(images_per_class=2)
    assert images.targets.bincount().tolist() == [2] * 10
    (cell,) = plan(config)
    test = cell.task.test()
    for image, target in zip(images.inputs, images.targets):
        rows = (test.inputs == image).flatten(1).all(1)
        assert target in test.targets[rows]
    other = evaluation.choose(config, cell.task, 4, "cpu")
    assert not torch.equal(images.inputs, other.inputs)
    one = dataclasses.replace(config, images_per_class=1)
    assert torch.equal(evaluation.choose(one, cell.task, 3, "cpu").inputs, images.inputs[::2])


def test_evaluation_is_that_of_the_measures():
    config, images, network = chosen()
    made = maps.random_maps(images)
    found = evaluation.evaluate(config, network, images, made)
    areas, probabilities = measures.insertion_areas(network, images.inputs, made, steps=4)
    torch.testing.assert_close(found["insertion area"], areas)
    torch.testing.assert_close(found["probability"], probabilities)
    filled, _ = measures.insertion_areas(network, images.inputs, made, 4, images.fills)
    torch.testing.assert_close(found["insertion area, images as fill"], filled)
    torch.testing.assert_close(found["soundness"], measures.soundness(areas, probabilities))
    predicted = areas.gather(1, probabilities.argmax(1, keepdim=True)).mean()
    torch.testing.assert_close(found["curve, predicted label"].mean(), predicted)
    others = (areas.sum() - 10 * predicted) / 90
    torch.testing.assert_close(found["curve, other labels"].mean(), others)
    labels = torch.full((10,), 2)
    hidden = measures.deletion_curve(network, images.inputs, made[:, 2], labels, 4).mean(1)
    torch.testing.assert_close(found["deletion area"][:, 2], hidden)


def test_shuffled_maps_keep_their_values():
    made = maps.random_maps(chosen()[1])
    mixed = maps.shuffled(made, 0)
    torch.testing.assert_close(mixed.flatten(2).sort().values, made.flatten(2).sort().values)
    assert not torch.equal(mixed, made)
    same = torch.arange(64.0).view(8, 8).expand(2, 2, 8, 8)
    apart = maps.shuffled(same, 0).flatten(0, 1)
    assert not torch.equal(apart[0], apart[1])


def test_masks_differ_in_tv_and_scale_alone(monkeypatch):
    asked = []

    def learn(network, inputs, labels, noise, generator, **settings):
        asked.append(settings)
        return inputs[:, 0]

    monkeypatch.setattr(measures, "learn_masks", learn, raising=False)
    config, images, network = chosen(l1=6.4, tv=4.0)
    made = {name: make() for name, make in maps.masks(config, network, images).items()}
    assert tuple(made) == rules.MASKS
    assert [(s["tv"], s["scale"]) for s in asked] == [(0, 1), (0.5, 1), (0, 2), (0.5, 2)]
    assert {s["l1"] for s in asked} == {0.1}


def test_every_method_gives_a_map_for_every_label():
    config, images, network = chosen()
    found = maps.methods(config, network, images)
    assert set(found) == set(figures_methods())
    for name, make in found.items():
        made, again = make(), make()
        assert made.shape == (10, 10, 8, 8), name
        assert torch.equal(made, again), name
        assert (made[0, 0] - made[0, 1]).abs().max() > 0, name


def figures_methods():
    from mesocosm.studies.saliency_soundness.figures import METHODS

    return METHODS


def records_of(config, **lab):
    lab = Lab(None, **lab)
    run(config, lab)
    return lab.records()


class Stranger(nn.Module):
    """A user's own network, without convolutions."""

    def __init__(self, task):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x):
        return self.layers(x)


def test_another_architecture_runs_and_is_judged_and_drawn():
    records = records_of(TINY, architecture=Stranger)
    assert "GradCAM" not in set(records["method"])
    judgements = [judge(claim, records, {}) for claim in STUDY.claims]
    assert not any(judgement.note.startswith("there") for judgement in judgements)
    with style():
        assert [drawing.name for drawing in figures(records)] == DRAWN


def test_the_constant_classifier_is_complete_and_sound():
    records = records_of(TINY)
    constant = records[(records["cell"] == "constant") & records["metric"].isin(["completeness", "soundness"])]
    assert len(constant) == 200
    assert constant["value"].min() > 1 - 1e-6
    net = rules.networks(records)[0]
    for method in figures_methods():
        rows = records[(records["cell"] == "maps") & (records["method"] == method)]
        curve = rows[rows["metric"] == "curve, predicted label"]
        whole = net.split(method, "probability")[0].mean()
        assert curve.sort_values("share")["value"].iloc[-1] == pytest.approx(whole, rel=1e-5)


@pytest.mark.slow
def test_the_first_seeds_of_a_larger_run_are_those_of_a_smaller_one():
    small, large = records_of(TINY), records_of(dataclasses.replace(TINY, seeds=2))
    expected = large[large["seed"] == 0].reset_index(drop=True)
    pandas.testing.assert_frame_equal(small, expected, rtol=1e-4, atol=1e-5)


def test_a_run_without_captum_or_images_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    words = ["--preset", "smoke", "--source", "cifar10", "--folder", str(tmp_path)]
    assert main(["run", "saliency-soundness", *words, "--out", str(tmp_path / "a")]) == 2
    assert "cifar10 was not found" in capsys.readouterr().err
    monkeypatch.setattr(evaluation, "find_spec", lambda name: None)
    assert main(["run", "saliency-soundness", "--preset", "smoke", "--out", str(tmp_path / "b")]) == 2
    assert "captum is not installed: pip install 'mesocosm[saliency]'" in capsys.readouterr().err


def test_what_is_left_open_suits_the_source():
    for source, (images, scale) in {"digits": (5, 2), "fashion-mnist": (3, 4), "cifar10": (3, 4)}.items():
        config = Config(source=source)
        assert (config.images_each(), config.coarse()) == (images, scale)
    assert Config(scale=3, images_per_class=7).coarse() == 3
    (cell,) = plan(PRESETS["paper"])
    with torch.device("meta"):
        model = cell.model(cell.task)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(11.2e6, rel=0.02)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": 9}, "scale=9 is not legal: it must be at most 8, the side of digits"),
        ({"network": "resnet"}, "channels=12 is not legal: for network=resnet it must be a multiple of 8"),
        ({"insertions": 65}, "insertions=65 is not legal"),
        ({"images_per_class": 0}, "images_per_class=0 is not legal"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)


def test_importing_the_study_imports_no_heavy_library():
    heavy = "{'torch', 'pandas', 'matplotlib', 'scipy', 'captum'}"
    code = f"import sys, mesocosm.studies.saliency_soundness; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_smoke_runs_end_to_end(tmp_path):
    folder = tmp_path / "run"
    assert main(["run", "saliency-soundness", "--preset", "smoke", "--out", str(folder)]) == 0
    assert {path.stem for path in (folder / "figures").glob("*.png")} == set(DRAWN)
    assert (folder / "verdicts.json").exists()

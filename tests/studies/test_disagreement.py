import dataclasses

import pandas
import pytest
import torch

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.lab import Lab
from mesocosm.lab.style import style
from mesocosm.studies.disagreement import MODES, STUDY, Config, figures, plan, run

TINY = Config(
    seeds=3, train_sizes=(20,), test_images=60, widths=(2,), hidden=(8,), init_gains=(1,), learning_rates=(0.02, 0.05),
    weight_decays=(0.0,), batch_sizes=(10,), epochs=10, copies=2, calibration_copies=3,
)  # fmt: skip
NETWORK = {"AllDiff": 1.1, "DiffData": 1.0, "DiffInit": 0.9, "DiffOrder": 0.8}
MLP = {"AllDiff": 1.0, "DiffData": 1.0, "DiffInit": 0.3, "DiffOrder": 0.1}


def made_up(network=NETWORK, mlp=MLP, logistic=0.1, cace=2.0, permuted=1.6, fit=1.0, ece=0.0, source="digits"):
    """Records in which dis = slope x err for each group and mode, and CACE = `cace` x gap."""
    rows = []
    groups = {"network": network, "mlp": mlp, "logistic": {"DiffInit": logistic}}
    for group, slopes in groups.items():
        for mode, slope in slopes.items():
            for i, seed in ((i, seed) for i in range(6) for seed in range(3)):
                error = 0.05 + 0.02 * i + 0.001 * seed
                for labels in ("true", "noisy", "permuted"):
                    wrong = 0.9 if labels == "permuted" else error
                    gap = wrong - 0.75 * slope * error
                    metrics = {"error": wrong, "disagreement": slope * error, "gap": gap, "gap from the curve": gap}
                    metrics |= {"absolute gap": abs(gap), "gap bound": abs(gap), "top-label ece": 0.01}
                    metrics |= {"train accuracy": fit, "cace": permuted if labels == "permuted" else cace * abs(gap)}
                    columns = {"cell": f"{group}/8", "size": 8, "learning_rate": i, "weight_decay": 0.0, "mode": mode}
                    columns |= {"labels": labels, "seed": seed, "source": source}
                    rows += [{**columns, "metric": name, "value": value} for name, value in metrics.items()]
    rows += [
        {"cell": "example", "metric": m, "value": v} for m, v in {"absolute gap": 0.04, "top-label ece": ece}.items()
    ]
    return pandas.DataFrame(rows).astype({"labels": object})


def verdict(claim, records):
    judgement = judge(next(c for c in STUDY.claims if c.id == claim), records, {})
    return judgement.verdict, judgement.control["verdict"]


@pytest.mark.parametrize("claim", ["C1", "C2", "C3", "C4"])
@pytest.mark.parametrize("source", ["digits", "cifar10"])
def test_claims_are_supported_where_the_effect_is_there(claim, source):
    assert verdict(claim, made_up(source=source)) == ("supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"network": NETWORK | {"DiffInit": 0.4}}),
        ("C1", {"network": NETWORK | {"DiffOrder": 0.4}, "source": "cifar10"}),
        ("C2", {"cace": 0.9}),
        ("C3", {"cace": -2.0}),
        ("C4", {"network": NETWORK | {"DiffInit": 0.5}}),
    ],
)
def test_claims_are_not_supported_where_the_effect_is_absent(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("not supported", "absent")


@pytest.mark.parametrize(
    ("claim", "changes"),
    [
        ("C1", {"logistic": 1.0}),
        ("C1", {"mlp": MLP | {"DiffInit": 1.0}}),
        ("C2", {"ece": 0.1}),
        ("C3", {"permuted": 0.01}),
        ("C4", {"mlp": MLP | {"DiffInit": 0.9}}),
    ],
)
def test_a_control_that_shows_the_effect_forbids_support(claim, changes):
    assert verdict(claim, made_up(**changes)) == ("inconclusive", "present")


def test_digits_are_not_judged_on_the_order_of_batches():
    assert verdict("C1", made_up(network=NETWORK | {"DiffOrder": 0.1}))[0] == "supported"


@pytest.mark.parametrize("claim", ["C1", "C4"])
def test_networks_that_do_not_interpolate_decide_nothing(claim):
    assert verdict(claim, made_up(fit=0.98)) == ("inconclusive", "inconclusive")


@pytest.mark.parametrize("claim", ["C1", "C3", "C4"])
def test_one_study_seed_decides_nothing(claim):
    records = made_up()
    assert verdict(claim, records[records["seed"] != 1][lambda table: table["seed"] != 2])[0] == "inconclusive"


@pytest.mark.parametrize("mode", MODES)
def test_copies_of_a_cell_differ_in_what_their_mode_names(mode):
    cell = next(plan(TINY))
    assert cell.name == "network/2 n=20 batch=10"
    chosen = [r for r, m in enumerate(cell.settings["mode"]) if m == mode and cell.seeds[r] == 1][:2]
    assert [cell.settings["copy"][r] for r in chosen] == [0, 1]
    assert (len({cell.init[r] for r in chosen}) == 2) == (mode in ("AllDiff", "DiffInit"))
    rows = torch.stack([cell.stream(step, chosen, torch.device("cpu")).row for step in range(2)], dim=1).flatten(1)
    assert torch.equal(*rows) == (mode == "DiffInit")
    assert (set(rows[0].tolist()) == set(rows[1].tolist())) == (mode in ("DiffInit", "DiffOrder"))


def test_only_the_network_can_be_swapped():
    assert {cell.name.split("/")[0] for cell in plan(TINY) if cell.swappable} == {"network", "calibration network"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"train_sizes": (600,)}, "train_sizes=.600,. is not legal with copies=4: .* need 2400, and digits has 1000"),
        ({"batch_sizes": (300,)}, "batch_size=300 is not legal: at most the 100"),
        ({"source": "cifar10", "folder": "nowhere"}, "cifar10 was not found: none of nowhere/cifar10, nowhere holds"),
        ({"source": "fashion-mnist", "side": 5}, "size=5 is not legal: it must divide 28"),
    ],
)
def test_what_cannot_run_is_refused_in_the_plan(config, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**config)))


def test_show_says_where_the_images_of_a_preset_were_looked_for(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MESOCOSM_DATA", str(tmp_path))
    assert main(["show", "disagreement"]) == 0
    assert "paper: cifar10 was not found: none of" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"network": "resnet"}, r"widths=\(4, 8\) is not legal: .* multiple of 8"),
        ({"learning_rates": (0.1, 0.1)}, r"learning_rates=\(0.1, 0.1\) is not legal: each value may be given once"),
    ],
)
def test_bad_settings_are_named(config, message):
    with pytest.raises(ValueError, match=message):
        Config(**config)


def table(config):
    lab = Lab(None)
    run(config, lab)
    return lab.records()


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_seeds():
    few, many = table(TINY), table(dataclasses.replace(TINY, seeds=7))
    pandas.testing.assert_frame_equal(few, many[many["seed"] < 3].reset_index(drop=True), check_exact=True)
    assert {claim.id: judge(claim, few, {}).verdict for claim in STUDY.claims}["C2"] == "supported"
    with style():
        drawn = list(figures(few))
    assert [drawing.name for drawing in drawn] == ["disagreement", "reliability", "bound", "initial-scale"]


@pytest.mark.slow
def test_smoke_preset_runs_from_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "disagreement", "--preset", "smoke", "--out", "out"]) == 0
    assert len(list((tmp_path / "out" / "figures").glob("*.png"))) == 4

import numpy as np
import pandas as pd
import pytest

from mesocosm.cli import main
from mesocosm.lab.claims import judge
from mesocosm.lab.files import read_json, read_table
from mesocosm.studies.hidden_progress import GAPS, STUDY, Config, fourier_gap, plan

CLAIMS = {claim.id: claim for claim in STUDY.claims}
NEVER = np.inf
DRAWS = np.random.default_rng(0)


def times(median, spread=0.1, seeds=16):
    return np.rint(median * (1 + spread * np.linspace(-1, 1, seeds))).clip(1)


def curve(cell, times, share=0.6, metric="error", flat=0.5):
    """Error of each seed at chance, then below 45 % from `share` of the time at which it is below 2 %."""
    for seed, time in enumerate(times):
        points = [(0, flat), (1e6, flat)] if time == NEVER else [(0, flat), (max(1, share * time), 0.3), (time, 0.0)]
        yield from ((cell, seed, int(step), metric, value) for step, value in dict(points).items())


def records(*curves):
    rows = [row for curve in curves for row in curve]
    return pd.DataFrame(rows, columns=["cell", "seed", "step", "metric", "value"]).assign(n=30.0, k=3.0)


def plateau(share=0.6, learn=16, noise=0.5, frozen=0.5):
    return records(
        curve("C1/reference", [*times(1000)[:learn], *[NEVER] * (16 - learn)], share),
        curve("C1/relu-10", times(2000)),
        curve("C1/zigzag", times(100), share=0.1),
        curve("C1/control/noise labels", [NEVER] * 16, flat=noise),
        curve("C1/control/random features", [NEVER] * 16, flat=frozen),
    )


def scaling(slopes=(0.8, 0.6, 1.2, 3), linear_share=0.05, odd_seeds=1.0, seeds=16):
    odd = np.where(np.arange(seeds) % 2, odd_seeds, 1)
    made = []
    for (k, sizes), slope in zip({1: (10, 20, 40), 2: (10, 20, 40), 3: (10, 20, 40), 5: (14, 20)}.items(), slopes):
        for n in sizes:
            t = times(100 * (n / 10) ** (slope * odd), seeds=seeds)
            made.append(curve(f"C2/k={k}/n={n}", t, linear_share if k == 1 else 0.6))
    return records(*made)


def progress(z=6.0, noise_z=0.0, bend=1.0, seeds=16):
    """Progress grows as a power of time, which is a straight line for `bend` 1, until the plateau ends at step 300."""
    rows = []
    for cell, mean in (("k=4", z), ("k=3", z), ("noise labels", noise_z)):
        for seed, off in enumerate(np.linspace(-1, 1, seeds)):
            for step in range(0, 500, 50):
                at = (f"C3/{cell}", seed, step)
                error = 0.5 if step <= 300 or cell == "noise labels" else 0.2
                values = {"error": error, "progress": step**bend, "rho": step, "wrong mean": 0.0, "wrong sd": 1.0}
                values |= {"z": 100.0 if error < 0.4 else mean + off} if step else {}
                rows += [(*at, metric, value) for metric, value in values.items()]
    return records(rows)


def search(free, fixed):
    return records(curve("C4/random starts", free), curve("C4/one start", fixed))


def gaps(**wrong):
    return records(
        (f"C5/n={n}/k={k}", seed, 0, metric, value)
        for n, k in GAPS
        for seed in range(3)
        for metric, value in (fourier_gap(n, k, seed) | wrong).items()
    )


def grokking(lags):
    cells = [
        (curve(f"C6/samples={m}", times(1000) * lag), curve(f"C6/samples={m}", times(1000), metric="train error"))
        for m, lag in lags.items()
    ]
    return records(*(curve for pair in cells for curve in pair))


GEOMETRIC = DRAWS.geometric(1 / 1000, 64)
CONCENTRATED = times(1000, 0.3, 64)


@pytest.mark.parametrize(
    ("claim", "made", "verdict"),
    [
        ("C1", plateau(), "supported"),
        ("C1", plateau(share=0.1), "not supported"),
        ("C1", plateau(learn=13), "not supported"),
        ("C2", scaling(), "supported"),
        ("C2", scaling(slopes=(0.8, 1.0, 1.0, 1.0)), "inconclusive"),
        ("C2", scaling(slopes=(0.8, 1.2, 0.6, 3)), "not supported"),
        ("C3", progress(), "supported"),
        ("C3", progress(z=0.0), "not supported"),
        ("C3", progress(bend=8), "not supported"),
        ("C4", search(CONCENTRATED, CONCENTRATED), "supported"),
        ("C4", search(GEOMETRIC, GEOMETRIC), "not supported"),
        ("C4", search(CONCENTRATED, times(1000, 0.9, 64)), "not supported"),
        ("C4", search([*CONCENTRATED, NEVER], CONCENTRATED), "inconclusive"),
        ("C5", gaps(), "supported"),
        ("C5", gaps(difference=1e-6), "not supported"),
        ("C5", gaps(**{"gap over bound": 0.5}), "not supported"),
        ("C6", grokking({200: NEVER, 300: 5, 1600: 1}), "supported"),
        ("C6", grokking({200: NEVER, 300: 1, 1600: 1}), "not supported"),
        ("C6", grokking({200: NEVER, 1600: NEVER}), "inconclusive"),
    ],
)
def test_a_rule_finds_the_effect_where_it_is_and_not_where_it_is_absent(claim, made, verdict):
    assert judge(CLAIMS[claim], made, {}).verdict == verdict


@pytest.mark.parametrize(
    ("claim", "made"),
    [
        ("C1", plateau(noise=0.4)),
        ("C1", plateau(frozen=0.3)),
        ("C2", scaling(linear_share=0.6)),
        ("C2", scaling(odd_seeds=0.7)),
        ("C3", progress(noise_z=5.0)),
        ("C6", grokking({300: 5, 1600: 5})),
    ],
)
def test_an_effect_in_the_control_keeps_a_claim_from_being_supported(claim, made):
    judged = judge(CLAIMS[claim], made, {})
    assert judged.control is not None
    assert judged.control["verdict"] == "present"
    assert judged.verdict == "inconclusive"


@pytest.mark.parametrize(
    ("claim", "made"),
    [
        ("C1", plateau()[lambda r: r.seed < 1]),
        ("C2", scaling()[lambda r: r.seed < 1]),
        ("C2", scaling(seeds=2)),
        ("C2", scaling()[lambda r: r.cell != "C2/k=3/n=20"]),
        ("C2", scaling()[lambda r: ~r.cell.str.contains("k=5/n=20")]),
        ("C3", progress()[lambda r: r.seed < 1]),
        ("C4", search(CONCENTRATED[:1], CONCENTRATED[:1])),
        ("C4", search(CONCENTRATED[:2], CONCENTRATED[:2])),
        ("C6", grokking({300: 5, 1600: 1})[lambda r: r.seed < 1]),
    ],
)
def test_few_records_are_inconclusive(claim, made):
    assert judge(CLAIMS[claim], made, {}).verdict == "inconclusive"


@pytest.mark.parametrize(("n", "k"), GAPS)
def test_fourier_gap_is_an_identity(n, k):
    found = fourier_gap(n, k, seed=1)
    assert found["difference"] <= 1e-12
    assert found["ratio difference"] <= 1e-12
    assert found["gap over bound"] >= 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bits_3": (10, 10)}, "bits_3=.*must differ"),
        ({"exact_n": 17}, "exact_n=17 is not legal"),
        ({"samples": (50,), "batch_size": 64}, "batch_size=64 is not legal: at most the 50"),
    ],
)
def test_an_illegal_configuration_is_one_sentence(settings, message):
    with pytest.raises(ValueError, match=message):
        list(plan(Config(**settings)))


TINY = "--bits-1 5 --bits-2 5 --bits-3 5 --bits-4 5 --bits-5 6 --exact-n 8 --steps 300 --control-steps 50"


def run(folder, *flags):
    assert main(["run", "hidden-progress", "--preset", "smoke", "--out", str(folder), *flags]) == 0
    return read_table(folder / "records.parquet")


@pytest.mark.slow
def test_smoke_run_end_to_end(tmp_path):
    run(tmp_path / "run")
    verdicts = {claim["id"]: claim["verdict"] for claim in read_json(tmp_path / "run" / "verdicts.json")["claims"]}
    assert list(verdicts) == ["C1", "C2", "C3", "C4", "C5", "C6"]
    assert verdicts["C5"] == "supported"
    for name in ("plateau", "hidden-progress", "scaling", "times"):
        assert (tmp_path / "run" / "figures" / f"{name}.svg").stat().st_size > 10_000


@pytest.mark.slow
def test_records_do_not_depend_on_the_number_of_seeds(tmp_path):
    few, many = (
        run(tmp_path / seeds, *TINY.split(), "--seeds", seeds, "--search-seeds", seeds) for seeds in ("3", "7")
    )
    pd.testing.assert_frame_equal(few, many[many["seed"] < 3].reset_index(drop=True))


@pytest.mark.slow
def test_another_architecture_takes_the_place_of_the_generic_ones_only(tmp_path):
    own = run(tmp_path / "own", *TINY.split())
    other = run(tmp_path / "other", *TINY.split(), "--model", "mesocosm.models.mlp:MLP")
    values = {cell: rows.value.tolist() for cell, rows in other.groupby("cell")}
    same = {cell for cell, rows in own.groupby("cell") if rows.value.tolist() == values[cell]}
    kept = {cell for cell in own.cell.unique() if cell.startswith("C5/")}
    assert same == kept | {"C1/power-100", "C1/disjoint-polynet", "C1/control/random features"}

"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.disagreement import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Two copies disagree on as many test inputs as each gets wrong, across hyper-parameters.",
        rule="networks of train accuracy >= 0.99: slope b of dis on err in [0.7, 1.3] and correlation r > 0.5 "
        "across configurations, 95 % intervals over study seeds; on digits under DiffInit, else in all four modes",
        paper="points along y = x in all four modes, ResNet-18 on CIFAR-10 (Fig. 1)",
        judge=rules.judge_equality,
        control=lab.Control(
            statement="under DiffInit, logistic regression at convergence (b < 0.7) and MLPs (b < 0.6) fail it",
            judge=rules.judge_equality_control,
        ),
        cells=("network/", "mlp/", "logistic/"),
    ),
    lab.Claim(
        id="C2",
        statement="The gap between error and disagreement is at most CACE, the miscalibration of the copies' vote.",
        rule="|err - dis| (self-pairs included) exceeds neither CACE nor the tighter bound by 1e-9, and the "
        "identity behind them holds to 1e-9, for every ensemble on true, noisy and permuted labels",
        paper="a theorem",
        judge=rules.judge_theorem,
        control=lab.Control(
            statement="top-label ECE is no such bound: votes of a calibrated top class, others swapped, break it",
            judge=rules.judge_theorem_control,
        ),
    ),
    lab.Claim(
        id="C3",
        statement="The ensembles whose disagreement misses their error are the miscalibrated ones.",
        rule="Spearman correlation of |err - dis| with CACE across configurations, kinds and modes > 0, 95 % "
        "interval over study seeds",
        paper="ensembles that follow the equality are close to calibrated",
        judge=rules.judge_miscalibration,
        control=lab.Control(
            statement="with permuted test labels CACE of all networks rises, error goes to 0.9, disagreement stays",
            judge=rules.judge_miscalibration_control,
        ),
        cells=("network/", "mlp/", "logistic/"),
    ),
    lab.Claim(
        id="C4",
        statement="New initial weights alone make copies disagree about as much as new data, weights and order.",
        rule="dis under DiffInit over dis under AllDiff in [0.6, 1.1] for networks of train accuracy >= 0.99, 95 % "
        "interval over study seeds",
        paper="DiffInit follows y = x as AllDiff does (Fig. 1)",
        judge=lambda records: [lab.within("ratio", rules.init_over_all(records, "network/"), 0.6, 1.1)],
        control=lab.Control(
            statement="for MLPs the ratio is below 0.6",
            judge=lambda records: [lab.below("ratio of MLPs", rules.init_over_all(records, "mlp/"), 0.6)],
        ),
        cells=("network/", "mlp/"),
    ),
]

"""The claims, with the rules that judge them."""

from mesocosm import lab
from mesocosm.studies.datamodels_harmonic import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="The least-squares datamodel is the degree-1 part of the output's harmonics, and its residual is the "
        "weight of all higher degrees.",
        rule="all subsets trained, p = 1/2, every test point, kind of output and variant: largest |theta_i - f_i| and "
        "|residual - (B_2 + B_3 + ...)| < 1e-8; sum of all B_d less E f^2 within 1e-10",
        paper="exact (theorem)",
        judge=rules.judge_identities,
        control=lab.Control(
            statement="regression on the subsets of more than half of the points alone is off by more than 1e-3 in "
            "every table",
            judge=rules.judge_identities_control,
        ),
        unit="units of the output",
        cells=rules.VARIANTS,
    ),
    lab.Claim(
        id="C2",
        statement="Pairs of correlated subsets tell how good the linear datamodel is, without fitting one.",
        rule="clean and flipped labels, each: |estimated - true R^2|, mean over test points and the three kinds of "
        "output: 95 % upper bound with the larger number of pairs (1,000 a rho) < 0.12, and 95 % lower bound of its "
        "fall from the smaller number (200) > 0, paired over seeds",
        paper="the residual is estimated from a number of trainings that does not depend on the size of the data",
        judge=rules.judge_estimates,
        control=lab.Control(
            statement="with 4,000 pairs a rho, mean over 30 functions a seed: 95 % upper bound for parities of six "
            "points < 0.1, lower bound for linear functions > 0.95",
            judge=rules.judge_estimates_control,
        ),
        unit="R^2",
        cells=("clean", "flipped", "control", "many"),
    ),
    lab.Claim(
        id="C3",
        statement="Smooth outputs are nearly linear in the training points, thresholded ones are not.",
        rule="clean and flipped labels, each: R^2 of the margin less that of the probability, and that less the R^2 of "
        "correctness, mean over the test points where both vary: 95 % lower bounds over seeds > 0.1",
        paper="linear datamodels of margins predict well (Ilyas et al. 2022); no figure for the others",
        judge=rules.judge_smoothness,
        control=lab.Control(
            statement="where each training point has a fixed vote, R^2 of the margin is 1 to 1e-9 at every test point",
            judge=rules.judge_smoothness_control,
        ),
        unit="R^2",
        cells=("clean", "flipped"),
    ),
    lab.Claim(
        id="C4",
        statement="Influences of two points add up exactly; those of a group need not, and least of all where its "
        "points are near-copies.",
        rule="|all in against all out - sum over single points|, p = 1/2, of the margin: for all pairs < 1e-8; mean "
        "over test points for the group of near-copies less that of groups as large of other points, and of such "
        "groups of one label: 95 % lower bounds over seeds > 0",
        paper="deviations come from odd degrees of 3 and more inside the group",
        judge=rules.judge_groups,
        control=lab.Control(
            statement="where each training point has a fixed vote, all deviations are < 1e-8",
            judge=rules.judge_groups_control,
        ),
        unit="margin",
        cells=("copies",),
    ),
    lab.Claim(
        id="C5",
        statement="For ridge regression the influence function is what leaving a point out changes, but for a factor "
        "1 - h with the point's leverage h.",
        rule="all training and test points: |influence / (1 - h) - change by training without the point| < 1e-8",
        paper="influence functions as first-order approximations of leaving one out",
        judge=rules.judge_influence,
        control=lab.Control(
            statement="without the factor the error exceeds 1e-3 of the largest change, in every seed",
            judge=rules.judge_influence_control,
        ),
        unit="margin",
        cells=("influence",),
    ),
]

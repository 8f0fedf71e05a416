"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.fact_recall_downscaling import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Pruning takes away facts before it takes away looking them up in the context.",
        rule="Wanda, over questions: share of accuracy above chance that is kept at sparsity 0.5, look-up of one of "
        "two pairs less recall, 95 % lower bound > 0.2; largest sparsity that keeps 95 % of the accuracy (isotonic), "
        "the same difference, lower bound >= 0.1",
        paper="recall falls significantly from 30 % of sparsity on; in-context processing largely stays at 60 to 70 %",
        judge=rules.judge_recall_first,
        control=lab.Control(
            statement="countries that do not exist: accuracy at 0.5 less the dense model's, interval contains 0; under "
            "a random mask of 0.5 the share kept is < 0.5 in both",
            judge=rules.judge_recall_first_control,
        ),
        unit="of the dense model's accuracy above chance",
        cells=("recall", "retrieval", "invented"),
    ),
    lab.Claim(
        id="C2",
        statement="An answer in the context that contradicts a stored fact is still given after pruning, while the "
        "fact is lost.",
        rule="Wanda, 0.5 over dense, bootstrap over questions: rate of answers from the context, lower bound >= 0.95; "
        "recall, upper bound <= 0.8",
        paper="overriding stays, or rises, up to 60 to 70 % of sparsity",
        judge=rules.judge_override,
        control=lab.Control(
            statement="without the context, dense and at 0.5, the counterfactual answer is given no more often than "
            "by chance: the interval reaches 1/30",
            judge=rules.judge_override_control,
        ),
        unit="times the dense model's rate",
        cells=("recall", "override"),
    ),
    lab.Claim(
        id="C3",
        statement="Functions that are learned in the context survive pruning for longer than facts.",
        rule="Wanda, over functions and questions: largest sparsity that keeps 95 % of the accuracy, functions less "
        "recall, lower bound >= 0.1; inconclusive where the dense model is at chance",
        paper="linear classifiers in 2 to 4 dimensions from examples in the context",
        judge=rules.judge_function,
        control=lab.Control(
            statement="with shuffled labels the accuracy, mean over all sparsities, has an interval that contains 1/2",
            judge=rules.judge_function_control,
        ),
        unit="in sparsity",
        cells=("recall", "function"),
    ),
    lab.Claim(
        id="C4",
        statement="Networks that are trained narrower lose facts before they lose reading the context.",
        rule="the most facts, in each seed: the smallest width that recalls more than 0.9 is at least twice the "
        "smallest that reads more than 0.9 in context; a lower bound where no width recalls",
        paper="dense scaling within OPT and Pythia shows the same order",
        judge=rules.judge_widths,
        control=lab.Control(
            statement="with 16 times fewer facts recall needs no wider network than reading, in each seed",
            judge=rules.judge_widths_control,
        ),
        unit="times as wide",
        cells=("trained",),
    ),
]

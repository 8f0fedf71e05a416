"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.dyck_uninterpretability import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Attention can be arbitrary while the answers are exact.",
        rule="20 draws of attention scores, each with values that let matching brackets cancel: the right closing "
        "bracket after every prefix of 200 strings of 64 brackets; and 95 % lower bound of the mean pairwise variation "
        "of the maps > 25 % of that of random one-hot attention",
        paper="exact: attention may be uniform or nearly random; it is optimal if and only if matching brackets cancel",
        judge=rules.judge_construction,
        control=lab.Control(
            statement="the same scores with values that do not make up for them: below 0.95 in at least 90 % of draws",
            judge=rules.judge_construction_control,
        ),
        unit="of one-hot attention",
        cells=("construction",),
    ),
    lab.Claim(
        id="C2",
        statement="Equally accurate models attend differently.",
        rule="models with accuracy above 0.97 at N: 95 % lower bound of the mean variation between seeds, less 3 times "
        "the mean change of one seed in the last fifth of training, > 0, and of the share of equal answers > 0.97",
        paper="about 2.2 to 2.3 between 40 models, against 2.85 for random attention, in a normalization unknown here",
        judge=rules.judge_attention,
        control=lab.Control(
            statement="the same seeds with other data in the last fifth: variation below 3 times the late change",
            judge=rules.judge_attention_control,
        ),
        unit="squared distance of two maps",
        cells=(*rules.PLAIN, "one initialization", "late branch", "transformer", "construction"),
    ),
    lab.Claim(
        id="C3",
        statement="Violation of balance predicts how well a model generalizes to longer strings.",
        rule="at least 24 models with accuracy above 0.97 at N: 95 % upper bound of the rank correlation of violation "
        "and accuracy at 2 N < 0",
        paper="models with more violation of balance generalize worse to longer strings",
        judge=rules.judge_balance,
        control=lab.Control(
            statement="the violation of brackets that do not match: the correlation's interval contains 0",
            judge=rules.judge_balance_control,
        ),
        unit="rank correlation",
        cells=(*rules.PLAIN, "complete insertions"),
    ),
    lab.Claim(
        id="C4",
        statement="Asking for the same answers after inserted complete words lowers the violation and improves length "
        "generalization.",
        rule="paired over seeds: 95 % lower bound of the gain of accuracy at 2 N > 0, and upper bound of the change of "
        "violation < 0",
        paper="contrastive regularization lowers the violation of balance and improves length generalization",
        judge=rules.judge_insertions,
        control=lab.Control(
            statement="a lone opening bracket inserted instead: less gain, and the violation does not fall",
            judge=rules.judge_insertions_control,
        ),
        unit="accuracy",
        cells=("plain", "complete insertions", "lone insertions"),
    ),
]

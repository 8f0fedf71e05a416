"""The claims of the paper with their rules in words and their controls."""

from mesocosm import lab
from mesocosm.studies.flip_flop import rules

CLAIMS = [
    lab.Claim(
        id="C1",
        statement="Transformers that are perfect in distribution misread the tails; LSTMs never do.",
        rule="e(p): wrong reads / reads on FFL(p). Transformers with e(0.8) < 0.001: 95 % lower bound of the median of "
        "max(e(0.98), e(0.1)), the worse tail, > 0.001; every LSTM: no error in at least 3,000 reads of each set",
        paper="25 transformers of 19M parameters: errors on both tails spread over orders of magnitude; LSTMs: no "
        "error in 100 of 100 runs, with 20 times less data",
        judge=rules.judge_tail,
        control=lab.Control(
            statement="the same transformers on fresh FFL(0.8), and the LSTMs on the tails, both below 0.001",
            judge=rules.judge_tail_control,
        ),
        unit="wrong reads / reads",
        cells=("transformer", "lstm"),
    ),
    lab.Claim(
        id="C2",
        statement="Errors vary strongly between seeds.",
        rule="at least 8 transformers with e(0.8) < 0.001: 95 % lower bound of the standard deviation of log10 e on "
        "the worse tail > 0.2, with e at least 3/N",
        paper="orders of magnitude between seeds, and along training",
        judge=rules.judge_spread,
        control=lab.Control(
            statement="the same transformers on two samples of strings: standard deviation below 0.2",
            judge=rules.judge_spread_control,
        ),
        unit="in log10 e",
        cells=("transformer",),
    ),
    lab.Claim(
        id="C3",
        statement="Training on rare sequences removes most errors, more than as many extra steps in distribution.",
        rule="paired over seeds, e / e(mixture) on the worse tail > 10, and 95 % lower bound of its log10 > 0.5, "
        "with e at least 3/N",
        paper="mixing the tails into training gives the largest gain of all interventions",
        judge=rules.judge_mixture,
        control=lab.Control(
            statement="twice the steps on FFL(0.8) gain less: log10 of the ratio of the two factors > 0",
            judge=rules.judge_mixture_control,
        ),
        unit="times fewer errors",
        cells=("transformer", "mixture", "more data"),
    ),
    lab.Claim(
        id="C4",
        statement="Sharper attention helps at best in part: it does not remove the errors.",
        rule="paired over seeds, 95 % upper bound of the change of mean attention entropy < 0, and e on the worse tail "
        "> 0 for at least one seed with e(0.8) < 0.001",
        paper="attention sharpening and dropout help in part, nothing eliminates the errors, and sharp attention looks "
        "at wrong writes",
        judge=rules.judge_sharpening,
        control=lab.Control(statement="LSTMs on the tails: no seed with errors", judge=rules.judge_sharpening_control),
        unit="nats",
        cells=("transformer", "entropy penalty", "embedding dropout", "lstm"),
    ),
    lab.Claim(
        id="C5",
        statement="A softmax head recalls the last write if and only if its scores outweigh all that can oppose it.",
        rule="a hand-made head, 100,000 strings each of T = 8, 12, 16: no error where the analytic margin is positive; "
        "errors on dense strings at each T where recency is too weak",
        paper="exact: scores that do not grow with T are diluted",
        judge=rules.judge_hand_made,
        control=lab.Control(
            statement="the head of weak recency, on strings of one write: no error", judge=rules.judge_hand_made_control
        ),
        unit="errors",
        cells=("hand-made head",),
    ),
]
